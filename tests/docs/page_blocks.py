# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run the code of a page as its reader would, and compare what it prints with what the page shows.

    python tests/docs/page_blocks.py docs/tutorials/captions.md    # the whole page, in an empty folder; prints what each block prints

The last line is how the outputs of the tutorials were made. Fences of a page:

| fence | |
|---|---|
| `python` | is run, all of a page in one namespace |
| `bash` | is run, `flamingo` in this process and any other command by the shell |
| `text` | right after one of these: its output. `...` stands for any text, as in doctest |
| `... no-run` | needs a network, a GPU or packages, and is not run |
| `text no-check` | is shown and not compared: it took a longer training than a test can afford, or differs between machines |
"""

import argparse
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers_flamingo_cli import main


FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """A block that runs: its language, its code, its first line in the page, and the output that the page shows, if any."""

    language: str
    code: str
    line: int
    output: str | None = None


def read_blocks(page: Path) -> list[Block]:
    """
    Return the blocks of a page that run, with their outputs.

    Raises:
        ValueError: a `text` block is not right after a block that runs, so nothing would check it.
    """
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    end = None  # of the last block that runs
    for fence in FENCE.finditer(text):
        language, options, code = fence[1], fence[2].split(), fence[3]
        line = text.count("\n", 0, fence.start()) + 2
        if language in ("python", "bash") and "no-run" not in options:
            blocks.append(Block(language, code, line))
            end = fence.end()
        elif language == "text" and "no-check" not in options:
            if end is None or text[end : fence.start()].strip():
                raise ValueError(f"{page}:{line}: this output is not right after the block that prints it.")
            blocks[-1].output = code
            end = None
    return blocks


def run_shell(code: str, max_steps: int | None) -> None:
    """
    Run the commands of a `bash` block, and print their output.

    Raises:
        RuntimeError: a command failed.
    """
    for command in code.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if words[:1] == ["flamingo"]:
            if max_steps is not None and words[1] == "train":
                words += ["--max_steps", str(max_steps)]  # the last one counts
            status = main(words[1:])
        elif words:
            result = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
            status = result.returncode
            print(result.stdout, end="")
            print(result.stderr, end="", file=sys.stderr)
        else:
            continue
        if status != 0:
            raise RuntimeError(f"{command!r} ended with status {status}.")


def run_blocks(page: Path, max_steps: int | None = None) -> Iterator[tuple[Block, str]]:
    """
    Run the blocks of a page in the current folder, and return each with what it printed.

    Args:
        page (`Path`): The page.
        max_steps (`int`, *optional*): The steps of each `flamingo train`, instead of those that the page asks for.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in read_blocks(page):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if block.language == "bash":
                run_shell(block.code, max_steps)
            else:
                # Empty lines before it, so that a traceback has the lines of the page
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
        yield block, printed.getvalue()


def check_page(page: Path, max_steps: int | None = None) -> int:
    """
    Run a page, and return the number of outputs that were compared.

    Raises:
        AssertionError: a block does not print what the page shows.
    """
    checker = doctest.OutputChecker()
    count = 0
    for block, printed in run_blocks(page, max_steps):
        if block.output is not None:
            count += 1
            if not checker.check_output(block.output, printed, COMPARE):
                example = doctest.Example(block.code, block.output)
                difference = checker.output_difference(example, printed, COMPARE)
                raise AssertionError(f"{page}:{block.line}\n{difference}")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("--max_steps", type=int)
    arguments = parser.parse_args()
    path = arguments.page.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block, printed in run_blocks(path, arguments.max_steps):
            print(f"--- line {block.line}\n{block.code}--- prints\n{printed}", flush=True)
