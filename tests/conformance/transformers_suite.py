# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The test suite that transformers runs on its own models, as an importable package.

The environment variable `TRANSFORMERS_TESTS` names its directory: `tests/` of a checkout of transformers, or of its
source distribution (`pip download --no-binary :all: --no-deps transformers`), which carries a part of it. The modules
that part imports but lacks are replaced by empty ones; tests in them do not run then.
"""

import importlib
import os
import sys
import types
from pathlib import Path
from unittest import mock

import transformers


NAME = "transformers_suite_tests"
DIRECTORY = os.environ.get("TRANSFORMERS_TESTS")


def _run_distributed(*args, **kwargs):
    raise RuntimeError("distributed_testing_utils.py is not part of this transformers test directory.")


# Module, and what other modules want from it.
_STUBS = {
    "exporters.test_export": lambda: {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": lambda: {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": lambda: {"config_common_kwargs": {}},
    "distributed_testing_utils": lambda: {"run_distributed": _run_distributed},
}


def why_not() -> str | None:
    """Why the suite cannot run, or `None`."""
    if DIRECTORY is None:
        return "TRANSFORMERS_TESTS is not set: it names the tests/ directory of a transformers source distribution"
    if not (Path(DIRECTORY) / "test_modeling_common.py").is_file():
        return f"TRANSFORMERS_TESTS={DIRECTORY} has no test_modeling_common.py"
    return None


def load(module: str) -> types.ModuleType:
    """A module of the suite, by its name inside `tests/`."""
    root = Path(DIRECTORY)
    if NAME not in sys.modules:
        package = types.ModuleType(NAME)
        package.__path__ = [str(root)]
        sys.modules[NAME] = package
    for stub, contents in _STUBS.items():
        parts = stub.split(".")
        if (root / Path(*parts)).with_suffix(".py").is_file() or f"{NAME}.{stub}" in sys.modules:
            continue
        for i in range(1, len(parts)):
            parent = types.ModuleType(".".join([NAME, *parts[:i]]))
            parent.__path__ = [str(root.joinpath(*parts[:i]))]
            sys.modules.setdefault(parent.__name__, parent)
        leaf = types.ModuleType(f"{NAME}.{stub}")
        leaf.__dict__.update(contents())
        sys.modules[leaf.__name__] = leaf
    # It executes tests/__init__.py under the name "transformers"; the distribution has no such file.
    with mock.patch("transformers.utils.direct_transformers_import", return_value=transformers):
        return importlib.import_module(f"{NAME}.{module}")
