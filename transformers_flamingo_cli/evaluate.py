# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo evaluate`: measure few-shot learning on tasks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from .parsing import Parser, add_fields, check_range, read_fields


HELP = "Measure few-shot learning on benchmarks, or on your own data."


@dataclass(kw_only=True)
class EvaluationArguments:
    """
    Arguments of `flamingo evaluate`, next to those of `EvaluationConfig`.

    Args:
        model (`str`): Folder or Hub name.
        task (`list[str]`): Names of tasks.
        data (`list[str]`, *optional*):
            Folder of the files of all tasks, or `TASK=FOLDER` for one. Which task is meant by a path with `=` is seen by the names of the tasks.
        option (`list[tuple[str, str]]`, *optional*): Other fields and their values, of all tasks or, as `TASK.FIELD`, of one.
        batch_size (`int`, *optional*, defaults to 8): Queries answered together.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights; `"auto"` is as saved.
        output_dir (`str`, *optional*, defaults to `"evaluation"`): Output folder, with one folder per task and the model card.

    Raises:
        ValueError: the batch size is below 1.
    """

    model: str
    task: list[str] = field(
        metadata={"help": "Names of tasks, such as coco. With --help: their files, fields, and how they compare."}
    )
    data: list[str] = field(default_factory=list)
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


def add_arguments(parser: Parser) -> None:
    """Add the model, the options of the command, and those of `EvaluationConfig`."""
    from transformers_flamingo.evaluation.config import EvaluationConfig

    parser.more_help = lambda: _describe_tasks(parser.given)
    parser.add_argument("model", metavar="MODEL", help="Directory or Hub name of the model.")
    add_fields(parser, EvaluationArguments, exclude=["model", "data", "option"])
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="[TASK=]FOLDER",
        help="Folder of the files of all tasks, or of one: --data coco=COCO vqav2=VQAV2.",
    )
    parser.add_argument(
        "--option",
        nargs="*",
        action="extend",
        default=[],
        type=_split_option,
        metavar="[TASK.]FIELD=VALUE",
        help="Other fields of all tasks, or of one, such as queries_split=validation or vatex.num_frames=30.",
    )
    add_fields(parser, EvaluationConfig, exclude=["blind"])
    parser.add_argument(
        "--blind",
        action="store_true",
        default=None,
        help="Compute the blind (no-image) baseline, which open_flamingo and paper leave out.",
    )
    parser.add_argument(
        "--no_blind",
        "--no-blind",
        action="store_false",
        default=None,
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
    from transformers_flamingo.utils.loading import load_flamingo

    tasks = _make_tasks(options)
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


def _make_tasks(options: EvaluationArguments) -> list[Any]:
    """Make each task of its own values and of those for all tasks."""
    from transformers_flamingo.evaluation.tasks import make_task

    names = list(dict.fromkeys(options.task))
    folders = _by_task(names, [_split_task(names, text, "=") for text in options.data], "--data")
    values: dict[str, dict[str, str]] = {name: {} for name in names}
    own: dict[str, dict[str, str]] = {name: {} for name in names}
    for text, value in options.option:
        name, option = _split_task(names, text, ".")
        for task in names if name is None else [name]:
            (values if name is None else own)[task][option] = value
    tasks = [make_task(name, folders.get(name), values[name] | own[name]) for name in names]
    unread = [name for name, task in zip(names, tasks, strict=True) if name in folders and not hasattr(task, "data")]
    if unread and (len(unread) == len(names) or any(_split_task(names, t, "=")[0] in unread for t in options.data)):
        raise ValueError(f"--data {folders[unread[0]]} has no effect: {', '.join(unread)} reads no files. Remove it.")
    return tasks


def _split_task(names: list[str], text: str, separator: str) -> tuple[str | None, str]:
    """Split `TASK=FOLDER` or `TASK.FIELD`. Without a task the first part is `None`: a path may have a `=`, too."""
    from transformers_flamingo.evaluation.tasks import task_names

    name, found, rest = text.partition(separator)
    if not found or name not in names:
        if found and name in task_names():
            raise ValueError(f"{text!r} is for the task {name!r}, which is not among the tasks: {', '.join(names)}.")
        return None, text
    return name, rest


def _by_task(names: list[str], pairs: list[tuple[str | None, str]], option: str) -> dict[str, str]:
    """Return the value of each task: its own, or that for all."""
    found: dict[str | None, str] = {}
    for name, value in pairs:
        if name in found:
            what = "all tasks" if name is None else f"the task {name!r}"
            raise ValueError(
                f"{option} is given twice for {what}: {found[name]!r} and {value!r}. Name a task: TASK=FOLDER."
            )
        found[name] = value
    return {name: found.get(name, found.get(None)) for name in names if name in found or None in found}


def _describe_tasks(given: Sequence[str]) -> str:
    """Describe the tasks on a command line that calls for help, or list all."""
    from transformers_flamingo.evaluation.task_help import describe_task, task_title
    from transformers_flamingo.evaluation.tasks import TASKS, find_task, task_names

    names: list[str] = []
    for index, text in enumerate(given):
        if text.startswith("--task="):
            names.append(text.removeprefix("--task="))
        elif text == "--task":
            names += takewhile(lambda text: not text.startswith("-"), given[index + 1 :])
    if names:
        return "\n\n".join(describe_task(find_task(name)) for name in names if name in task_names())
    lines = ["tasks (`flamingo evaluate --task NAME --help` lists the files of one):"]
    width = max(map(len, TASKS))
    lines += [f"  {name:{width}}  {task_title(task)}" for name, task in TASKS.items()]
    others = [name for name in task_names() if name not in TASKS]
    return "\n".join(lines + ([f"  and of other distributions: {', '.join(others)}"] if others else []))


def _split_option(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not field or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return field, value


def _print_results(summary: dict[str, Any]) -> None:
    from transformers_flamingo.evaluation.report import describe_comparability, describe_queries

    for entry in summary["results"]:
        blind = f", blind {entry['blind_mean']:.1f}" if "blind_mean" in entry else ""
        score = f"{summary['metric']} {entry['mean']:.1f}{blind}"
        print(f"{describe_queries(summary)}, {entry['shots']} shots: {score}", flush=True)
    if text := describe_comparability(summary):
        print(text, flush=True)
