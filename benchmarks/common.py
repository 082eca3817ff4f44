# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Shared parts of the benchmarks: the workloads, timing in turns, counting, and saving of the figures.

A script measures its cases in turns within one run, so that other load on the machine affects all of them, and prints
medians, their spread (the interquartile range over the median) and ratios. On a CPU the time is that of the process in all its
threads, so run it with one (`OMP_NUM_THREADS=1`). Counts have no noise. With `--save` the rows are written to
`benchmarks/results/<script>.<device>.json`, from which `benchmarks/report.py` makes the tables of README.md.
"""

import argparse
import functools
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any


# Otherwise the profiler prints a line to stderr whenever it starts and stops. It is read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import devices
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoConfig, FlamingoModel, FlamingoProcessor
from transformers_flamingo.few_shot.prompts import MediaItem
from transformers_flamingo.utils.memory import CPU_ATTENTION


RESULTS = Path(__file__).parent / "results"

# Shapes of the workloads: "small" for a CPU in float32, "large" for a GPU in bfloat16
CLIP_VIT_B_32 = {"patch_size": 32}
CLIP_VIT_L_14 = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
CLIP_VIT_L_14 |= {"patch_size": 14}
LLAMA_1B = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
LLAMA_1B |= {"num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True}
TEXT: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": GPT2Config,
    "opt": lambda: OPTConfig(vocab_size=50272),  # OPT-125m
    "llama-1b": lambda: LlamaConfig(**LLAMA_1B),
}


# Help of the options that only some scripts have
OPTIONS = {
    "batch_size": "number of texts in a batch",
    "documents": "number of captions",
    "images": "number of images",
    "layers": "number of layers of the language model; 0 for all",
    "max_images": "maximum number of images in a prompt",
    "max_timed_images": "maximum number of images in a prompt that is timed; longer ones are only counted",
    "max_tokens": "maximum number of tokens of a caption",
    "min_tokens": "minimum number of tokens of a caption",
    "new_tokens": "number of tokens to generate",
    "pool": "number of examples that demonstrations are drawn from",
    "queries": "number of queries in a run",
    "rows": "number of rows of data",
    "shots": "number of demonstrations before the query",
    "tokens": "number of tokens of a text, with its image markers",
    "workers": "number of workers of the data loader, compared with none",
    "vocabulary": "number of tokens that are predicted",
    "width": "width of the hidden states",
}
MAY_BE_ZERO = ("layers", "max_timed_images", "shots", "workers")


def at_least(minimum: int) -> Callable[[str], int]:
    """Make the `type` of an option that is a whole number from `minimum` on, and otherwise an error of the command line."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= minimum):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} on")
        return int(text)

    return read


def parser(doc: str, **integers: int) -> argparse.ArgumentParser:
    """Make a parser of the options that all scripts have, and of `--name` for each integer with its default."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--workload",
        choices=("small", "large"),
        default="small",
        help="CLIP ViT-B/32 and GPT-2 small in float32, or CLIP ViT-L/14 and a Llama of 1B in bfloat16 (default: %(default)s)",
    )
    result.add_argument(
        "--text", choices=TEXT, help="language model (default: gpt2 if small, or opt in peers.py; llama-1b if large)"
    )
    result.add_argument(
        "--device",
        type=devices.parse_device,
        default="cpu",
        help="device of torch, such as cuda (default: %(default)s)",
    )
    result.add_argument(
        "--repeats", type=at_least(1), default=5, help="number of runs of each case (default: %(default)s)"
    )
    result.add_argument("--save", action="store_true", help="write the rows to benchmarks/results")
    for name, default in integers.items():
        help_text = f"{OPTIONS[name]} (default: %(default)s)"
        number = at_least(0 if name in MAY_BE_ZERO else 1)
        result.add_argument(f"--{name.replace('_', '-')}", type=number, default=default, help=help_text)
    return result


def build(arguments: argparse.Namespace, **fields: Any) -> FlamingoModel:
    """Build the model of the workload: random weights, a block before every layer, 64 latents, gates at 0.5."""
    is_small = arguments.workload == "small"
    text_config = TEXT[arguments.text or ("gpt2" if is_small else "llama-1b")]()
    config = FlamingoConfig.from_vision_text_configs(
        CLIPVisionConfig(**(CLIP_VIT_B_32 if is_small else CLIP_VIT_L_14)),
        text_config,
        image_token_id=text_config.vocab_size - 1,
        end_of_chunk_token_id=text_config.vocab_size - 2,
        **fields,
    )
    dtype = torch.float32 if is_small else torch.bfloat16

    def make() -> FlamingoModel:
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return FlamingoModel(config)
        finally:
            torch.set_default_dtype(default)

    if torch.device(arguments.device).type == "cuda":
        memory = devices.plan_memory(make)
        print(f"{arguments.workload}: {memory}, if all is trained", flush=True)
        devices.check_memory(memory, torch.cuda.mem_get_info()[0], f"--workload {arguments.workload}")
    torch.manual_seed(0)
    with torch.device(arguments.device):
        model = make()
    with torch.no_grad():
        for block in model.gated_cross_attention:
            block.attn_gate.fill_(0.5)
            block.ffn_gate.fill_(0.5)
    return model.eval()


def processor(model: FlamingoModel) -> FlamingoProcessor:
    """Build a processor with the word `w<i>` for each token `i` of the model except the last three, which are special."""
    config = model.config
    words = {f"w{i}": i for i in range(config.end_of_chunk_token_id - 1)} | {"<pad>": config.end_of_chunk_token_id - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="w0")
    return FlamingoProcessor(CLIPImageProcessorPil(), tokenizer)


def words(rng: np.random.Generator, number: int, vocabulary: int = 5000) -> str:
    """Return a text of `number` random words."""
    return " ".join(f"w{i}" for i in rng.integers(1, vocabulary, number))


def random_image(number: int) -> MediaItem:
    """Return an image of 256 x 256 random pixels; `number` is its seed and its key."""
    pixels = np.random.default_rng(number).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    return MediaItem(number, Image.fromarray(pixels))


def inputs(model: FlamingoModel, num_images: int, num_tokens: int, batch_size: int = 1) -> dict[str, torch.Tensor]:
    """Return random texts of `num_tokens` tokens with image markers at equal distances, and pixels for the images."""
    generator = torch.Generator().manual_seed(num_images)
    input_ids = torch.randint(10, 20_000, (batch_size, num_tokens), generator=generator)
    input_ids[:, torch.arange(num_images) * num_tokens // max(num_images, 1)] = model.config.image_token_id
    pixels = torch.randn(batch_size, num_images, 3, 224, 224, generator=generator)
    batch = {"input_ids": input_ids, "pixel_values": pixels.to(model.dtype)}
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def read_clock(device: str | torch.device = "cpu") -> float:
    """Return seconds: the CPU time of the process, which other load lengthens least, or on a GPU the time after all its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass
class Timing:
    """Seconds of one case over the repeats."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Return the median of the runs."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Return the interquartile range of the runs over their median, or NaN for a single run."""
        if len(self.seconds) < 2:
            return float("nan")
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median

    def over(self, other: "Timing") -> float:
        """Return the median of the ratios of runs of the same turn."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def time_in_turns(
    cases: dict[str, Callable[[], Any]],
    repeats: int,
    device: str = "cpu",
    warmup: int = 1,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """
    Run all cases in turns and time them: `warmup` rounds that do not count, then `repeats` rounds that do. A case that
    returns a float has measured its own seconds. The clock is that of [`read_clock`] unless another is given.
    """
    clock = clock or functools.partial(read_clock, device)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, case in cases.items():
            start = clock()
            measured = case()
            elapsed = clock() - start
            if turn >= warmup:
                seconds[name].append(measured if isinstance(measured, float) else elapsed)
    return {name: Timing(values) for name, values in seconds.items()}


class TokenTimes(StoppingCriteria):
    """Record the time of each token of a `generate()`, as a stopping criterion that never stops."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.BoolTensor:
        self.times.append(read_clock(input_ids.device))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def generate(model: PreTrainedModel, batch: dict[str, torch.Tensor], num_tokens: int, **options: Any) -> float:
    """Run `generate()` and return the seconds per token, without the prompt and the first token."""
    times = TokenTimes()
    model.generate(
        **batch,
        max_new_tokens=num_tokens + 1,
        min_new_tokens=num_tokens + 1,
        stopping_criteria=StoppingCriteriaList([times]),
        **{"do_sample": False, **options},
    )
    return (times.times[-1] - times.times[0]) / num_tokens


def peak_bytes(case: Callable[[], Any], device: str = "cpu") -> int:
    """Return the peak of the bytes of all tensors that `case` makes, as measured from the allocator."""
    gc.collect()  # what earlier cases left is not freed in this one
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        case()
    # One event for each allocation and each release
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@dataclass
class Counts:
    """What a call costs, without noise."""

    flops: int  # floating-point operations of matrix products
    operations: int  # that PyTorch dispatched, views included
    peak_bytes: int  # of the tensors that the call made


class OperationCounter(TorchDispatchMode):
    """Count the operations that PyTorch dispatches."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


class ZeroProducts(TorchDispatchMode):
    """
    Allocate zeros for the results of matrix products instead of computing them, since no count depends on their values.

    Convolutions, which are few, are computed: their kernels need buffers of their own.
    """

    products = flop_registry.keys() | CPU_ATTENTION.keys()
    products -= {torch.ops.aten.convolution, torch.ops.aten._convolution}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._overloadpacket not in self.products:
            return func(*args, **kwargs)
        [device] = {value.device for value in tree_leaves(args) if isinstance(value, torch.Tensor)}
        outputs = func(*self.to_meta(args), **self.to_meta(kwargs))
        return tree_map_only(torch.Tensor, lambda output: torch.zeros_like(output, device=device), outputs)

    @staticmethod
    def to_meta(values: Any) -> Any:
        """Return the tensors among the values without their memory."""
        return tree_map_only(torch.Tensor, lambda value: torch.empty_like(value, device="meta"), values)


def count(call: Callable[[], Any], device: str = "cpu") -> Counts:
    """
    Run `call` once without computing matrix products, and return its costs.

    The peak is that of all tensors, results of products included, without the buffers inside of the products' kernels.
    """
    operations = OperationCounter()
    flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)

    def counted() -> None:
        with ZeroProducts(), flops, operations:
            call()

    peak = peak_bytes(counted, device)
    return Counts(flops.get_total_flops(), operations.number, peak)


def count_step(call: Callable[[int], Any], device: str = "cpu") -> Counts:
    """Return the operations of the second step of `call(number of steps)`, and the peak of the call with two."""
    two, one = count(functools.partial(call, 2), device), count(functools.partial(call, 1), device)
    return Counts(two.flops - one.flops, two.operations - one.operations, two.peak_bytes)


def report(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], name: str | None = None, clock: str | None = None
) -> None:
    """Print rows as a Markdown table, and with `--save` write them to the results, with the clock if it is another than ours."""
    print(markdown(rows))
    if not arguments.save:
        return
    device = torch.device(arguments.device).type
    path = RESULTS / f"{name or Path(sys.argv[0]).stem}.{device}.json"
    path.parent.mkdir(exist_ok=True)
    options = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}")
        for key, value in vars(arguments).items()
        if key != "save" and value is not None and value is not False
    ]
    content = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(options)}",
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "clock": clock or ("wall time" if device == "cuda" else "CPU time"),
        "torch": torch.__version__,
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Format rows as a Markdown table with the columns of the first row."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def milliseconds(timing: Timing) -> str:
    """Format the median of a timing."""
    return f"{1000 * timing.median:.1f}"


def percent(share: float) -> str:
    """Format a share."""
    return f"{share:.0%}"


def megabytes(number: float) -> str:
    """Format a number of bytes in units of 10^6."""
    return f"{number / 1e6:.1f}"
