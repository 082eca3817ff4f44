# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The scripts of `benchmarks/real_pictures`, for tests."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest


FOLDER = Path(__file__).parents[1] / "benchmarks" / "real_pictures"
needs_folder = pytest.mark.skipif(not FOLDER.exists(), reason="the source distribution has no benchmarks")


@contextmanager
def imported_scripts() -> Iterator[SimpleNamespace]:
    """Import all scripts of the folder as modules, which other tests do not see under their short names."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(FOLDER)
        others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            del sys.modules[name]
        sys.modules.update(others)
