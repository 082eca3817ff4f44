# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The code of the pages runs as it is, and their command lines are understood by the real parsers."""

import contextlib
import doctest
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from page_blocks import COMPARE, read_blocks
from PIL import Image, ImageDraw

from transformers_flamingo.training import make_recipe_parser
from transformers_flamingo_cli.command_line import COMMANDS, MINIATURE_COMMANDS, find_commands, make_parser
from transformers_flamingo_miniature.demo import build_miniature_flamingo


ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
# Tutorials train, and have tests of their own. `tests/test_readme.py` runs the README
RUN = [page for page in PAGES if page.parent.name != "tutorials"]
COMMAND_LINES = [
    *(page for page in PAGES if page.parent.name != "reference"),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
]


def name_of(page: Path) -> str:
    """Return the name of a page in the report of pytest."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Enter an empty folder with what the code of the pages expects: a saved model, and pictures of two shapes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for part in build_miniature_flamingo():
        part.save_pretrained("my-flamingo")
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        for shape in ("circle", "square"):
            picture = Image.new("RGB", (64, 64), "white")
            draw = ImageDraw.Draw(picture)
            draw_shape = draw.ellipse if shape == "circle" else draw.rectangle
            draw_shape((8 * number, 8, 40 + 8 * number, 40), fill="red")
            picture.save(f"images/{shape}-{number}.png")
    shutil.copytree("my-flamingo", "flamingo-demo/model")  # as `flamingo demo` leaves it
    shutil.copy("images/circle-1.png", "flamingo-demo/example.png")
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in RUN if "```python\n" in page.read_text(encoding="utf-8")], ids=name_of
)
def test_python_blocks_run_in_order(page, folder):
    namespace: dict = {"__name__": "__main__"}
    for block in read_blocks(page):
        if block.language != "python":
            continue
        # Empty lines before it, so that a traceback has the lines of the page
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.output is not None:
            is_same = doctest.OutputChecker().check_output(block.output, printed.getvalue(), COMPARE)
            assert is_same, f"{name_of(page)}, line {block.line} prints\n{printed.getvalue()}"


def command_lines(text: str) -> list[str]:
    """Return the lines of blocks of code that call `flamingo`, alone or in many processes."""
    blocks = re.findall(r"^```(?:bash|sh|console)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(
        r"(?:^ {4}.*\n)+", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    module = r"^(?:accelerate launch|torchrun|python) .*?-m transformers_flamingo_cli "
    lines = [re.sub(module, "flamingo ", line) for line in lines]
    return [line for line in lines if line.startswith("flamingo ")]


def find_unknown(line: str) -> list[str]:
    """
    Return the options of a command line that no parser and no recipe has.

    Raises:
        SystemExit: the parser refuses it (2), or shows a help (0).
    """
    words = shlex.split(re.split(r" (?:&&|;|\|) ", line)[0], comments=True)[1:]
    # A single letter stands for a number
    command, *arguments = ["1" if re.fullmatch("[A-Z]", word) else word for word in words]
    if command.startswith("-"):
        return []
    parser = make_parser(find_commands()[command])
    values, others = parser.parse_known_args(arguments)
    if not hasattr(values, "overrides"):
        return others
    names = [word.partition("=")[0] for word in others if word.startswith("--")]
    if command == "pretrain":
        from transformers_flamingo.pretraining import (
            TextPretrainingArguments,
            VisionPretrainingArguments,
            make_pretraining_parser,
        )

        kind = {"vision": VisionPretrainingArguments, "text": TextPretrainingArguments}[values.backbone]
        known = make_pretraining_parser(kind).format_help()
    else:
        known = make_recipe_parser().format_help()
    return [name for name in names if not re.search(rf"{re.escape(as_listed(name))}(?![\w.])", known)]


def as_listed(option: str) -> str:
    """Return an option of a recipe as the help lists it: a field of a source without its name, one of a mapping as the mapping."""
    first, _, rest = option.partition(".")
    if first in ("--data", "--evaluation") and "." in rest:
        return f"--data.NAME.{rest.split('.')[1]}"
    return first.replace("-", "_").replace("__", "--")


@pytest.mark.parametrize("page", COMMAND_LINES, ids=name_of)
def test_command_lines_are_understood(page, capsys):
    wrong = []
    for line in command_lines(page.read_text(encoding="utf-8")):
        try:
            unknown = find_unknown(line)
        except SystemExit as end:
            unknown = [capsys.readouterr().err] if end.code else []
        except KeyError as name:
            unknown = [f"There is no command {name}."]
        if unknown:
            wrong.append(f"{line}\n    {unknown}")
    assert not wrong, "\n".join(wrong)


def test_the_lines_of_a_page_are_found():
    text = "Text\n\n    flamingo check X   # why\n    accelerate launch -m transformers_flamingo_cli train R\n\n```bash\nflamingo a \\\n  --b\n```\n"
    assert command_lines(text) == ["flamingo a    --b", "flamingo check X   # why", "flamingo train R"]
    assert find_unknown("flamingo train R --max_steps 3 --data.NAME.weight 1 --no_such 1 --data.x.no_such 1") == [
        "--no_such",
        "--data.x.no_such",
    ]
    assert {*COMMANDS, *MINIATURE_COMMANDS} <= find_commands().keys()
