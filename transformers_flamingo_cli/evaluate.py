# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo evaluate`: measure few-shot learning on tasks."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .parsing import add_fields, check_range, read_fields


HELP = "Measure few-shot learning on benchmarks, or on your own data."


@dataclass(kw_only=True)
class EvaluationArguments:
    """
    Arguments of `flamingo evaluate`, next to those of `EvaluationConfig`.

    Args:
        model (`str`): Folder or Hub name.
        task (`list[str]`): Names of tasks.
        data (`str`, *optional*): Folder of the files of a benchmark, or of the datasets that tasks are named after.
        option (`list[tuple[str, str]]`, *optional*): Other fields of the tasks and their values.
        batch_size (`int`, *optional*, defaults to 8): Queries answered together.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights; `"auto"` is as saved.
        output_dir (`str`, *optional*, defaults to `"evaluation"`): Output folder, with one folder per task and the model card.

    Raises:
        ValueError: the batch size is below 1.
    """

    model: str
    task: list[str] = field(metadata={"help": "Names of tasks, such as coco. An unknown name lists all tasks."})
    data: str | None = field(
        default=None,
        metadata={"help": "Folder of the files of a benchmark, or of the datasets that tasks are named after."},
    )
    option: list[tuple[str, str]] = field(default_factory=list)
    batch_size: int = field(default=8, metadata={"help": "Number of queries answered together."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto is as saved."}
    )
    output_dir: str = field(
        default="evaluation", metadata={"help": "Output folder, with one folder per task and the model card."}
    )

    def __post_init__(self):
        check_range(self, "batch_size", 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the options of the command, and those of `EvaluationConfig`."""
    from transformers_flamingo.evaluation.config import EvaluationConfig

    parser.add_argument("model", metavar="MODEL", help="Directory or Hub name of the model.")
    add_fields(parser, EvaluationArguments, exclude=["model", "option"])
    parser.add_argument(
        "--option",
        nargs="*",
        default=[],
        type=_split_option,
        metavar="FIELD=VALUE",
        help="Other fields of the tasks, such as queries_split=validation or support_data=FOLDER.",
    )
    add_fields(parser, EvaluationConfig, exclude=["blind"])
    parser.add_argument(
        "--no_blind",
        "--no-blind",
        action="store_false",
        dest="blind",
        help="Skip the blind (no-image) baseline.",
    )


def run(arguments: argparse.Namespace) -> None:
    """Evaluate the model on each task, and write scores, plots and a model card."""
    from transformers_flamingo.evaluation.config import EvaluationConfig

    options = read_fields(EvaluationArguments, arguments)
    config = read_fields(EvaluationConfig, arguments)

    import torch
    from accelerate import PartialState

    from transformers_flamingo.evaluation.evaluate import evaluate
    from transformers_flamingo.evaluation.published import published_scores
    from transformers_flamingo.evaluation.report import check_results, plot_results, write_evaluation_card
    from transformers_flamingo.evaluation.tasks import make_task
    from transformers_flamingo.utils.loading import load_flamingo

    tasks = [make_task(name, options.data, dict(options.option)) for name in options.task]
    if options.data is not None and not any(hasattr(task, "data") for task in tasks):
        raise ValueError(f"--data {options.data} has no effect: {', '.join(options.task)} reads no files. Remove it.")
    # On a CPU it would not see the other processes of `torchrun` by itself
    state = PartialState(cpu=not torch.accelerator.is_available())
    # What the last steps need is checked first: they come after hours
    if state.is_main_process:
        import matplotlib  # noqa: F401

        check_results(options.output_dir)
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    model, processor = load_flamingo(options.model, dtype, state.device)
    name = Path(options.model).name
    for task in tasks:
        directory = Path(options.output_dir) / task.name
        summary = evaluate(model, processor, task, directory, config, batch_size=options.batch_size, model_name=name)
        if state.is_main_process:
            plot_results(directory / "shots.png", summary, published_scores(task.name))
            _print_results(summary)
    if state.is_main_process:
        write_evaluation_card(model, options.output_dir, model_name=name)


def _split_option(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not field or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return field, value


def _print_results(summary: dict[str, Any]) -> None:
    from transformers_flamingo.evaluation.report import describe_queries

    for entry in summary["results"]:
        blind = f", blind {entry['blind_mean']:.1f}" if "blind_mean" in entry else ""
        score = f"{summary['metric']} {entry['mean']:.1f}{blind}"
        print(f"{describe_queries(summary)}, {entry['shots']} shots: {score}", flush=True)
