# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""TextVQA."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example, GenerationSettings
from ..task import Comparison
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class TextVqa(QuestionAnswering, Benchmark):
    """
    TextVQA (Singh et al. 2019), validation split, scored by VQA accuracy in percent. The prompt has no text from OCR.
    Demonstrations are from the training split. Answers have at most 10 tokens, as in OpenFlamingo's code (its paper says 5).

        TextVQA_0.5.1_train.json    TextVQA_0.5.1_val.json    train_images/
    """

    name = "textvqa"
    split_sizes = {"val": 5000}
    files = ("TextVQA_0.5.1_train.json", "TextVQA_0.5.1_val.json")
    generation = GenerationSettings(max_new_tokens=10)
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, 3 beams, cut of the answer, first answer of a demonstration, VQA accuracy; 10 tokens, validation split, no text from OCR",
        differences=(),
        verdict="yes",
    )

    def _examples(self, split: str) -> list[Example]:
        file = f"TextVQA_0.5.1_{split}.json"
        return self.build(
            file,
            self.read_lists(file, "data")[0],
            lambda row: self.question_example(
                row["question_id"],
                os.path.join(self.data, "train_images", f"{row['image_id']}.jpg"),
                row["question"],
                row["answers"],
            ),
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")
