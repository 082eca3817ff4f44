#!/usr/bin/env python3
# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Check what the built distributions contain: `python .ci/check_dist.py dist`.

The wheel of the library, which is code alone, stays below 0.9 MB, and no distribution contains tests, golden files, logs of research, or recipes of tests
and ablations.
"""

import sys
import tarfile
import zipfile
from pathlib import Path


MAX_WHEEL = 900_000
LICENSE = "LICENSE"
UNWANTED = ("tests/", "golden", "benchmarks/", "docs/", "smoke", "ablations", "-log.md", "__pycache__", ".egg-info")


def list_files(path: Path) -> list[str]:
    """Return the names of the files in a wheel or an sdist."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    with tarfile.open(path) as file:
        return file.getnames()


def check(path: Path) -> None:
    """
    Check one distribution.

    Raises:
        ValueError: it contains what it should not, lacks its license, or is too large.
    """
    names = list_files(path)
    found = [name for name in names if any(part in name for part in UNWANTED)]
    if found:
        raise ValueError(f"{path.name} contains {', '.join(found[:5])}. See `[tool.hatch.build.targets]`.")
    if not any(name.endswith(LICENSE) for name in names):
        raise ValueError(f"{path.name} has no {LICENSE}.")
    size = path.stat().st_size
    if path.name.startswith("transformers_flamingo-") and size > MAX_WHEEL:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {MAX_WHEEL:,}. Move data out of the library.")
    print(f"{path.name}: {size:,} bytes, {len(names)} files")


if __name__ == "__main__":
    paths = sorted(path for path in Path(sys.argv[1]).iterdir() if path.name.endswith((".whl", ".tar.gz")))
    try:
        if len(paths) != 4:
            raise ValueError(
                f"{sys.argv[1]!r} has {len(paths)} distributions instead of a wheel and an sdist of two projects."
            )
        for path in paths:
            check(path)
    except ValueError as error:
        sys.exit(f"{error}")
