# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Base class of the metrics as modules of `evaluate`."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from .checks import check_pairs


try:
    from evaluate import Metric
except ImportError:  # `evaluate` comes with the `eval` extra; the plain functions do without it
    Metric = object


# The types of columns, for `MetricModule.columns`
ONE_REFERENCE = {"predictions": "string", "references": "string"}
SEVERAL_REFERENCES = {"predictions": "string", "references": ["string"]}


class MetricModule(ABC, Metric):
    """
    A metric as a module of `evaluate`. The docstring of a subclass is its description.

    `evaluate` looks for the first class of a script that is not abstract, so this one may be imported there.

    Attributes:
        inputs (`str`): What the columns are.
        columns (`list[dict]`): The accepted formats: the type of each column, or a list of one type for a column of lists.
        source (`str`): The paper.
    """

    inputs: ClassVar[str]
    columns: ClassVar[list[dict[str, str | list[str]]]] = [SEVERAL_REFERENCES]
    source: ClassVar[str] = ""

    def _info(self):
        from datasets import Features, List, Value
        from evaluate import MetricInfo

        formats = [
            Features({name: List(Value(*t)) if isinstance(t, list) else Value(t) for name, t in types.items()})
            for types in self.columns
        ]
        return MetricInfo(
            description=inspect.getdoc(type(self)),
            citation=self.source,
            inputs_description=self.inputs,
            features=formats if len(formats) > 1 else formats[0],
        )

    @abstractmethod
    def _compute(self, *args, **kwargs) -> dict[str, float]: ...


def mean_score(score: Callable[..., float], predictions: Sequence[str], references: Sequence[Any], **options) -> float:
    """
    Compute the mean of a score of single predictions.

    Raises:
        ValueError: there are no predictions, or not references for each.
    """
    check_pairs(predictions, references)
    scores = [score(*pair, **options) for pair in zip(predictions, references, strict=True)]
    return sum(scores) / len(scores)
