# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Metrics that need neither network nor Java. Each file is a plain function of Python values and a module for `evaluate`:

    evaluate.load(str(metric_path("cider"))).compute(predictions=[...], references=[[...], ...])

`evaluate` copies a script into its cache and imports it there, so the files import each other by their full names: a relative
import would look next to the copy.
"""

from pathlib import Path

from .bleu import bleu
from .cider import cider_d, ptb_tokenize
from .exact_match import exact_match
from .open_ended_match import open_ended_match
from .roc_auc import roc_auc
from .rouge_l import rouge_l
from .validity_rate import validity_rate
from .vqa_accuracy import normalize_vqa_answer, vqa_accuracy
from .word_f1 import word_f1


def metric_path(name: str) -> Path:
    """
    Return the file that `evaluate.load` takes.

    Args:
        name (`str`): Name of the metric, such as `"cider"`.

    Raises:
        ValueError: there is no such metric.
    """
    files = {path.stem: path for path in Path(__file__).parent.glob("*.py")}
    known = sorted(files.keys() - {"__init__", "base", "checks"})
    if name not in known:
        raise ValueError(f"There is no metric {name!r}; known metrics are {', '.join(known)}.")
    return files[name]


__all__ = [
    "bleu",
    "cider_d",
    "exact_match",
    "metric_path",
    "normalize_vqa_answer",
    "open_ended_match",
    "ptb_tokenize",
    "roc_auc",
    "rouge_l",
    "validity_rate",
    "vqa_accuracy",
    "word_f1",
]
