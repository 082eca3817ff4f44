# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Import the tests that transformers runs on its own models.

The environment variable `TRANSFORMERS_TESTS` names the `tests/` directory of a checkout of transformers at the installed
release. Its source distribution is not enough: it lacks the tests of generation and of pipelines.
"""

import importlib
import os
import sys
import types
from pathlib import Path
from unittest import mock

import transformers


DIRECTORY = os.environ.get("TRANSFORMERS_TESTS")
# The modules of the suite that import others by `tests.`
_NEEDED = ("__init__.py", "test_modeling_common.py", "generation/test_utils.py", "pipelines/__init__.py")


def why_not() -> str | None:
    """Return the reason why the suite cannot run, or `None`."""
    if DIRECTORY is None:
        return "TRANSFORMERS_TESTS is not set: it names the tests/ directory of a checkout of transformers"
    missing = [name for name in _NEEDED if not (Path(DIRECTORY) / name).is_file()]
    if missing:
        return f"TRANSFORMERS_TESTS={DIRECTORY} lacks {missing}: it is not the tests/ directory of a checkout"
    return None


def checkout() -> Path:
    """Return the root of the checkout."""
    return Path(DIRECTORY).resolve().parent


def load(module: str) -> types.ModuleType:
    """
    Import a module of the suite, by its name inside `tests/`.

    The package must be called `tests`, because modules of the suite import each other by that name. The tests of this
    project are not a package, so the name is free.
    """
    if str(checkout()) not in sys.path:
        sys.path.append(str(checkout()))
    # The suite executes the checkout's src/transformers a second time, to look up classes by name.
    with mock.patch("transformers.utils.direct_transformers_import", return_value=transformers):
        return importlib.import_module(f"tests.{module}")
