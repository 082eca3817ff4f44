# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run the code of the README and the examples as they are."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from transformers_flamingo_miniature.demo import build_miniature_flamingo


ROOT = Path(__file__).parents[1]
# Without that which needs Ray: tests/clients/test_ray_data.py
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "ray_data")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language in the README. `tests/docs/test_pages.py` runs those of the pages."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The output of `flamingo demo`, without the training
    model, processor = build_miniature_flamingo()
    model.save_pretrained("flamingo-demo/model")
    processor.save_pretrained("flamingo-demo/model")
    Image.new("RGB", (64, 64), "red").save("flamingo-demo/example.png")
    code = blocks("python")
    assert len(code) == 5
    namespace: dict = {}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "my-flamingo" / "modeling_flamingo.py").is_file()
    assert namespace["prompt"]["text"] == ["<image>red<|endofchunk|><image>blue<|endofchunk|><image>"]


def test_the_first_screen_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any("flamingo demo" in line for line in lines[:25])
    assert [block.strip() for block in blocks("bash")] == [
        "pip install -c constraints.txt -e . -e miniature && flamingo demo",
        'pip install -c constraints.txt -e ".[dev]" -e miniature && python -m pytest -n 2 --dist worksteal',
    ]


def test_it_is_short_and_its_files_exist():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
        assert (ROOT / target).exists(), target


def test_the_tree_is_that_of_the_package():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"^ {8}([a-z_]+/) ", text, flags=re.M))
    folders = {f"{path.parent.name}/" for path in (ROOT / "transformers_flamingo").glob("*/__init__.py")}
    assert named == folders
    for name in re.findall(r"^ {8}([a-z_]+\.py)", text, flags=re.M):
        assert (ROOT / "transformers_flamingo" / name).exists(), name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, monkeypatch):
    assert len(path.read_text().splitlines()) < 60
    assert f"python examples/{path.name}" in path.read_text()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "argv", [str(path)])
    spec.loader.exec_module(module)
    assert module.main() is not None


def test_there_are_examples():
    assert len(EXAMPLES) == 4
