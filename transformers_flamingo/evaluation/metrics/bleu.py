# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""BLEU (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation") of captions, by sacrebleu."""

from collections.abc import Sequence

from transformers_flamingo.evaluation.metrics.base import MetricModule
from transformers_flamingo.evaluation.metrics.cider import check_captions, ptb_tokenize


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]], max_order: int = 4) -> float:
    """
    Compute BLEU of a corpus of captions, from 0 to 1, on the tokens of [`ptb_tokenize`].

    As in coco-caption there is no smoothing, and of several references the one closest in length counts for the brevity penalty.

    Args:
        predictions (`Sequence[str]`): One caption per image.
        references (`Sequence[Sequence[str]]`): One or more per image; their number may differ.
        max_order (`int`, defaults to 4): BLEU-4 averages over n-grams of 1 to 4 tokens.

    Raises:
        ValueError: as [`check_captions`], or `max_order` is below 1.
    """
    from sacrebleu.metrics import BLEU  # in the `eval` extra

    check_captions(predictions, references)
    if max_order < 1:
        raise ValueError(f"`max_order` is {max_order}, but n-grams have at least 1 token. Use a larger one.")
    predictions = [" ".join(ptb_tokenize(caption)) for caption in predictions]
    references = [[" ".join(ptb_tokenize(caption)) for caption in captions] for captions in references]
    # sacrebleu wants the first reference of every image, then the second of every image, ...
    most = max(len(captions) for captions in references)
    streams = [[captions[i] if i < len(captions) else None for captions in references] for i in range(most)]
    metric = BLEU(max_ngram_order=max_order, tokenize="none", smooth_method="none")
    return min(metric.corpus_score(predictions, streams).score / 100, 1.0)  # it can be 100.00000000000004


class Bleu(MetricModule):
    """Corpus BLEU of captions on Penn-Treebank-like tokens, from 0 to 1."""

    source = "Papineni et al. BLEU: a Method for Automatic Evaluation of Machine Translation. ACL 2002."
    inputs = "predictions: one caption per image. references: a list of captions per image."

    def _compute(self, predictions: list[str], references: list[list[str]], max_order: int = 4) -> dict[str, float]:
        return {"bleu": bleu(predictions, references, max_order)}
