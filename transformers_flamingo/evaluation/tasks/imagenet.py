# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""ImageNet."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...few_shot.examples import Example
from .common import Benchmark, Choice


@dataclass(frozen=True)
class ImageNet(Choice, Benchmark):
    """
    ImageNet (Russakovsky et al. 2015), validation split: the 1,000 class names are ranked, scored by accuracy in percent.
    Demonstrations are from the training split, class-balanced.

        imagenet_class_index.json    train/n01440764/*.JPEG    val/n01440764/*.JPEG

    `imagenet_class_index.json` is `{"0": ["n01440764", "tench"], ...}`; underscores in names are read as spaces.
    Two names, such as "crane", each belong to two classes, which count as one.
    """

    name = "imagenet"
    split_sizes = {"val": 50000}
    files = ("imagenet_class_index.json", "train", "val")

    @cached_property
    def classes(self) -> dict[str, str]:
        """Map the folder of each class to its name."""
        file = "imagenet_class_index.json"
        index = self.read_json(file)
        try:
            return {folder: name.replace("_", " ") for folder, name in index.values()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: {self.path(file)!r} is not a map to pairs of a folder and a name ({error}). Use the published file."
            ) from error

    def _examples(self, split: str) -> list[Example]:
        candidates = list(dict.fromkeys(self.classes.values()))
        return [
            Example(
                f"{folder}/{file}",
                [os.path.join(self.data, split, folder, file)],
                "Output:",
                name,
                references=name,
                candidates=candidates,
                group=name,
            )
            for folder, name in self.classes.items()
            for file in sorted(os.listdir(self.path(split, folder)))
        ]

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")
