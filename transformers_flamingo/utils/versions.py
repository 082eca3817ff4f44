# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Warn if the version of an installed library is outside the range that this package was tested with."""

import warnings
from collections.abc import Callable, Iterable
from importlib import metadata

from packaging.requirements import Requirement


def find_untested(requirements: Iterable[str], installed: Callable[[str], str] = metadata.version) -> list[str]:
    """
    Compare installed versions with requirements. Requirements of extras are not checked.

    Args:
        requirements (`Iterable[str]`): Requirements as in the metadata of a package, such as `"transformers>=5.24,<5.25"`.
        installed (`Callable[[str], str]`, *optional*): Returns the version of a package, or raises
            `PackageNotFoundError`. By default, versions are those of the running environment.

    Returns:
        `list[str]`: An entry for each package outside its range. A package that is not installed has no entry: its import fails
        by itself, with its name.
    """
    found = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = installed(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version} (tested: {requirement.specifier})")
    return found


def warn_about_untested_versions() -> None:
    """Emit one warning if a library is outside the range in this package's metadata. pip refuses such a version, so it was forced."""
    try:
        requirements = metadata.requires("transformers-flamingo") or []
    except metadata.PackageNotFoundError:  # a bare checkout states no requirements
        return
    untested = find_untested(requirements)
    if untested:
        warnings.warn(
            f"transformers-flamingo was not tested with {', '.join(untested)}. Models may fail, or be silently "
            'wrong. Install tested versions: `pip install --force-reinstall "transformers-flamingo"`.',
            stacklevel=3,
        )
