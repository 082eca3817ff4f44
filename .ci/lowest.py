#!/usr/bin/env python3
# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Print the lowest version that `pyproject.toml` allows of each requirement, as a constraints file for pip.

    python .ci/lowest.py > lowest.txt && pip install -c lowest.txt -e ".[dev]"    # what .ci/lowest does

torch is not lowered: its older CPU builds are not on every index. It stays at the version in `constraints.txt`.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT = Path(__file__).resolve().parents[1]
KEPT = ("torch",)


def lowest(pyproject: Path, constraints: Path) -> list[str]:
    """
    Return one `name==version` for each requirement of the project and of all its extras.

    Raises:
        ValueError: a requirement has no lower bound (`>=`), or two extras give it different ones.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for line in [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name == project["name"]:  # an extra that contains another one
            continue
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(
                f"{line!r} in {pyproject.name} has no lower bound that can be tested. Write `{name}>=...`."
            )
        if found.setdefault(name, bounds[0]) != bounds[0]:
            raise ValueError(
                f"{pyproject.name} asks for {name}>={found[name]} and for {name}>={bounds[0]}. One of them is never "
                "tested: give all extras the same bound."
            )
    kept = {canonicalize_name(Requirement(line).name): line for line in _lines(constraints)}
    return [kept[name] if name in KEPT else f"{name}=={version}" for name, version in sorted(found.items())]


def _lines(file: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    try:
        print("\n".join(lowest(ROOT / "pyproject.toml", ROOT / "constraints.txt")))
    except ValueError as error:
        sys.exit(f"{error}")
