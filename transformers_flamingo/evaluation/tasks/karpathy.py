# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""COCO captions (Chen et al. 2015) and Flickr30k (Young et al. 2014), in the splits of Karpathy and Fei-Fei (2015)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...data.coco import read_karpathy_image
from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Captioning


@dataclass(frozen=True)
class _Karpathy(Captioning, Benchmark):
    """Captions in a JSON file of Karpathy's splits."""

    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, 3 beams, 20 tokens, cut of the answer, first caption of a demonstration, CIDEr of all captions; Karpathy's splits",
        differences=(
            "captions are split into words without Java, as the Stanford tokenizer does what captions contain",
        ),
        verdict="yes",
    )

    @cached_property
    def _images(self) -> list[dict]:
        return self.read_lists(self.files[0], "images")[0]

    def _examples(self, split: str) -> list[Example]:
        def make(image: dict) -> Example | None:
            if image["split"] != split:
                return None
            captioned = read_karpathy_image(image)
            return self.caption_example(captioned.id, os.path.join(self.data, captioned.file_name), captioned.captions)

        return self.build(self.files[0], self._images, make)

    def queries(self) -> Sequence[Example]:
        """Return the examples of the test split."""
        return self._examples("test")

    def support(self) -> Sequence[Example]:
        """Return the examples of the train split."""
        return self._examples("train")


@dataclass(frozen=True)
class Coco(_Karpathy):
    """
    COCO captions, Karpathy's test split (5,000 images), scored by CIDEr times 100. Demonstrations are from the train split.

        dataset_coco.json    train2014/    val2014/
    """

    name = "coco"
    files = ("dataset_coco.json",)
    split_sizes = {"test": 5000}


@dataclass(frozen=True)
class Flickr30k(_Karpathy):
    """
    Flickr30k, Karpathy's test split (1,000 images), scored by CIDEr times 100. Demonstrations are from the train split.

        dataset_flickr30k.json    flickr30k-images/
    """

    name = "flickr30k"
    files = ("dataset_flickr30k.json",)
    split_sizes = {"test": 1000}
