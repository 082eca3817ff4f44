# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""CIDEr-D (Vedantam et al. 2015, section 7) on Penn-Treebank-like tokens, without Java."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from transformers_flamingo.evaluation.metrics.base import MetricModule
from transformers_flamingo.evaluation.metrics.checks import check_text


_MAX_ORDER = 4  # n-grams of 1 to 4 tokens
_SIGMA = 6.0  # tokens

# Replaced before splitting. All quotes are dropped in the end, so their direction does not matter.
_CHARACTERS = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "–": "--", "—": "--", "…": " ... "}  # noqa: RUF001
    | {"£": "#", "€": "$", "¢": " cents", "½": "1/2", "¼": "1/4", "¾": "3/4"}
)
# coco-caption means to drop brackets too, but looks for `-LRB-` in text that is already lower-cased.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# The tokens that coco-caption drops after splitting. It keeps `!!` and `?!`.
_PUNCTUATION = re.compile(r"""[.?!,:;'"`] | '' | `` | \.\.+ | -{1,4}""", re.VERBOSE)
# Words that keep their dot. Measured on the Stanford tokenizer.
_ABBREVIATIONS = (
    "mr mrs ms messrs mme mlle dr drs st ste mt ft jr sr esq prof profs rev hon gov sen sens rep reps pres supt treas "
    "atty asst gen capt col lt lieut maj sgt brig cmdr adm pfc det insp ave blvd rd bldg inc co cos corp ltd plc assn "
    "bros bancorp cie intl natl univ sys dept est ext tel sq elec etc vs al cf "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri "
    "ala ariz calif colo conn fla ga ind kan ky md mich minn mo mont neb nev okla penn tenn va vt wis wyo"
).replace(" ", "|")
_CLITIC = r"(?:n't|'(?:s|m|d|ll|re|ve))\b"
_JOINED = r"[-/_](?=\w) | \.(?=[^\W\d]) | '(?=[^\W\d])"  # inside a word
_TOKEN = re.compile(
    rf"""
      https?://[^\s"<>]*[\w/] | [\w.+-]+@[\w-]+(?:\.[\w-]+)*              # addresses
    | [@\#][a-z_]\w* | </?[a-z][^<>\s]*>                                   # @name, hashtag, markup
    | \b(?: can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | (?:gim|lem)(?=me\b) | y'(?=all\b) )
    | 'n' | '(?: (?:em|til|cause)\b | t(?=is\b|was\b) | \d\ds\b )
    | (?-i:[A-Z]+&[A-Z]+)                                                 # AT&T
    | (?:[a-z]\.)+[a-z]\.(?!\w) | \bph\.d\.(?!\w) | \b[a-z]\.(?!\w)      # U.S., PhD, initials
    | \b(?:{_ABBREVIATIONS})\.(?!\w) | \b(?:nos?|figs?|pp|op)\.(?=\s*\d)
    | \d*(?:[.,:]\d+)+                                                    # 1,000.50, 10:30
    | {_CLITIC}
    | \w (?: (?!{_CLITIC}) (?: \w | {_JOINED} ) )*
    | \.\.+ | --+ | [!?]+ | `` | '' | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)


def ptb_tokenize(text: str) -> list[str]:
    """
    Split a text into lower-cased Penn Treebank tokens without punctuation, as coco-caption does before its metrics.

    It follows the Stanford tokenizer on what captions contain (clitics, abbreviations, numbers, compounds, brackets) and
    differs on what they do not: emoticons, emoji, telephone numbers, file names.
    """
    tokens = (token.lower() for token in _TOKEN.findall(text.translate(_CHARACTERS)))
    return [_BRACKETS.get(token, token) for token in tokens if not _PUNCTUATION.fullmatch(token)]


def check_captions(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """
    Check the inputs of a metric of captions.

    Raises:
        ValueError: there are no predictions, one is not a text, or there is not a list of one or more references for each.
    """
    if len(predictions) != len(references) or not predictions:
        raise ValueError(
            f"A score of captions needs a list of references for each prediction, but there are {len(predictions)} "
            f"predictions and {len(references)} lists."
        )
    for index, caption in enumerate(predictions):
        check_text(caption, f"Prediction {index}")
    for index, captions in enumerate(references):
        if isinstance(captions, str) or not captions or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"The references of prediction {index} must be a list of captions, not {captions!r}.")


def cider_d(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]] = ptb_tokenize,
) -> list[float]:
    """
    Compute CIDEr-D of each prediction, from 0 to 10. The score of the corpus is their mean, which papers report times 100.

    The more images have an n-gram in their references, the less it weighs. So the whole corpus must be given at once, and a
    corpus of one image scores 0 for any caption. The formula is that of coco-caption's `cider_scorer.py`.

    Args:
        predictions (`Sequence[str]`): One caption per image.
        references (`Sequence[Sequence[str]]`): The captions written by people, one or more per image.
        tokenize (`Callable[[str], list[str]]`, defaults to [`ptb_tokenize`]): Use `str.split` for text that is already tokenized.

    Raises:
        ValueError: as [`check_captions`].
    """
    check_captions(predictions, references)
    predicted = [_count_ngrams(tokenize(caption)) for caption in predictions]
    referred = [[_count_ngrams(tokenize(caption)) for caption in captions] for captions in references]
    document_frequency = Counter(ngram for counts in referred for ngram in set().union(*counts))
    log_documents = math.log(len(referred))

    def weigh(counts: Counter) -> list[dict]:
        """Compute the TF-IDF weights of the n-grams for each n. The document frequency is at least 1."""
        weights = [{} for _ in range(_MAX_ORDER)]
        for ngram, count in counts.items():
            idf = log_documents - math.log(max(1, document_frequency[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
        return weights

    scores = []
    for counts, counts_of_references in zip(predicted, referred, strict=True):
        weights = weigh(counts)
        similarities = [
            _length_penalty(counts, counts_of_reference) * _mean_similarity(weights, weigh(counts_of_reference))
            for counts_of_reference in counts_of_references
        ]
        scores.append(10 * sum(similarities) / len(similarities))
    return scores


def _count_ngrams(tokens: list[str]) -> Counter:
    return Counter(
        tuple(tokens[start : start + n]) for n in range(1, _MAX_ORDER + 1) for start in range(len(tokens) - n + 1)
    )


def _length_penalty(prediction: Counter, reference: Counter) -> float:
    lengths = [sum(count for ngram, count in counts.items() if len(ngram) == 1) for counts in (prediction, reference)]
    return math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * _SIGMA**2))


def _mean_similarity(prediction: list[dict], reference: list[dict]) -> float:
    """Average the cosines over n. Counts in the prediction beyond those in the reference are clipped."""
    total = 0.0
    for ours, theirs in zip(prediction, reference, strict=True):
        norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        if norm > 0:
            common = ours.keys() & theirs.keys()
            total += math.fsum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in common) / norm
    return total / _MAX_ORDER


class Cider(MetricModule):
    """CIDEr-D of captions on Penn-Treebank-like tokens, the mean over all images, from 0 to 10."""

    source = "Vedantam, Zitnick and Parikh. CIDEr: Consensus-based Image Description Evaluation. CVPR 2015."
    inputs = "predictions: one caption per image. references: a list of captions per image."

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        scores = cider_d(predictions, references)
        return {"cider_d": sum(scores) / len(scores)}
