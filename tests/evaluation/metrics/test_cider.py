# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test CIDEr-D by hand and against a dense second implementation, and its tokens against the Stanford tokenizer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_flamingo.evaluation.metrics import cider_d, ptb_tokenize


# What PTBTokenizer of Stanford CoreNLP 3.4.1 gave with -preserveLines -lowerCase, less coco-caption's punctuation.
STANFORD = {
    "A man's hat isn't on the boys' bench.": "a man 's hat is n't on the boys bench",
    "They can't, won't and cannot stop; they're gonna wait.": "they ca n't wo n't and can not stop they 're gon na wait",
    "\"No Parking\" sign (red) - [blurry] -- 'stop'...": "no parking sign -lrb- red -rrb- -lsb- blurry -rsb- stop",
    "Mr. Smith at St. Mary's, in the U.S. at 10:30am or 5 p.m.": (
        "mr. smith at st. mary 's in the u.s. at 10:30 am or 5 p.m."
    ),
    "A black-and-white dog and/or a 3-year-old child": "a black-and-white dog and/or a 3-year-old child",
    "1,000 people, $5.00, 50% off, #1, 1/2 pipe, w/ hat & coat": (
        "1,000 people $ 5.00 50 % off # 1 1/2 pipe w / hat & coat"
    ),
    "a dog.The dog runs on grass,sand and snow.": "a dog.the dog runs on grass sand and snow",
    "wow!! what?! yes! no? etc. no. 5 and no.": "wow !! what ?! yes no etc. no. 5 and no",
    "“smart” quotes aren\u2019t kept \u2013 café £5 ½": "smart quotes are n't kept café # 5 1/2",
    "the 1980's, the '90s, rock 'n' roll, o'clock, O'Brien, T-shirt, B&W, AT&T": (
        "the 1980 's the '90s rock 'n' roll o'clock o'brien t-shirt b&w at&t"
    ),
    "y'all 'tis 'em lemme x.com me@x.com @home #hash": "y' all 't is 'em lem me x.com me@x.com @home #hash",
    "Ave. Blvd. co. lb. in. ft. Jr. inc.": "ave. blvd. co. lb in ft. jr. inc.",
    "<b>bold</b> 1 < 2": "<b> bold </b> 1 < 2",
    "": "",
}


@pytest.mark.parametrize("text", STANFORD)
def test_tokens_are_those_of_the_stanford_tokenizer(text):
    assert ptb_tokenize(text) == STANFORD[text].split()


@given(st.text(max_size=40))
def test_any_text_gives_lower_case_tokens_without_space(text):
    for token in ptb_tokenize(text):
        assert token
        assert token == token.lower()
        assert not any(character.isspace() for character in token)


def test_exact_match_of_two_tokens_scores_half():
    # Two documents, every n-gram in one: idf = ln 2 - ln 1 = ln 2 = w.
    # "red cat": 1-grams and 2-grams have cosine 1, 3- and 4-grams do not exist: 10 * (1 + 1 + 0 + 0) / 4 = 5.
    # "red dog" and "blue dog": 1-grams w * w / (sqrt(2) w * sqrt(2) w) = 1/2, 2-grams 0: 10 * (1/2) / 4 = 1.25.
    scores = cider_d(["red cat", "red dog"], [["red cat"], ["blue dog"]])
    assert scores == pytest.approx([5.0, 1.25])


def test_repetition_is_clipped_and_length_is_penalized():
    # 1-grams: weights (3w, w) and (w, w); clipped product w*w + w*w; norms sqrt(10) w and sqrt(2) w: 2 / sqrt(20).
    # 2-grams: "red red" 2w, "red cat" w against "red cat" w: w*w / (sqrt(5) w * w) = 1 / sqrt(5) = 2 / sqrt(20).
    # Two tokens longer: exp(-2**2 / (2 * 6**2)).
    scores = cider_d(["red red red cat", "blue"], [["red cat"], ["blue dog"]])
    assert scores[0] == pytest.approx(10 * math.exp(-4 / 72) * (2 * 2 / math.sqrt(20)) / 4)


def test_what_every_image_has_counts_nothing():
    # "a" is in both documents: idf = ln 2 - ln 2 = 0.
    assert cider_d(["a", "a dog"], [["a cat"], ["a dog"]])[0] == 0
    # A corpus of one document has no other idf.
    assert cider_d(["a cat"], [["a cat"]]) == [0]


def test_several_references_are_averaged_and_counted_once_per_image():
    # "cat" is in two references of one image: one document of two, idf ln 2 all the same. First reference 1-gram cosine 1.
    assert cider_d(["cat", "dog"], [["cat", "cat"], ["dog"]]) == pytest.approx([2.5, 2.5])
    assert cider_d(["cat", "dog"], [["cat", "bird"], ["dog"]])[0] == pytest.approx((2.5 + 0) / 2)


def test_tokenization_is_part_of_the_score_and_can_be_replaced():
    assert cider_d(["A cat.", "x"], [["a cat"], ["y"]])[0] == pytest.approx(5.0)
    assert cider_d(["A cat.", "x"], [["a cat"], ["y"]], tokenize=str.split)[0] == 0


def dense_cider_d(predictions, references, order=4, sigma=6.0):
    """The definition on vectors over all n-grams of the corpus."""

    def ngrams(text, n):
        words = text.split()
        return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]

    scores = np.zeros(len(predictions))
    for n in range(1, order + 1):
        texts = [*predictions, *(text for captions in references for text in captions)]
        vocabulary = sorted({ngram for text in texts for ngram in ngrams(text, n)})
        if not vocabulary:
            continue
        documents = [{ngram for text in captions for ngram in ngrams(text, n)} for captions in references]
        df = np.array([max(1, sum(ngram in document for document in documents)) for ngram in vocabulary])
        idf = np.log(len(references) / df)
        for i, prediction in enumerate(predictions):
            h = idf * [ngrams(prediction, n).count(ngram) for ngram in vocabulary]
            for caption in references[i]:
                r = idf * [ngrams(caption, n).count(ngram) for ngram in vocabulary]
                norm = np.linalg.norm(h) * np.linalg.norm(r)
                penalty = np.exp(-((len(prediction.split()) - len(caption.split())) ** 2) / (2 * sigma**2))
                cosine = np.minimum(h, r) @ r / norm if norm > 0 else 0.0
                scores[i] += 10 * penalty * cosine / order / len(references[i])
    return scores.tolist()


CAPTIONS = st.lists(st.sampled_from(["red", "blue", "cat", "dog", "runs"]), max_size=8).map(" ".join)
CORPORA = st.lists(st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=3)), min_size=1, max_size=5)


@given(CORPORA)
def test_equals_the_dense_implementation_and_stays_in_its_bounds(corpus):
    predictions, references = (list(column) for column in zip(*corpus, strict=True))
    scores = cider_d(predictions, references)
    assert scores == pytest.approx(dense_cider_d(predictions, references), abs=1e-9)
    assert all(0 <= score <= 10 + 1e-9 for score in scores)


@given(CORPORA, st.randoms(use_true_random=False))
def test_order_of_images_and_of_references_does_not_matter(corpus, random):
    expected = cider_d(*zip(*corpus, strict=True))
    order = list(range(len(corpus)))
    random.shuffle(order)
    shuffled = [(corpus[i][0], random.sample(corpus[i][1], len(corpus[i][1]))) for i in order]
    assert cider_d(*zip(*shuffled, strict=True)) == pytest.approx([expected[i] for i in order], abs=1e-9)


def test_a_long_unique_reference_copied_scores_ten():
    assert cider_d(["one two three four", "x"], [["one two three four"], ["y"]])[0] == pytest.approx(10)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [["a"], ["b"]], "1 predictions and 2 lists"),
        ([], [], "0 predictions"),
        (["a", "b"], [["a"], []], r"prediction 1 must be a list of captions, not \[\]"),
        (["a"], ["a cat"], "prediction 0 must be a list of captions, not 'a cat'"),
    ],
)
def test_what_cannot_be_scored_is_an_error(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        cider_d(predictions, references)
