# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""An import outside the tested versions warns once. CI installs the bounds in both `pyproject.toml`."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from transformers_flamingo.utils.versions import find_untested


ROOT = Path(__file__).resolve().parents[2]
RANGE = "transformers>=5.24,<5.25"
LIBRARY, MINIATURE = (
    tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, ROOT / "miniature")
)


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [
        ("5.23.0", False),
        ("5.24.0", True),
        ("5.24.7", True),
        ("5.25.0.dev0", False),
        ("5.25.0", False),
        ("6.0.0", False),
    ],
)
def test_a_release_outside_the_range_is_named(version, is_tested):
    found = find_untested([RANGE], {"transformers": version}.__getitem__)
    assert found == ([] if is_tested else [f"transformers {version} (tested: <5.25,>=5.24)"])


def test_builds_extras_and_missing_packages_are_not_reported():
    def installed(name):
        if name == "jinja2":
            raise metadata.PackageNotFoundError(name)
        return {"torch": "2.13.0+cpu", "peft": "0.1"}[name]

    assert find_untested(["torch>=2.6", "jinja2>=3.1.6", "peft>=0.20; extra == 'train'"], installed) == []


def test_an_import_with_a_forced_release_warns_once(tmp_path):
    for name, number, more in (
        ("transformers", "9.9.9", ""),
        ("transformers-flamingo", "0.1.0", f"Requires-Dist: {RANGE}\n"),
    ):
        folder = tmp_path / f"{name.replace('-', '_')}-{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n{more}")
    result = subprocess.run(
        [sys.executable, "-c", "import transformers_flamingo"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    warned = (
        "<string>:1: UserWarning: transformers-flamingo was not tested with transformers 9.9.9 (tested: <5.25,>=5.24)"
    )
    assert result.stderr.count("was not tested with") == result.stderr.count(warned) == 1


def test_the_versions_ci_installs_are_in_the_range_of_pyproject():
    lines = [
        *LIBRARY["dependencies"],
        *(line for extra in LIBRARY["optional-dependencies"].values() for line in extra),
        *MINIATURE["dependencies"],
    ]
    requirements = [Requirement(line) for line in lines if not line.startswith(LIBRARY["name"])]
    pins = [
        Requirement(line.split("#")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line[0] != "#"
    ]
    newest = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        assert name in newest, f"{name} has no version in constraints.txt"
        assert requirement.specifier.contains(newest[name]), f"{requirement} and constraints.txt: {newest[name]}"


def test_the_lowest_versions_are_those_of_pyproject():
    command = [sys.executable, str(ROOT / ".ci" / "lowest.py")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    versions = dict(line.split("==") for line in lines)
    assert versions["transformers"] == "5.24"
    assert versions["torch"] in (ROOT / "constraints.txt").read_text()  # kept: see lowest.py
    for line in [*LIBRARY["dependencies"], *LIBRARY["optional-dependencies"]["train"], *MINIATURE["dependencies"]]:
        requirement = Requirement(line)
        if requirement.name == LIBRARY["name"]:
            continue
        name = canonicalize_name(requirement.name)
        assert name == "torch" or requirement.specifier.contains(versions[name])


def test_the_two_distributions_of_this_repository_fit_each_other():
    assert MINIATURE["name"] not in " ".join(LIBRARY["dependencies"])
    (demo,) = map(Requirement, LIBRARY["optional-dependencies"]["demo"])
    assert demo.name == MINIATURE["name"] and demo.specifier.contains(MINIATURE["version"])
    (library,) = [line for line in map(Requirement, MINIATURE["dependencies"]) if line.name == LIBRARY["name"]]
    assert library.extras == {"train"} and library.specifier.contains(LIBRARY["version"])
    assert (ROOT / "miniature" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert MINIATURE["requires-python"] == LIBRARY["requires-python"]
