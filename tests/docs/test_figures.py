# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Draw the figures of the docs again: diagrams have the same bytes, and the pages show files that exist."""

import importlib.util
import re
from pathlib import Path

import matplotlib
import pytest
from PIL import Image


ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
SCRIPTS = sorted(path for path in FIGURES.glob("*.py") if path.stem != "drawing")
# No number in them depends on the machine
DIAGRAMS = {
    "architecture": "architecture",
    "visibility": "visibility",
    "mixture_loss": "mixture-loss",
    "media_cache": "media-cache",
}


def draw(stem: str, folder: Path, monkeypatch) -> None:
    """Run the script with another folder for what it draws."""
    monkeypatch.syspath_prepend(str(FIGURES))
    spec = importlib.util.spec_from_file_location(stem, FIGURES / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FIGURES", folder)
    getattr(module, f"draw_{stem}")()


def pinned(package: str) -> str:
    """Return the version of a package in constraints.txt."""
    return re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)[1]


@pytest.mark.skipif(matplotlib.__version__ != pinned("matplotlib"), reason="another matplotlib writes other bytes")
@pytest.mark.parametrize("stem", DIAGRAMS)
def test_diagrams_are_those_of_their_scripts(stem, tmp_path, monkeypatch):
    draw(stem, tmp_path, monkeypatch)
    name = f"{DIAGRAMS[stem]}.svg"
    assert (tmp_path / name).read_text() == (FIGURES / name).read_text()


def test_the_first_step_moves_what_is_zero(tmp_path, monkeypatch, capsys):
    draw("first_step", tmp_path, monkeypatch)
    assert (tmp_path / "first-step.svg").is_file()
    first = {line.split(",")[0]: line for line in capsys.readouterr().out.splitlines() if "step 1" in line}
    assert "gates 0.0e+00" not in first["gates"] and "last projections 0.0e+00" in first["gates"]
    assert "gates 0.0e+00" in first["projections"] and "last projections 0.0e+00" not in first["projections"]


def test_few_shots_are_answered(tmp_path, monkeypatch, capsys):
    draw("few_shots", tmp_path, monkeypatch)
    for name in ("few-shot-example", "few-shot-protocol"):
        with Image.open(tmp_path / f"{name}.png") as image, Image.open(FIGURES / f"{name}.png") as shown:
            assert image.size == shown.size
    # What the README shows: the answer is right
    expected, answered = re.search(r"expected (\w+), answered (\w+)", capsys.readouterr().out).groups()
    assert expected == answered


def test_each_script_is_named_where_its_figure_is_shown():
    pages = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert [path.name for path in SCRIPTS if f"docs/figures/{path.name}" not in pages] == []
