# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The fields of a recipe in words: the short help of `flamingo train`, and the page of the docs."""

import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from transformers import TrainingArguments

from .arguments import DataArguments, FlamingoTrainingArguments, ModelArguments
from .data_source import DataSource


#: The fields of `TrainingArguments` that most recipes have. `--help_all` and the docs have the others.
COMMON = (
    *("output_dir", "max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps"),
    *("gradient_accumulation_steps", "max_grad_norm", "bf16", "activation_checkpointing", "seed", "use_cpu"),
    *("logging_steps", "report_to", "eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit"),
    *(
        "load_best_model_at_end",
        "metric_for_best_model",
        "resume_from_checkpoint",
        "dataloader_num_workers",
        "push_to_hub",
    ),
)

EXAMPLES = """\
flamingo train caption --data.captions.path MY/train --evaluation.captions.path MY/validation
flamingo train caption --data.captions.path MY/train --eval_strategy no       # without held-out data
flamingo train caption --model DIRECTORY --learning_rate 1e-4                 # a saved Flamingo, trained further
flamingo train lora --lora_rank 8 --lora_target_modules q_proj v_proj         # adapters
flamingo train recipe.yaml --load_best_model_at_end true --early_stopping_patience 3
flamingo train recipe.yaml --data.pages.weight 0.5 --data.pages.options.min_similarity 0.3
flamingo train recipe.yaml --resume_from_checkpoint auto                      # go on where it was stopped"""

# Where a recipe takes more than the stock trainer, or says it shorter
_HELP = {
    "output_dir": "Folder of the model, its card, checkpoints, samples.jsonl and report/.",
    "max_steps": "Number of optimizer steps. It wins over num_train_epochs.",
    "num_train_epochs": "Passes over the only source, if max_steps is not given.",
    "gradient_accumulation_steps": "Micro-batches of each source per optimizer step.",
    "resume_from_checkpoint": "A checkpoint; true for the last complete one; auto for that if there is any, or else step 0.",
    "eval_strategy": "When to evaluate: steps or no. With no, `evaluation` is not read. Not given: once, at the end.",
    "metric_for_best_model": "Metric that chooses the best model, such as NAME_exact_match. The default is the loss of the only "
    "held-out data.",
}
# Defaults that differ between machines, or that are spelled by objects
_UNSHOWN = ("logging_dir", "output_dir")


def describe_common_fields() -> str:
    """Return the help of the fields of the model, the sources and a Flamingo's training, and of the stock ones that are common."""
    lines = []
    for title, prefix, group in _groups(all_stock=False):
        lines += [f"{title}:", *(_help_lines(f"--{prefix}{f.name}", f, hint) for f, hint in group), ""]
    examples = textwrap.indent(EXAMPLES, "  ")
    return "\n".join(
        [
            *lines,
            "examples:",
            examples,
            "",
            "`--help_all` has all fields of TrainingArguments too, and docs/recipe-fields.md.",
        ]
    )


def fields_page() -> str:
    """Return the page of the docs with all fields of a recipe, in Markdown."""
    lines = [
        "# Fields of a recipe",
        "",
        "Made by `python tests/training/test_recipe_help.py` from the classes. Each field is a line in the YAML of a recipe, and an",
        "option on the command line: `--NAME VALUE`, `--data.SOURCE.NAME VALUE` for a source of the mixture, and `--NAME null` to",
        "remove what a recipe has. A misspelled name is an error that says the nearest one, and all errors are shown together.",
        "",
        textwrap.indent(EXAMPLES, "    "),
        "",
    ]
    for title, prefix, group in _groups(all_stock=True):
        lines += [f"## {title[0].upper()}{title[1:]}", "", "| field | type | default | |", "|---|---|---|---|"]
        for f, hint in group:
            default = _default(f)
            shown = "" if default is None else f"`{default}`"
            lines.append(f"| `{prefix}{f.name}` | {_cell(_type_name(hint))} | {shown} | {_cell(_help(f))} |")
        lines.append("")
    return "\n".join(lines)


def _groups(*, all_stock: bool) -> Iterator[tuple[str, str, list[tuple[Field, Any]]]]:
    stock = {f.name: f for f in fields(TrainingArguments)}
    training = [f for f in fields(FlamingoTrainingArguments) if f.init]
    own = [f for f in training if f.name not in stock]
    rest = [f for f in training if f.name in stock and (all_stock or f.name in COMMON)]
    if not all_stock:
        rest.sort(key=lambda f: COMMON.index(f.name))
    for title, prefix, kind, group in (
        ("model", "", ModelArguments, fields(ModelArguments)),
        ("data", "", DataArguments, fields(DataArguments)),
        ("sources (`evaluation.NAME` for held-out data)", "data.NAME.", DataSource, fields(DataSource)[1:]),
        ("training of a Flamingo", "", FlamingoTrainingArguments, own),
        ("training, as in `TrainingArguments`", "", FlamingoTrainingArguments, rest),
    ):
        hints = get_type_hints(kind)
        yield title, prefix, [(f, hints[f.name]) for f in group]


def _help_lines(option: str, f: Field, hint: Any) -> str:
    default = _default(f)
    text = _help(f) + ("" if default is None else f" (default: {default})")
    choices = _choices(hint)
    head = f"  {option}" + (f" {{{','.join(choices)}}}" if choices else "")
    body = textwrap.wrap(text, 78 - 26)
    if len(head) > 24:
        return "\n".join([head, *(" " * 26 + line for line in body)])
    return "\n".join([head.ljust(26) + body[0], *(" " * 26 + line for line in body[1:])]) if body else head


def _help(f: Field) -> str:
    # "%%" is a percent sign for argparse
    return " ".join(_HELP.get(f.name, str(f.metadata.get("help", ""))).split()).replace("%%", "%")


def _default(f: Field) -> str | None:
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    if value in (MISSING, None, "", [], {}) or f.name in _UNSHOWN:
        return None
    value = getattr(value, "value", value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(hint: Any) -> list[str]:
    arguments = [hint, *get_args(hint)]
    return [str(value) for kind in arguments if get_origin(kind) is not None for value in _literals(kind)]


def _literals(kind: Any) -> tuple:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _type_name(hint: Any) -> str:
    choices = list(dict.fromkeys(_choices(hint)))
    if choices and bool in get_args(hint):
        choices = ["true", "false", *choices]
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    if get_origin(hint) in (list, dict):
        kinds = [get_origin(hint)]
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        list: "list",
        dict: "names with values",
    }
    return ", ".join(dict.fromkeys(names.get(get_origin(kind) or kind, "text") for kind in kinds))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
