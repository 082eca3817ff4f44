# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The tables and layouts of `docs/evaluation.md`, made from the classes of the tasks. Run this file to write them."""

import textwrap
from pathlib import Path

from transformers_flamingo.evaluation.task import Task
from transformers_flamingo.evaluation.task_help import describe_comparison, task_fields, task_text
from transformers_flamingo.evaluation.tasks import TASKS


PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
#: The line of the page after which everything is made.
START = "## What may be compared\n"

INTRODUCTION = """
What each task shares with the evaluation code of OpenFlamingo, and where OpenFlamingo has no such task, with the Flamingo paper. `results.json` has
the same of each run (`comparable`, `differences`), together with what its settings change: a subset, another split, `--selection fixed`, another
pool, other encoders for RICES. For all tasks:

- equal: the mean over seeds; two text-only demonstrations at 0 shots; 2,048 random training examples to draw from, or with RICES the whole
  training set, the most similar image last;
- not: which random examples are drawn. There they depend on the order of the queries and the number of processes, here on seed and query alone;
- not: `dtype`. There weights are float32 with autocast to bfloat16; here they have the type of `--dtype`.
"""


def comparison_row(name: str, kind: type[Task]) -> str:
    """Make the row of a task in the table."""
    cells = [
        f"`{name}`",
        kind.comparison.source,
        kind.comparison.equal,
        "; ".join(describe_comparison(kind)) or "nothing",
        kind.comparison.verdict,
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def describe(name: str, kind: type[Task]) -> str:
    """Make the section of a task: its docstring with the layout of its files, and its fields."""
    rows = [f"| `{field}` | {default} | {text} |" for field, default, text in task_fields(kind)]
    return "\n\n".join([f"### `{name}`", task_text(kind), "\n".join(["| field | | |", "|---|---|---|", *rows])])


def make_sections() -> str:
    """Make everything after [`START`]."""
    head = ["| task | compared with | equal | not equal | comparable |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *(comparison_row(name, kind) for name, kind in TASKS.items() if kind.comparison)])
    contents = ", ".join(f"[`{name}`](#{name})" for name in TASKS)
    files = textwrap.dedent("""
        ## Tasks and their files

        `--data FOLDER` holds the files of a task, by their published names; `flamingo evaluate --task NAME --help` prints the same.
        """).strip()
    sections = [describe(name, kind) for name, kind in TASKS.items()]
    return "\n".join(
        [START, INTRODUCTION.strip() + "\n", table + "\n", files + "\n", contents + "\n", "\n\n".join(sections) + "\n"]
    )


if __name__ == "__main__":
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + make_sections(), encoding="utf-8")
