# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Metrics without network or Java, each as a pure function of plain Python values and as a folder for `evaluate`:

    evaluate.load(str(metric_path("cider"))).compute(predictions=[...], references=[[...], ...])

`evaluate` copies a module and its siblings away, so what a folder's `<name>.py` imports relatively is in that folder.
"""

from pathlib import Path

from .bleu.functional import bleu
from .cider.functional import cider_d, ptb_tokenize
from .exact_match.functional import exact_match
from .open_ended_match.functional import open_ended_match
from .roc_auc.functional import roc_auc
from .rouge_l.functional import rouge_l
from .validity_rate.functional import validity_rate
from .vqa_accuracy.functional import normalize_vqa_answer, vqa_accuracy


def metric_path(name: str) -> Path:
    """
    The folder that `evaluate.load` takes.

    Raises:
        ValueError: There is no such metric.
    """
    folder = Path(__file__).parent
    known = sorted(path.stem for path in folder.glob("*/*.py") if path.stem == path.parent.name)
    if name not in known:
        raise ValueError(f"There is no metric {name!r}; known metrics are {', '.join(known)}.")
    return folder / name


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
]
