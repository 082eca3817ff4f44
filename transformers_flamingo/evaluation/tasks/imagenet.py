# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""ImageNet."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Choice


_INDEX = "imagenet_class_index.json"
_SYNSETS = "LOC_synset_mapping.txt"
_META = ("ILSVRC2012_devkit_t12/data/meta.mat", "data/meta.mat", "meta.mat")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_TRUTHS = (f"ILSVRC2012_devkit_t12/data/{_TRUTH}", f"data/{_TRUTH}", _TRUTH)
_SOLUTION = "LOC_val_solution.csv"
# Where Kaggle's archive has the folders of images
_ROOTS = ("", "ILSVRC/Data/CLS-LOC")


@dataclass(frozen=True)
class ImageNet(Choice, Benchmark):
    """
    ImageNet (Russakovsky et al. 2015), validation split: the 1,000 class names are ranked, scored by accuracy in percent.
    Demonstrations are from the training split, class-balanced. The images are in

        train/n01440764/*.JPEG    val/n01440764/*.JPEG, or as published: val/ILSVRC2012_val_00000001.JPEG ...
        (or both in ILSVRC/Data/CLS-LOC/, as in Kaggle's archive)

    The classes are in one of

        imagenet_class_index.json    ({"0": ["n01440764", "tench"], ...}; underscores are read as spaces)
        LOC_synset_mapping.txt    (n01440764 tench, Tinca tinca)
        ILSVRC2012_devkit_t12/data/meta.mat    (or in data/ or here; needs scipy)

    and if `val` has no folders, the classes of its images in one of

        LOC_val_solution.csv    (ImageId,PredictionString)
        ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt    (or in data/ or here; numbers of meta.mat)

    The name of a class is the first of its names. Two names, such as "crane", each belong to two classes, which count as one.

    Args:
        names (`str`, *optional*):
            A file with other names: a line for each class, in the order of the sorted folders, or a JSON list. OpenFlamingo ranks the names of
            open_clip.
    """

    names: str | None = None

    name = "imagenet"
    split_sizes = {"val": 50000}
    files = ()
    path_fields = ("data", "names")
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, mean log-likelihood of each name, top-1 accuracy, demonstrations of the training split",
        differences=(
            "class names: the first of each class; there those of open_clip, which are written for CLIP and all different: `--option names=FILE`",
            "its code fails on ImageNet as published, so that there are no scores of it",
        ),
        settings={"balanced": False, "num_orders": 6},
        verdict="no: there are no scores to compare with",
    )

    def __post_init__(self):
        _ = self.classes, self._images("train"), self._labels  # an error, if files are missing

    def _find(self, *names: str) -> str | None:
        return next((name for name in names if os.path.exists(self.path(name))), None)

    def _images(self, split: str) -> str:
        """Return the folder of the images of a split, relative to `data`."""
        places = [os.path.join(root, split) for root in _ROOTS]
        found = self._find(*places)
        if found is None:
            raise FileNotFoundError(f"{self.name} needs a folder {places[0]!r} or {places[1]!r} in {self.data!r}.")
        return found

    @cached_property
    def _meta(self) -> dict[int, tuple[str, str]]:
        """Map the number of each class in the devkit to its folder and its names."""
        file = self._find(*_META)
        if file is None:
            raise FileNotFoundError(
                f"{self.name}: {self.path(self._find(*_TRUTHS))!r} has the numbers of `meta.mat`, which are in no other file, and there is no "
                f"{_META[0]!r} in {self.data!r}. Unpack all of the devkit."
            )
        try:
            import scipy.io
        except ImportError as error:
            raise ImportError(
                f"{self.name}: {self.path(file)!r} is a file of MATLAB: pip install scipy. Without it, use {_INDEX!r} or {_SYNSETS!r}, and "
                f"{_SOLUTION!r} or folders in `val`."
            ) from error
        # Those with children are the classes above: their numbers begin at 1001
        synsets = scipy.io.loadmat(self.path(file), squeeze_me=True)["synsets"]
        return {
            int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]))
            for row in synsets
            if int(row["num_children"]) == 0
        }

    @cached_property
    def classes(self) -> dict[str, str]:
        """Map the folder of each class to its name, in the order of the folders."""
        file = self._find(_INDEX, _SYNSETS, *_META)
        if file is None:
            raise FileNotFoundError(
                f"{self.name} needs the names of its classes: {_INDEX!r}, {_SYNSETS!r} or {_META[0]!r} in {self.data!r}."
            )
        if file == _INDEX:
            index = self.read_json(file)
            try:
                pairs = [(folder, name.replace("_", " ")) for folder, name in index.values()]
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.name}: {self.path(file)!r} is not a map to pairs of a folder and a name ({error}). Use the published file."
                ) from error
        elif file == _SYNSETS:
            with open(self.path(file), encoding="utf-8") as lines:
                pairs = self.build(file, [line.strip() for line in lines if line.strip()], _read_synset)
        else:
            pairs = [(folder, _first_name(names)) for folder, names in self._meta.values()]
        classes = dict(sorted(pairs))
        return classes if self.names is None else dict(zip(classes, self._read_names(len(classes)), strict=True))

    def _read_names(self, count: int) -> list[str]:
        with open(self.names, encoding="utf-8") as file:
            text = file.read()
        names = json.loads(text) if text.lstrip().startswith("[") else [line.strip() for line in text.splitlines()]
        names = [name for name in names if name]
        if len(names) != count or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{self.name}: {self.names!r} has {len(names)} names, and there are {count} classes. Give one for each, in the order of the "
                "sorted folders."
            )
        return names

    @cached_property
    def _labels(self) -> dict[str, str] | None:
        """Map the name of each image in a flat `val`, without extension, to the folder of its class. `None` if `val` has folders."""
        folder = self._images("val")
        if any(os.path.isdir(self.path(folder, name)) for name in self.classes):
            return None
        file = self._find(_SOLUTION, *_TRUTHS)
        if file is None:
            raise FileNotFoundError(
                f"{self.name}: {self.path(folder)!r} has no folder of a class, such as {next(iter(self.classes))!r}, and which image is of "
                f"which class is in neither {_SOLUTION!r} nor {_TRUTHS[0]!r} of {self.data!r}. Add one of them."
            )
        if file == _SOLUTION:
            rows = self.build(file, self.read_csv(file), lambda r: (r["ImageId"], r["PredictionString"].split()[0]))
        else:
            with open(self.path(file), encoding="utf-8") as lines:
                numbers = lines.read().split()
            rows = self.build(
                file,
                enumerate(numbers, 1),
                lambda row: (f"ILSVRC2012_val_{row[0]:08d}", self._meta[int(row[1])][0]),
            )
        unknown = sorted({folder for _, folder in rows} - self.classes.keys())
        if unknown:
            raise ValueError(
                f"{self.name}: {self.path(file)!r} names the class {unknown[0]!r}, which is not among the {len(self.classes)} classes. The two "
                "files are not of the same release."
            )
        return dict(rows)

    def _example(self, folder: str, path: str, id: str, candidates: list[str]) -> Example:
        name = self.classes[folder]
        return Example(id, [self.path(path)], "Output:", name, references=name, candidates=candidates, group=name)

    def _examples(self, split: str) -> list[Example]:
        candidates = list(dict.fromkeys(self.classes.values()))
        root = self._images(split)
        if split == "val" and self._labels is not None:
            files = [
                name for name in sorted(os.listdir(self.path(root))) if re.search(r"\.jpe?g$", name, re.IGNORECASE)
            ]
            return self.build(
                root,
                files,
                lambda file: self._example(
                    self._labels[os.path.splitext(file)[0]], os.path.join(root, file), file, candidates
                ),
            )
        return [
            self._example(folder, os.path.join(root, folder, file), f"{folder}/{file}", candidates)
            for folder in self.classes
            for file in sorted(os.listdir(self.path(root, folder)))
        ]

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")


def _first_name(names: str) -> str:
    return names.split(",", 1)[0].strip()


def _read_synset(line: str) -> tuple[str, str]:
    folder, names = line.split(maxsplit=1)
    return folder, _first_name(names)
