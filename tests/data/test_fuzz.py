# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Whatever a row or a file holds, the result is a sample for the collator or a clear error that names file and row."""

import copy
import io
import json
import math
import os
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from data_factory import bpe_processor, numbered_image, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_flamingo.data import FORMATS, BadSampleError, document_to_sample, row_location
from transformers_flamingo.data.columns import FILE, ROW
from transformers_flamingo.training import FlamingoDataCollator


# More for a longer run: FUZZ_EXAMPLES=10000 python -m pytest -s tests/data/test_fuzz.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 100, suppress_health_check=list(HealthCheck)
)
PROCESSOR = bpe_processor()
PIXELS = {"bytes": png(1), "path": None}
IMAGE_FILE = os.path.join(tempfile.gettempdir(), f"flamingo-fuzz-{os.getpid()}.png")
Path(IMAGE_FILE).write_bytes(png(1))
CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
    {"role": "assistant", "content": "a cat"},
]
ROWS = {
    "image_text_pairs": {"image": PIXELS, "text": "a cat"},
    "obelics": {"images": [PIXELS, None, PIXELS, None], "texts": [None, "a cat", None, "a dog"]},
    "mmc4": {
        "text_list": ["a cat", "a dog"],
        "image_info": [
            {"image_name": "a.png", "image_base64": "AAAA", "matched_text_index": 0, "matched_sim": 0.5},
            {"image_name": "b.png", "matched_text_index": 1, "matched_sim": 0.5},
        ],
    },
    "parts": {
        "parts": [
            {"type": "image", "image": PIXELS, "text": None},
            {"type": "text", "text": "a cat", "image": None},
            {"type": "video", "video": [PIXELS, PIXELS]},
            {"type": "text", "text": "a dog"},
        ]
    },
    "question_answering": {"image": PIXELS, "question": "what?", "answers": ["a cat", {"answer": "a dog"}]},
    "llava": {
        "image": [PIXELS],
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}],
    },
    "messages": {
        "images": [PIXELS],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
            {"role": "assistant", "content": "a cat"},
        ],
    },
    "prompt_completion": {"images": [PIXELS], "prompt": CHAT[:1], "completion": CHAT[1:]},
    "cauldron": {"images": [PIXELS], "texts": [{"user": "what?", "assistant": "a cat", "source": "x"}]},
    "video_text_pairs": {"video": [PIXELS, PIXELS], "captions": ["a cat", "a dog"]},
    "image_classes": {"image": PIXELS, "label": "a_cat"},
    "coco_captions": {"file_name": IMAGE_FILE, "captions": ["a cat", "a dog"]},
    "vqav2": {"image": IMAGE_FILE, "question": "what?", "answers": ["a cat"]},
    "label_studio": {
        "data": {"image": IMAGE_FILE},
        "annotations": [{"result": [{"from_name": "a", "type": "textarea", "value": {"text": ["a cat", "a dog"]}}]}],
    },
    "fiftyone": {"filepath": IMAGE_FILE, "label": {"_cls": "Classification", "label": "a cat"}},
}
NOTHINGS = [None, "", " ", b"", [], {}, (), [None], [[]], {"bytes": None, "path": None}, math.nan]
NUMBERS = [math.inf, -1, 0, 1, 2**70, 1.5, True, np.float32(1), np.zeros((4, 4, 3))]
TEXTS = ["a cat", "<image>", "<eos>", "\ud800", "\0", "a.png", "x" * 300, b"bytes", ["a"], {"a"}, (1, 2)]
MEDIA = [
    png(1),
    png(1)[:60],
    PIXELS,
    numbered_image(2),
    [numbered_image(1), None],
    {"bytes": "a.png"},
    {"path": "no.png"},
    "/dev/zero",
    "https://a/b",
]
PARTS = [{"type": "image"}, {"from": "gpt"}, {"role": "user"}, {"answer": None}]
VALUES = st.sampled_from([*NOTHINGS, *NUMBERS, *TEXTS, *MEDIA, *PARTS]) | st.text(max_size=8)
VALUES = VALUES.map(copy.deepcopy)  # a change of a row must not reach the next one
counts: Counter = Counter()


def places(value, path=()):
    """Yield the path to each value inside `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(row, data):
    """Return the row with up to three of its values replaced, removed or doubled."""
    row = copy.deepcopy(row)
    for _ in range(data.draw(st.integers(1, 3))):
        options = list(places(row))
        if not options:
            break
        *path, last = data.draw(st.sampled_from(options))
        inner = row
        for key in path:
            inner = inner[key]
        action = data.draw(st.integers(0, 4))
        if action == 0:
            del inner[last]
        elif action == 1 and isinstance(inner, list):
            inner.append(inner[last])
        elif action == 2 and isinstance(inner, dict):
            inner[
                data.draw(st.sampled_from(["image", "images", "text", "x", "__key__", "__url__", "json", "bytes"]))
            ] = data.draw(VALUES)
        else:
            inner[last] = data.draw(VALUES)
    return row


def outcome(name, reader, row, limits):
    """Read and collate a row, which must give a batch or a `BadSampleError` that begins with the location of the row."""
    try:
        sample = document_to_sample(
            reader.read(row), PROCESSOR, np.random.default_rng(0), location=row_location(row), **limits
        )
    except BadSampleError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert message.startswith(row_location(row))
        counts[name, "clear error"] += 1
        return
    batch = FlamingoDataCollator(PROCESSOR)([sample])
    assert (batch["labels"][:, 1:] != -100).any()
    counts[name, "result"] += 1


LIMITS = st.sampled_from(
    [{}, {"max_length": 1}, {"max_length": 6}, {"max_images": 1}, {"max_length": 12, "max_images": 0}]
)


@fuzz
@given(name=st.sampled_from(sorted(ROWS)), limits=LIMITS, data=st.data())
def test_rows(name, limits, data):
    row = changed(ROWS[name], data)
    outcome(name, FORMATS[name](), {**row, FILE: "data.parquet", ROW: 7}, limits)


def test_rows_are_good_to_begin_with():
    assert ROWS.keys() == FORMATS.keys()
    for name in ROWS.keys() - {"mmc4"}:  # whose image is none
        outcome("begin", FORMATS[name](), {**ROWS[name], FILE: "data.parquet", ROW: 7}, {})
    assert counts["begin", "result"] == len(ROWS) - 1


def _tar(members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {
    "tar": _tar([(f"{i}.{kind}", png(i) if kind == "png" else b"a cat") for i in range(3) for kind in ("png", "txt")]),
    "jsonl": "".join(json.dumps({"image": f"{i}.png", "text": "a cat"}) + "\n" for i in range(3)).encode(),
    "json": json.dumps([{"image": f"{i}.png", "text": "a cat"} for i in range(3)]).encode(),
    "csv": b'image,text\n0.png,a cat\n1.png,"a, cat"\n2.png,a cat\n',
    "tsv": b"image\ttext\n0.png\ta cat\n1.png\ta cat\n2.png\ta cat\n",
}
FILES["jsonl.gz"] = zlib.compress(FILES["jsonl"], wbits=31)
FILES["tar.gz"] = zlib.compress(FILES["tar"], wbits=31)


@fuzz
@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
def test_files(kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1)) if content else 0
        action = data.draw(st.integers(0, 3))
        if action == 0:
            del content[place:]
        elif action == 1:
            content[place:place] = data.draw(st.binary(max_size=4))
        elif action == 2:
            del content[place : place + data.draw(st.sampled_from([1, 512, 1024]))]
        else:
            content[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
    with tempfile.TemporaryDirectory() as folder:
        for i in range(3):
            (Path(folder) / f"{i}.png").write_bytes(png(i))
        path = Path(folder) / f"a.{kind}"
        path.write_bytes(content)
        reader = FORMATS["image_text_pairs"]()
        try:
            for row in reader.load(str(path), streaming=True):
                outcome(kind, reader, row, {})
        except ValueError as error:
            refused = str(error)
        else:
            return
        assert f"{str(path)!r} cannot be read" in refused  # to its end, or at all
        counts[kind, "file refused"] += 1


def teardown_module():
    Path(IMAGE_FILE).unlink()
    if EXAMPLES > 100:
        for (name, result), count in sorted(counts.items()):
            print(f"{name:20} {result:12} {count}")
