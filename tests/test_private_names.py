# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read which private names of other libraries the package uses, and compare them with the tables in CONTRIBUTING.md.

A release may change a private name without notice. The tables say what each is for and which test fails then, so nothing
private is used unlisted, and nothing is listed that is not used.
"""

import ast
import functools
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import accelerate
import datasets
import evaluate
import peft
import pytest
import torch
import transformers
from transformers import cache_utils
from transformers.data.data_collator import DataCollatorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.hub import cached_files


ROOT = Path(__file__).resolve().parents[1]
# Classes of other libraries that the package derives from or holds objects of.
LIBRARY_CLASSES = (
    transformers.Trainer,
    transformers.TrainerState,
    transformers.TrainingArguments,
    transformers.TrainerCallback,
    transformers.PreTrainedModel,
    transformers.GenerationMixin,
    transformers.GenerationConfig,
    transformers.PreTrainedConfig,
    transformers.ProcessorMixin,
    transformers.PreTrainedTokenizerFast,
    transformers.HfArgumentParser,
    CLIPImageProcessorPil,
    DataCollatorMixin,
    cache_utils.Cache,
    cache_utils.DynamicLayer,
    cache_utils.DynamicSlidingWindowLayer,
    cache_utils.StaticLayer,
    accelerate.Accelerator,
    accelerate.PartialState,
    datasets.Dataset,
    datasets.IterableDataset,
    evaluate.Metric,
    peft.PeftModel,
    torch.nn.Module,
    torch.Tensor,
    torch.utils.data.DataLoader,
)
# The documented way to derive from a named tuple (`_asdict`, `_replace`) and from `evaluate.Metric`.
DOCUMENTED = {"_asdict", "_replace", "_info", "_compute"}
LIBRARIES = ("transformers", "accelerate", "datasets", "evaluate", "peft")
# Modules whose contents are in the references of these libraries.
DOCUMENTED_MODULES = {
    "accelerate.utils",
    "datasets.distributed",
    "datasets.exceptions",
    "datasets.fingerprint",
    "transformers.cache_utils",
    "transformers.image_processing_utils",
    "transformers.image_transforms",
    "transformers.image_utils",
    "transformers.integrations",
    "transformers.modeling_outputs",
    "transformers.processing_utils",
    "transformers.trainer_utils",
    "transformers.utils",
    "transformers.utils.logging",
    "transformers.utils.quantization_config",
    "transformers.video_utils",
}


def is_private(name) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_[A-Za-z]\w*", name) is not None


def trees():
    for file in sorted((ROOT / "transformers_flamingo").rglob("*.py")):
        yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())


def names_in_class(node: ast.ClassDef) -> set[str]:
    """Return the methods and class attributes of a class."""
    found = {statement.name for statement in node.body if isinstance(statement, ast.FunctionDef)}
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def used_names(tree: ast.Module) -> dict[str, int]:
    """Return the private names of a module that may be those of others, each with a line: of attributes, overrides, keywords."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        names: set[str] = set()
        if isinstance(node, ast.Attribute):
            names = {node.attr}
        elif isinstance(node, ast.ClassDef):
            names = names_in_class(node)
        elif isinstance(node, ast.Call):
            names = {keyword.arg for keyword in node.keywords}
            if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
                names |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names} | set((node.module or "").split("."))
        for name in filter(is_private, names):
            found.setdefault(name, node.lineno)
    return found


def own_names() -> set[str]:
    """Return the private names that the package itself defines: functions, classes, variables, attributes of `self`."""
    found = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
                found.add(node.attr)
    return set(filter(is_private, found))


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@functools.cache
def read(file: str) -> str:
    return Path(file).read_text() if file.endswith(".py") else ""


@functools.cache
def library_names() -> set[str]:
    """Return the private names of `LIBRARY_CLASSES`, of their bases, and of what their methods put on `self`."""
    bases = {base for cls in LIBRARY_CLASSES for base in cls.__mro__ if base.__module__ != "builtins"}
    found = {name for base in bases for name in (*vars(base), *getattr(base, "__annotations__", ()))}
    for base in bases:
        file = str(getattr(sys.modules[base.__module__], "__file__", ""))
        # `inspect.getsource` does the same at a hundred times the cost.
        body = re.search(rf"^class {base.__name__}\b.*\n(?:[ \t)].*\n|\n)*", read(file), re.MULTILINE)
        for pattern in (r"\b(?:self|cls)\.(\w+)\s*(?::[^=\n]*)?=(?!=)", r"__setattr__\(\s*\"(\w+)\""):
            found.update(re.findall(pattern, body.group() if body else ""))
    return set(filter(is_private, found))


def private_names() -> dict[str, str]:
    """Return the private names of other libraries that the package uses, each with the first place."""
    own, library = own_names(), library_names()
    found: dict[str, str] = {}
    for file, tree in trees():
        for name, line in used_names(tree).items():
            if (name in library or name not in own) and name not in DOCUMENTED:
                found.setdefault(name, f"{file}:{line}")
    return found


def inner_imports() -> dict[str, str]:
    """Return what is imported from undocumented modules of other libraries and not at their top level, with a place."""
    found: dict[str, str] = {}
    for file, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.level or "." not in (node.module or ""):
                continue
            library = node.module.split(".")[0]
            if library in LIBRARIES and node.module not in DOCUMENTED_MODULES:
                for alias in node.names:
                    if not hasattr(importlib.import_module(library), alias.name):
                        found.setdefault(f"{node.module}.{alias.name}", f"{file}:{node.lineno}")
    return found


def table(title: str) -> dict[str, list[str]]:
    """Return the rows of the table below a title of CONTRIBUTING.md, by the names in backticks in their first column."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split(f"\n### {title}\n")[1].split("\n#")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name: row for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


@pytest.mark.parametrize(
    ("title", "used"),
    [("Private names of other libraries", private_names), ("Imports from inside other libraries", inner_imports)],
)
def test_the_table_in_contributing_is_what_the_code_uses(title, used):
    listed, found = set(table(title)), used()
    unlisted = {name: place for name, place in found.items() if name not in listed}
    assert not unlisted, f"Not in the table {title!r} of CONTRIBUTING.md: {unlisted}. Use a public name, or list it."
    assert listed <= set(found), (
        f"In the table, but not used any more: {sorted(listed - set(found))}. Remove the rows."
    )


def test_each_private_name_names_a_test_that_exists():
    for name, row in table("Private names of other libraries").items():
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
        assert tests, f"{name}: no test is named that fails when it changes"
        for file, test in tests:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{name}: there is no {file}::{test}"


def test_each_private_name_exists_in_the_installed_release():
    """The package overrides some of them: an override that nothing calls any more raises no error."""
    functions_with_keywords = (cached_files, transformers.Trainer.save_model)
    keywords = {name for function in functions_with_keywords for name in inspect.signature(function).parameters}
    functions = {name for module in (torch, torch.utils) for name in dir(module) if is_private(name)}
    listed = set(table("Private names of other libraries")) - library_names() - keywords - functions
    missing = {name for name in listed if not hasattr(torch.ops.aten, name)}
    assert not missing, (
        f"The installed releases have no {sorted(missing)}: see CONTRIBUTING.md for what they are used for."
    )


def test_the_reader_finds_each_form():
    source = """
    from transformers.x import _imported
    class Model(Base):
        _attribute = 1
        _annotated: int = 1
        def _override(self): ...
        def _(self): ...
    def _function(): ...
    other._read
    other._written = 1
    getattr(other, "_by_name")
    call(_keyword=1)
    """
    assert set(used_names(ast.parse(textwrap.dedent(source)))) == {
        "_imported",
        "_attribute",
        "_annotated",
        "_override",
        "_read",
        "_written",
        "_by_name",
        "_keyword",
    }


def test_library_names_are_of_classes_and_of_their_objects():
    expected = {
        "_prefill",
        "_save_checkpoint",
        "_tr_loss",
        "_modules",
        "_fingerprint",
        "_mask_length",
        "_process_images",
    }
    assert expected <= library_names()
