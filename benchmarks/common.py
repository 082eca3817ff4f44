# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What the benchmarks share: the workloads, timing in turns, and where figures go.

A script measures its cases in turns within one run, so that whatever else the machine does falls on all of them, and
prints medians, their spread (the middle half of the runs, over the median) and ratios. With `--save` the rows are
written to `benchmarks/results/<script>.<device>.json`, from which `benchmarks/report.py` makes the tables of README.md.
"""

import argparse
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


os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # a line on stderr at each start and stop of the profiler

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile
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
from transformers_flamingo.evaluation.engine import MediaItem


RESULTS = Path(__file__).parent / "results"

# Shapes of the workloads: "small" on a CPU, "large" on a GPU in bfloat16.
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


def parser(doc: str, **integers: int) -> argparse.ArgumentParser:
    """The options that all scripts have, and `--name` for each integer."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--workload", choices=("small", "large"), default="small")
    result.add_argument("--text", choices=TEXT, help="language model (small: gpt2, large: llama-1b)")
    result.add_argument("--device", default="cpu")
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--save", action="store_true", help="write the rows to benchmarks/results")
    for name, default in integers.items():
        result.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return result


def build(arguments: argparse.Namespace, **fields: Any) -> FlamingoModel:
    """The model of the workload: random weights, a block before every layer, 64 latents, gates at 0.5."""
    is_small = arguments.workload == "small"
    text_config = TEXT[arguments.text or ("gpt2" if is_small else "llama-1b")]()
    config = FlamingoConfig.from_vision_text_configs(
        CLIPVisionConfig(**(CLIP_VIT_B_32 if is_small else CLIP_VIT_L_14)),
        text_config,
        image_token_id=text_config.vocab_size - 1,
        end_of_chunk_token_id=text_config.vocab_size - 2,
        **fields,
    )
    torch.manual_seed(0)
    dtype = torch.float32 if is_small else torch.bfloat16
    with torch.device(arguments.device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = FlamingoModel(config)
        finally:
            torch.set_default_dtype(default)
    with torch.no_grad():
        for block in model.gated_cross_attention:
            block.attn_gate.fill_(0.5)
            block.ffn_gate.fill_(0.5)
    return model.eval()


def processor(model: FlamingoModel) -> FlamingoProcessor:
    """A processor with the word `w<i>` for each token `i` of the model, but for the last three, which are special."""
    config = model.config
    words = {f"w{i}": i for i in range(config.end_of_chunk_token_id - 1)} | {"<pad>": config.end_of_chunk_token_id - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="w0")
    return FlamingoProcessor(CLIPImageProcessorPil(), tokenizer)


def words(rng: np.random.Generator, number: int, vocabulary: int = 5000) -> str:
    return " ".join(f"w{i}" for i in rng.integers(1, vocabulary, number))


def picture(number: int) -> MediaItem:
    pixels = np.random.default_rng(number).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    return MediaItem(number, Image.fromarray(pixels))


def inputs(model: FlamingoModel, num_images: int, num_tokens: int, batch_size: int = 1) -> dict[str, torch.Tensor]:
    """Random text of `num_tokens`, in which the images are marked at equal distances, and their pixels."""
    generator = torch.Generator().manual_seed(num_images)
    input_ids = torch.randint(10, 20_000, (batch_size, num_tokens), generator=generator)
    input_ids[:, torch.arange(num_images) * num_tokens // max(num_images, 1)] = model.config.image_token_id
    pixels = torch.randn(batch_size, num_images, 3, 224, 224, generator=generator)
    batch = {"input_ids": input_ids, "pixel_values": pixels.to(model.dtype)}
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


@dataclass
class Timing:
    """Seconds of one case over the repeats."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The middle half of the runs, over the median."""
        if len(self.seconds) < 2:
            return float("nan")
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median

    def over(self, other: "Timing") -> float:
        """The median of ratios of runs that followed each other."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def time_in_turns(
    cases: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu", warmup: int = 1
) -> dict[str, Timing]:
    """
    Time the cases one after the other, `repeats` times around after `warmup` rounds that do not count. A case that
    returns a float has measured its seconds itself.
    """

    def synchronize() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()

    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, case in cases.items():
            synchronize()
            start = time.perf_counter()
            own = case()
            synchronize()
            if turn >= warmup:
                seconds[name].append(own if isinstance(own, float) else time.perf_counter() - start)
    return {name: Timing(values) for name, values in seconds.items()}


class TokenTimes(StoppingCriteria):
    """Stops nothing: notes when each token of a `generate()` was there."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.BoolTensor:
        if input_ids.is_cuda:
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def generate(model: PreTrainedModel, batch: dict[str, torch.Tensor], num_tokens: int, **options: Any) -> float:
    """Seconds per token of `generate()`, the prompt and first token aside."""
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
    """The most bytes that tensors made in `case` take at once: what the allocator did, no estimate."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        case()
    # What the allocator did, one event for each piece that was taken or given back
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]], name: str | None = None) -> None:
    """Print rows as a Markdown table; with `--save` keep them for README.md."""
    print(markdown(rows))
    if not arguments.save:
        return
    device = torch.device(arguments.device).type
    path = RESULTS / f"{name or Path(sys.argv[0]).stem}.{device}.json"
    path.parent.mkdir(exist_ok=True)
    options = [f"--{key.replace('_', '-')} {value}" for key, value in vars(arguments).items() if key != "save"]
    content = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(o for o in options if 'None' not in o)}",
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; the columns are those of the first."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def milliseconds(timing: Timing) -> str:
    return f"{1000 * timing.median:.1f}"


def percent(share: float) -> str:
    return f"{share:.0%}"


def megabytes(number: float) -> str:
    return f"{number / 1e6:.1f}"
