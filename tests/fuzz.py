# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Try random inputs on every surface that reads data of others: each must give a result or a clear error.

    python tests/fuzz.py --inputs 10000 --seed 0

A clear error is a `ValueError`, `TypeError` or `FileNotFoundError` with a message, by a `raise` of this package or of
transformers. Anything else, such as a call of more than 10 s, is counted as other, and printed with its smallest example.
"""

import argparse
import base64
import io
import itertools
import os
import random
import resource
import signal
import string
import sys
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import yaml
from transformers.utils import logging

from transformers_flamingo.data import (
    FORMATS,
    Chunk,
    FixedRate,
    decode_image,
    decode_video,
    document_to_sample,
    row_location,
)
from transformers_flamingo.data.columns import FILE, ROW
from transformers_flamingo.training.recipe import parse_recipe, read_recipe


CLEAR = (ValueError, TypeError, FileNotFoundError)
PACKAGE = os.sep + "transformers_flamingo" + os.sep
SECONDS = 10

# One attempt: a name for the table, the call, and a function that describes it if the outcome is neither of the two
Attempt = tuple[str, Callable[[], Any], Callable[[], str]]


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def image_files(rng: random.Random) -> dict[str, bytes]:
    """Return a small image in each format and mode that Pillow writes."""
    PIL.Image.init()
    noise = np.frombuffer(rng.randbytes(24 * 20 * 4), np.uint8).reshape(20, 24, 4)
    base, files = PIL.Image.fromarray(noise), {}
    modes = {mode: base.convert("RGB").convert(mode) for mode in ("1", "L", "P", "RGB", "CMYK", "I", "F")}
    modes |= {"RGBA": base, "LA": base.convert("LA"), "I;16": PIL.Image.fromarray(noise.view(np.uint16)[..., 0])}
    for name in sorted(PIL.Image.SAVE.keys() - {"PDF", "EPS"}):
        # Macintosh icons are written in ten sizes up to 1024, which takes a second for noise
        for mode, image in modes.items() if name != "ICNS" else [("P", modes["P"])]:
            buffer = io.BytesIO()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image.save(buffer, name)
            except Exception:  # the format does not have this mode, or has no encoder
                continue
            files[f"{name} {mode}"] = buffer.getvalue()
    for name, options in {"PNG": {"interlace": 1}, "GIF": {}, "WEBP": {}, "TIFF": {}, "AVIF": {}}.items():
        buffer = io.BytesIO()
        base.save(buffer, name, save_all=True, append_images=[base.rotate(90)] * 2, **options)
        files[f"{name} frames"] = buffer.getvalue()
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        buffer = io.BytesIO()
        (modes["1"] if compression == "group4" else modes["RGB"]).save(buffer, "TIFF", compression=compression)
        files[f"TIFF {compression}"] = buffer.getvalue()
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        buffer = io.BytesIO()
        modes["RGB"].save(buffer, name, exif=exif)
        files[f"{name} exif"] = buffer.getvalue()
    return files


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes, more often near the beginning, where the headers are."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        if not data:
            break
        place = min(len(data) - 1, int(rng.expovariate(1 / 60))) if rng.random() < 0.6 else rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind <= 2:
            data[place] = rng.choice(
                [0, 1, 0x7F, 0x80, 0xFF, data[place] ^ (1 << rng.randrange(8)), rng.randrange(256)]
            )
        elif kind == 3:
            del data[place : place + rng.choice([1, 4, 1000000])]
        elif kind == 4:
            data[place:place] = rng.randbytes(rng.choice([1, 2, 4, 64]))
        else:
            data[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
    return bytes(data)


def image_attempts(rng: random.Random, folder: Path, processor: Any) -> Iterator[Attempt]:
    """Damage image files, and read them in each way that the processor takes."""
    files = image_files(rng)
    path = folder / "image.bin"
    while True:
        name, data = rng.choice(list(files.items()))
        data = damage(data, rng)
        path.write_bytes(data)
        way = rng.randrange(4)
        sources = (data, str(path), {"bytes": data, "path": "a.png"}, base64.b64encode(data).decode())
        if way == 3 and rng.random() < 0.5:
            run = partial(lambda data: processor(images=decode_image(data, "row"), text="<image>"), data)
        else:
            run = partial(processor, images=sources[way], text="<image>")
        yield "images", run, lambda name=name, data=data: f"{name}: {base64.b64encode(data).decode()}"


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------


def text(rng: random.Random) -> str:
    """Return a short text, with special tokens, surrogates or any characters."""
    pieces = [
        "a cat",
        "<image>",
        "<|endofchunk|>",
        "<eos>",
        "<PAD>",
        " ",
        "\n",
        "\0",
        "\ud800",
        "é",
        "🦩",
        "<",
        "{}",
        "%s",
    ]
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x3000)) for _ in range(rng.randrange(8)))
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(5)))


def number(rng: random.Random) -> Any:
    """Return a number, often an odd one."""
    return rng.choice([0, 1, -1, 2, 8, 255, 4096, 1e-3, 0.5, -0.0, 1e300, 2**70, float("nan"), float("inf"), True])


def array(rng: random.Random) -> Any:
    """Return an array or tensor of an image, often of a wrong shape or type."""
    shape = rng.choice([(5, 6), (5, 6, 3), (3, 5, 6), (5, 6, 4), (2, 5, 6, 3), (1, 1, 3), (0, 3), (5, 6, 2), (), (3,)])
    kind = rng.choice(
        ["uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "bool", "complex64", "O"]
    )
    scale = rng.choice([1, 2, 255, 1023, 4095, 16383, 65535, 70000])
    values = np.random.default_rng(rng.randrange(2**31)).random(shape) * scale - rng.choice([0, 0, 0, 1, 1024])
    if rng.random() < 0.1 and values.size:
        values.flat[0] = rng.choice([np.nan, np.inf, -np.inf])
    with np.errstate(invalid="ignore"):
        values = values.astype(kind)
    if rng.random() < 0.3 and kind not in ("O", "complex64"):
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.bfloat16() if rng.random() < 0.2 else tensor
    return values


def image(rng: random.Random, folder: Path) -> Any:
    """Return one image in some form, often one that cannot be read."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (9, 7), (200, 10, 0)).save(buffer, "PNG")
    data = buffer.getvalue()
    mode = rng.choice(
        ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I", "F", "I;16", "HSV", "LAB", "La", "PA", "YCbCr"]
    )
    choices: list[Callable[[], Any]] = [
        lambda: PIL.Image.new(mode, (rng.choice([1, 7, 7, 3000]), rng.choice([0, 1, 5, 5, 40]))),
        lambda: array(rng),
        lambda: array(rng),
        lambda: data,
        lambda: {"bytes": data, "path": rng.choice([None, "a.png"])},
        lambda: {"bytes": None, "path": rng.choice([None, "", "no.png", "/dev/zero", 3, str(folder)])},
        lambda: rng.choice(
            [
                "",
                "no.png",
                "/dev/zero",
                str(folder / "fifo"),
                "http://",
                "http://127.0.0.1:9/a",
                "data:image/png;base64,",
            ]
        ),
        lambda: rng.choice(
            ["\0", "a" * 5000, "file:///etc/passwd", base64.b64encode(data).decode(), "\ud800", "http://[::1"]
        ),
        lambda: rng.choice([None, 3, 1.5, b"", b"abc", object(), {}, set(), {"path": "a"}, {"bytes": "text"}]),
    ]
    return choices[0]() if rng.random() < 0.5 else rng.choice(choices)()


def images(rng: random.Random, folder: Path) -> Any:
    """Return images, nested in some way."""
    one = partial(image, rng, folder)

    def some(make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(rng.randrange(3))]

    choices = [one, lambda: some(one), lambda: [some(one), some(one)], lambda: [[some(one), one()]], lambda: None]
    return rng.choice(choices)()


def keywords(rng: random.Random) -> dict[str, Any]:
    """Return some keywords of a call of the processor."""

    def size() -> Any:
        return rng.choice(
            [8, 0, -1, "a", None, {"shortest_edge": number(rng)}, {"height": 8, "width": number(rng)}, [8, 8]]
        )

    choices: dict[str, Callable[[], Any]] = {
        "size": size,
        "crop_size": size,
        "do_rescale": lambda: rng.choice([True, False, None, 3]),
        "do_resize": lambda: rng.choice([True, False]),
        "do_normalize": lambda: rng.choice([True, False]),
        "do_convert_rgb": lambda: rng.choice([True, False]),
        "rescale_factor": lambda: number(rng),
        "image_mean": lambda: rng.choice([number(rng), [0.5] * 3, [number(rng)] * 3, [0.5], "a"]),
        "image_std": lambda: rng.choice([number(rng), [0, 0, 0], [number(rng)] * 3, [], [0.5]]),
        "bit_depth": lambda: rng.choice([12, 8, 16, 0, 17, "12", None, 1.5]),
        "input_data_format": lambda: rng.choice(["channels_first", "channels_last", "x", None]),
        "padding": lambda: rng.choice([True, "max_length", 3]),
        "max_length": lambda: rng.choice([1, 4, 0, -1]),
        "truncation": lambda: True,
        "return_tensors": lambda: rng.choice(["pt", "np", None, "x"]),
        "text_kwargs": lambda: rng.choice([3, {}, {"padding": True}, "a", None]),
        "images_kwargs": lambda: rng.choice([3, {}, {"bit_depth": 12}, [], {"size": 0}]),
        "videos_kwargs": lambda: rng.choice([3, {}, {"fps": 1}]),
        "nonsense": lambda: 3,
    }
    return {name: choices[name]() for name in rng.sample(sorted(choices), rng.choice([0, 0, 0, 1, 1, 2, 3]))}


# ---------------------------------------------------------------------------------------------------------------------
# Processor, rows, recipes
# ---------------------------------------------------------------------------------------------------------------------


def processor_attempts(rng: random.Random, folder: Path, processor: Any) -> Iterator[Attempt]:
    """Call the processor, or its chat template, with random arguments."""
    while True:
        call = keywords(rng)
        media = images(rng, folder)
        kind = rng.randrange(6)
        if kind <= 2:
            # The texts fit, so that the images are read
            flat = media if isinstance(media, list) else [media]
            nested = [sample if isinstance(sample, list) else [sample] for sample in flat]
            call |= {"images": nested, "text": ["<image>" * len(sample) + "a" for sample in nested]}
        elif kind == 3:
            call |= {
                "images": media,
                "text": rng.choice([text(rng), [text(rng), text(rng)], [], 3, [3], None, b"a", {}]),
            }
        elif kind == 4:
            call |= {"videos": media, "text": text(rng)}
        else:
            content = rng.choice(
                [text(rng), [{"type": "image", "image": media}, {"type": "text", "text": text(rng)}], [{}], [3], 3]
            )
            chat = rng.choice([[{"role": "user", "content": content}], [], [[]], [{}], 3, None, [3], "a"])
            options = {
                "tokenize": True,
                "return_dict": True,
                "processor_kwargs": rng.choice([None, 3, call, {"padding": True}]),
            }
            run = partial(processor.apply_chat_template, chat, **options)
            yield (
                "processor",
                run,
                lambda chat=chat, options=options: f"apply_chat_template({chat!r:.300}, {options!r:.300})",
            )
            continue
        yield "processor", partial(processor, **call), lambda call=call: f"processor(**{call!r:.600})"


# The others read whole files, from which their rows are put together
ROW_FORMATS = sorted(set(FORMATS) - {"coco_captions", "vqav2", "label_studio", "fiftyone"})


def row_of(rng: random.Random, name: str, folder: Path) -> dict[str, Any]:
    """Return a valid row of a format, one of `ROW_FORMATS`."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (9, 7), (200, 10, 0)).save(buffer, "PNG")
    embedded = {"bytes": buffer.getvalue(), "path": None}
    good: dict[str, dict[str, Any]] = {
        "image_text_pairs": {"image": embedded, "text": "a cat"},
        "obelics": {"images": [embedded, None], "texts": [None, "a cat"]},
        "mmc4": {
            "text_list": ["a cat", "a dog"],
            "image_info": [
                {
                    "image_name": "a.png",
                    "matched_text_index": 0,
                    "matched_sim": 0.3,
                    "image_base64": base64.b64encode(buffer.getvalue()).decode(),
                }
            ],
        },
        "parts": {"parts": [{"type": "image", "image": embedded}, {"type": "text", "text": "a cat"}]},
        "question_answering": {"image": embedded, "question": "what?", "answers": ["a cat", "a cat", "dog"]},
        "llava": {
            "image": embedded,
            "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}],
        },
        "messages": {
            "image": embedded,
            "messages": [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a cat"}],
        },
        "video_text_pairs": {"video": [PIL.Image.new("RGB", (9, 7))], "text": "a cat"},
        "prompt_completion": {"image": embedded, "prompt": "<image>what?", "completion": "a cat"},
        "cauldron": {"images": [embedded], "texts": [{"user": "what?", "assistant": "a cat", "source": "s"}]},
        "image_classes": {"image": embedded, "label": "cat"},
    }
    return good[name]


def mutate(value: Any, rng: random.Random, folder: Path) -> Any:
    """Replace, remove or repeat some parts of a value."""
    if rng.random() < 0.15:
        odd = [None, "", text(rng), number(rng), [], {}, [None], {"bytes": b"x", "path": None}, {"path": "/dev/zero"}]
        odd += [
            "../../etc/passwd",
            str(folder / "fifo"),
            "zip://a::http://127.0.0.1:9/b",
            "http://127.0.0.1:9/a.png",
            b"\xff",
        ]
        return rng.choice(odd)
    if isinstance(value, dict):
        items = {k: mutate(v, rng, folder) for k, v in value.items() if rng.random() < 0.97}
        return items | ({rng.choice(string.ascii_lowercase): 1} if rng.random() < 0.05 else {})
    if isinstance(value, list):
        items = [mutate(item, rng, folder) for item in value if rng.random() < 0.97]
        return items * rng.choice([1, 1, 1, 2])
    return value


def row_attempts(rng: random.Random, folder: Path, processor: Any) -> Iterator[Attempt]:
    """Read and render rows of each format in which some values were replaced."""
    readers = {name: kind(media_root=rng.choice([None, str(folder)])) for name, kind in FORMATS.items()}
    generator = np.random.default_rng(0)
    for number_ in itertools.count():
        name = rng.choice(ROW_FORMATS)
        row = mutate(row_of(rng, name, folder), rng, folder)
        row = {**(row if isinstance(row, dict) else {}), FILE: str(folder / "rows.jsonl"), ROW: number_}

        def run(name=name, row=row) -> Any:
            document: list[Chunk] = readers[name].read(row)
            return document_to_sample(
                document, processor, generator, location=row_location(row), max_length=64, max_images=2
            )

        yield "data rows", run, lambda name=name, row=row: f"{name}: {row!r:.500}"


def file_attempts(rng: random.Random, folder: Path, processor: Any) -> Iterator[Attempt]:
    """Damage a video and decode it."""
    import av

    video = folder / "video.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    movie = video.read_bytes()
    while True:
        data = damage(movie, rng)
        run = partial(decode_video, data, "row", sampling=FixedRate(1, 4))
        yield "videos", run, lambda data=data: base64.b64encode(data).decode()


def recipe_attempts(rng: random.Random, folder: Path, processor: Any) -> Iterator[Attempt]:
    """Read recipes in which some values or bytes were replaced, with random changes."""
    good = {
        "vision": "miniature",
        "text": "miniature",
        "max_steps": 10,
        "learning_rate": 1e-4,
        "output_dir": str(folder / "run"),
        "model_config": {"cross_attention_every_n_layers": 2},
        "data": {"captions": {"format": "image_text_pairs", "path": "captions", "weight": 0.2, "batch_size": 4}},
    }
    path = folder / "recipe.yaml"
    while True:
        values = mutate(good, rng, folder)
        arguments = []
        for _ in range(rng.choice([0, 0, 1, 2])):
            name = rng.choice(
                [
                    "--max_steps",
                    "--data.captions.weight",
                    "--data",
                    "--evaluation.x.path",
                    "--model_config.a",
                    "--",
                    "-x",
                    "--learning_rate",
                ]
            )
            arguments += [name, rng.choice(["null", "1", "-1", "nan", "a: b", "[1", "{}", "", "&a [*a]", "1e-4"])]
        kind = rng.randrange(3)
        try:
            written = yaml.safe_dump(values)
        except (yaml.YAMLError, UnicodeError):
            continue
        if kind == 0:
            written = damage(written.encode(errors="replace"), rng).decode(errors="replace")
        if kind <= 1:
            path.write_text(written, errors="replace")
            run = partial(read_recipe, path, arguments)
        else:
            run = partial(parse_recipe, values if isinstance(values, dict) else {}, arguments)
        yield "recipes", run, lambda written=written, arguments=arguments: f"{written!r:.600} {arguments}"


SURFACES = {
    "images": (image_attempts, 0.3),
    "processor": (processor_attempts, 0.3),
    "data rows": (row_attempts, 0.2),
    "videos": (file_attempts, 0.05),
    "recipes": (recipe_attempts, 0.15),
}


# ---------------------------------------------------------------------------------------------------------------------
# Counting
# ---------------------------------------------------------------------------------------------------------------------


class TookTooLong(BaseException):
    """Stop a call. It is not an `Exception`, so that no handler in the call swallows it."""


def _alarm(*_: Any) -> None:
    raise TookTooLong(f"more than {SECONDS} s")


def is_clear(error: BaseException) -> bool:
    """Tell whether a user can act on an error: it was raised on purpose, by this package or transformers."""
    if not isinstance(error, CLEAR) or not str(error).strip():
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.line.startswith("raise ") and (
        PACKAGE in last.filename or f"{os.sep}transformers{os.sep}" in last.filename
    )


def fuzz(
    inputs: int, seed: int, surfaces: list[str], seconds: int = 0
) -> tuple[dict[str, Counter], dict[str, dict[str, str]]]:
    """
    Try random inputs.

    Args:
        inputs (`int`): Total number of inputs.
        seed (`int`): Seed of the inputs.
        surfaces (`list[str]`): Keys of `SURFACES` to try.
        seconds (`int`, *optional*, defaults to 0): Time limit of each input, by the alarm of the process. 0 is no limit.

    Returns:
        `tuple`: the counts of outcomes for each surface, and the shortest example for each kind of other outcome.
    """
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "data")]
    from data_factory import bpe_processor

    counts: dict[str, Counter] = {surface: Counter() for surface in surfaces}
    examples: dict[str, dict[str, str]] = defaultdict(dict)
    total = sum(SURFACES[surface][1] for surface in surfaces)
    processor = bpe_processor()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.mkfifo(folder / "fifo")
        for surface in surfaces:
            make, share = SURFACES[surface]
            attempts = make(random.Random(f"{seed} {surface}"), folder, processor)
            for _, run, show in itertools.islice(attempts, round(inputs * share / total)):
                if seconds:
                    signal.alarm(seconds)
                try:
                    run()
                    outcome = "result"
                except (Exception, TookTooLong) as error:
                    outcome = "clear error" if is_clear(error) else "other"
                    if outcome == "other":
                        frames = traceback.extract_tb(error.__traceback__)
                        own_frames = [frame for frame in frames if PACKAGE in frame.filename] or frames
                        kind = f"{type(error).__name__} at {Path(own_frames[-1].filename).name}:{own_frames[-1].lineno}: {error!s:.20}"
                        example = f"{error!s:.200}\n    {show()}"
                        if len(example) < len(examples[surface].get(kind, example + " ")):
                            examples[surface][kind] = example
                finally:
                    if seconds:
                        signal.alarm(0)
                counts[surface][outcome] += 1
    return counts, examples


def main() -> None:
    """Run the command, and exit with code 1 if there was any other outcome."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surfaces", nargs="+", choices=sorted(SURFACES), default=list(SURFACES))
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _alarm)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    counts, examples = fuzz(arguments.inputs, arguments.seed, arguments.surfaces, SECONDS)
    columns = ("result", "clear error", "other")
    print(f"| surface | inputs | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for surface, counter in counts.items():
        print(f"| {surface} | {counter.total()} | {' | '.join(str(counter[column]) for column in columns)} |")
    print(f"\npeak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    for surface, kinds in examples.items():
        for kind, example in kinds.items():
            print(f"\n{surface}: {kind}\n    {example[:1500]}")
    sys.exit(any(counter["other"] for counter in counts.values()))


if __name__ == "__main__":
    main()
