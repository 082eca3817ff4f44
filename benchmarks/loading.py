# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure time and memory of loading a model and of importing the package, next to the bare parts.

    python benchmarks/loading.py [--workload small] [--text gpt2] [--repeats 5]

Each case runs in a separate process, so that nothing is loaded twice or shared. `from_pretrained` maps the file and copies
nothing, so the size of the weights is shown next to two peaks above that of the imports: of anonymous memory, which the
process allocates, and of resident memory, which also counts the pages of the file that were read. "Touched" reads every
weight once, as the first forward pass does. The bare backbones together are the floor of the model without its new parts.
"""

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common


MODELS = {
    "language model": "AutoModelForCausalLM.from_pretrained(text)",
    "language model + vision encoder": "AutoModelForCausalLM.from_pretrained(text), AutoModel.from_pretrained(vision)",
    "FlamingoModel.from_pretrained": "FlamingoModel.from_pretrained(flamingo)",
    "FlamingoModel.from_vision_text_pretrained": "FlamingoModel.from_vision_text_pretrained(vision, text)",
}
IMPORTS = {
    "torch": "import torch",
    "transformers": "import transformers",
    "what any model needs": "from transformers import AutoModelForCausalLM, GPT2LMHeadModel",
    "what any vision-language model needs": (
        "from transformers import CLIPVisionModel, GPT2LMHeadModel, ProcessorMixin, GenerationMixin\n"
        "from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil"
    ),
    "transformers_flamingo": "import transformers_flamingo",
    "transformers.Trainer": "from transformers import Trainer",
    "transformers_flamingo.training": "import transformers_flamingo.training",
}


def in_a_process(kind: str, *arguments: str) -> list[float]:
    """Run `loading_case.py` and return the numbers that it prints."""
    command = [sys.executable, str(Path(__file__).with_name("loading_case.py")), kind, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(number) for number in output.split()[-5 if kind == "model" else -3 :]]


def time_processes(cases: dict[str, Callable[[], list[float]]], repeats: int) -> tuple[dict, dict]:
    """Run the cases in turns; return the timings, which are the first number of a case, and medians of its other numbers."""
    rest: dict[str, list[list[float]]] = {name: [] for name in cases}

    def run(name: str) -> float:
        seconds, *others = cases[name]()
        rest[name].append(others)
        return seconds

    timings = common.time_in_turns({name: functools.partial(run, name) for name in cases}, repeats)
    return timings, {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in rest.items()
    }


def model_rows(arguments: argparse.Namespace, directory: str) -> list[dict[str, Any]]:
    """Save the models, load each in processes, and return the rows of the second table."""
    model = common.build(arguments)
    for name, part in {"flamingo": model, "text": model.language_model, "vision": model.vision_model}.items():
        part.save_pretrained(Path(directory) / name)
    del model
    timings, medians = time_processes(
        {name: functools.partial(in_a_process, "model", expression, directory) for name, expression in MODELS.items()},
        arguments.repeats,
    )
    text, both = list(MODELS)[:2]
    return [
        {
            "": name,
            "MB of weights": common.megabytes(medians[name][3]),
            "s": f"{timing.median:.2f}",
            "spread": common.percent(timing.spread),
            "over the language model": f"{timing.over(timings[text]):.2f}",
            "over both backbones": f"{timing.over(timings[both]):.2f}",
            "s, touched": f"{medians[name][0]:.2f}",
            "peak MB, anonymous": common.megabytes(medians[name][1]),
            "peak MB, resident": common.megabytes(medians[name][2]),
        }
        for name, timing in timings.items()
    ]


def import_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the imports in processes and return the rows of the first table."""
    timings, medians = time_processes(
        {name: functools.partial(in_a_process, "import", statement) for name, statement in IMPORTS.items()},
        arguments.repeats,
    )
    return [
        {
            "": name,
            "s": f"{timing.median:.2f}",
            "spread": common.percent(timing.spread),
            "over any model": f"{timing.over(timings['what any model needs']):.2f}",
            "MB resident": common.megabytes(medians[name][0]),
            "modules": f"{medians[name][1]:.0f}",
        }
        for name, timing in timings.items()
    ]


def main() -> None:
    """Time imports and models, print both tables and save them if asked to."""
    arguments = common.parser(__doc__).parse_args()
    common.report(arguments, import_rows(arguments), "loading-imports", clock="wall time")
    with tempfile.TemporaryDirectory() as directory:
        common.report(arguments, model_rows(arguments, directory), "loading-models", clock="wall time")


if __name__ == "__main__":
    main()
