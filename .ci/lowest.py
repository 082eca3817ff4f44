#!/usr/bin/env python3
# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Print the lowest version that the two `pyproject.toml` allow of each requirement, as a constraints file for pip.

    python .ci/lowest.py > lowest.txt && pip install -c lowest.txt -e ".[dev]" -e miniature    # what .ci/lowest does

torch is not lowered: its older CPU builds are not on every index. It stays at the version in `constraints.txt`.
"""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT = Path(__file__).resolve().parents[1]
PYPROJECTS = (ROOT / "pyproject.toml", ROOT / "miniature" / "pyproject.toml")
KEPT = ("torch",)


def lowest(pyprojects: Sequence[Path], constraints: Path) -> list[str]:
    """
    Return one `name==version` for each requirement of the projects and of all their extras, other than each other.

    Raises:
        ValueError: a requirement has no lower bound (`>=`), or two places give it different ones.
    """
    projects = [tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in pyprojects]
    local = {project["name"] for project in projects}
    found: dict[str, str] = {}
    for project in projects:
        extras = project.get("optional-dependencies", {}).values()
        for line in [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]:
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name in local:
                continue
            bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
            if len(bounds) != 1:
                raise ValueError(
                    f"{line!r} of {project['name']} has no lower bound that can be tested. Write `{name}>=...`."
                )
            if found.setdefault(name, bounds[0]) != bounds[0]:
                raise ValueError(
                    f"{project['name']} asks for {name}>={bounds[0]}, and another place for {name}>={found[name]}. One of them "
                    "is never tested: use the same bound everywhere."
                )
    kept = {canonicalize_name(Requirement(line).name): line for line in _lines(constraints)}
    return [kept[name] if name in KEPT else f"{name}=={version}" for name, version in sorted(found.items())]


def _lines(file: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    try:
        print("\n".join(lowest(PYPROJECTS, ROOT / "constraints.txt")))
    except ValueError as error:
        sys.exit(f"{error}")
