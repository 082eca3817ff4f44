# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that batches, shared prefixes and kept latents change the cost of an answer but not the answer."""

import pytest
import torch
from factory import TEXT_CONFIGS, tiny_flamingo, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from words import draw_image

from transformers_flamingo.few_shot import ranking as ranking_module
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import GenerationSettings
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt


# Absolute, rotary and ALiBi positions; layers with and without keywords
TEXTS = ("gpt2", "opt", "llama", "mpt")
PREFIX = "<image>w4 w5<|endofchunk|><image>w6<|endofchunk|>"


def media_item(number: int) -> MediaItem:
    return MediaItem(number, draw_image(number))


def prompts(count: int = 7) -> list[Prompt]:
    queries = ["<image>" + " ".join(f"w{60 + i * j}" for j in range(1 + i % 4)) for i in range(count)]
    return [
        Prompt(PREFIX, query, (media_item(1), media_item(2)), (media_item(3 + i),)) for i, query in enumerate(queries)
    ]


def engine(text: str = "gpt2", **kwargs) -> FewShotEngine:
    return FewShotEngine(tiny_flamingo(text=text, gates=0.7), tiny_processor(), **kwargs)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation(text, num_beams):
    generation = GenerationSettings(max_new_tokens=4, num_beams=num_beams)
    shared = engine(text, batch_size=3).generate(prompts(), generation)
    one_by_one = engine(text, shares_prefix=False, batch_size=1)
    assert shared == [one_by_one.generate([prompt], generation)[0] for prompt in prompts()]
    assert engine(text, batch_size=5, shares_prefix=False).generate(prompts(), generation) == shared

    model, processor = one_by_one.model, one_by_one.processor
    prompt = prompts()[5]
    images = [item.data for item in prompt.media]
    inputs = processor(images=[images], text=[prompt.text], return_tensors="pt")
    options = {"max_new_tokens": 4, "num_beams": num_beams, "do_sample": False}
    options |= {"length_penalty": 0.0} if num_beams > 1 else {}
    expected = model.generate(**inputs, **options, eos_token_id=model.config.end_of_chunk_token_id)
    assert (
        shared[5] == processor.batch_decode(expected[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    )


def likelihoods(engine: FewShotEngine, prompt: Prompt, candidates: list[str]) -> list[float]:
    """Compute the sums of log-probabilities, each candidate after its whole prompt and without a cache."""
    images = [item.data for item in prompt.media]
    sums = []
    for candidate in candidates:
        inputs = engine.processor(images=[images], text=[f"{prompt.text} {candidate}"], return_tensors="pt")
        targets = inputs["input_ids"][0, -len(candidate.split()) :]
        with torch.no_grad():
            log_probs = engine.model(**inputs, use_cache=False).logits[0].log_softmax(dim=-1)
        sums.append(log_probs[-len(targets) - 1 : -1].gather(1, targets[:, None]).sum().item())
    return sums


# Not in order; one twice, one a prefix of others, some of one token
CANDIDATES = ["w20 w21", "w10 w11 w12", "w50", "w10 w13", "w10", "w10 w11", "w20 w21"]


@pytest.mark.parametrize("text", TEXT_CONFIGS)
@pytest.mark.parametrize("kwargs", [{"shares_prefix": True}, {"shares_prefix": False, "max_candidate_tokens": 5}])
def test_likelihoods_of_candidates(text, kwargs):
    # Contexts of 9 to 12 tokens: longer than the windows, and padded without a shared prefix
    asked = prompts(4)
    candidates = [CANDIDATES[:5], [], CANDIDATES, ["w50 w7 w8 w9"]]
    ranking = engine(text, batch_size=4, **kwargs)
    sums = ranking.rank(asked, candidates, length_normalized=False)
    assert sums == ranking.rank(asked, candidates, length_normalized=False)  # the kept prefix is as it was
    for prompt, row_candidates, got in zip(asked, candidates, sums, strict=True):
        assert got == pytest.approx(likelihoods(ranking, prompt, row_candidates), abs=1e-4)
    means = ranking.rank(asked, candidates)
    assert means[2] == pytest.approx(
        [total / len(c.split()) for total, c in zip(sums[2], CANDIDATES, strict=True)], abs=1e-6
    )


RANKING = {text: engine(text) for text in ("gpt2", "mpt")}
WORDS = st.lists(st.sampled_from(["w10", "w11", "w12"]), min_size=1, max_size=4).map(" ".join)


@pytest.mark.parametrize("text", RANKING)
@settings(max_examples=15)
@given(candidates=st.lists(WORDS, max_size=9), size=st.integers(1, 9))
def test_likelihoods_of_any_candidates(text, candidates, size):
    ranking, prompt = RANKING[text], prompts(2)[1]
    ranking.scorer.max_tokens = size
    got = ranking.rank([prompt], [candidates], length_normalized=False)[0]
    assert got == pytest.approx(likelihoods(ranking, prompt, candidates), abs=1e-4)


@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_prefixes_of_candidates_are_computed_once(text):
    ranking = engine(text, shares_prefix=False)
    shapes, media_rows = [], []
    ranking.model.language_model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape))
    )
    ranking.model.gated_cross_attention[0].register_forward_hook(
        lambda module, args, kwargs, output: media_rows.append(len(kwargs["cache"].keys)), with_kwargs=True
    )
    ranking.rank(prompts(1), [CANDIDATES])
    # Other candidates continue "w10", "w10 w11" and "w20". They follow the context of 9 tokens in one row if the language model
    # supports tree attention
    in_one_row = text in (
        "gpt2",
        "opt",
        "opt_350m",
        "llama",
        "gpt_neox",
        "qwen3",
        "smollm3",
        "gemma",
        "mistral",
        "gptj",
    )
    context = (1, len(ranking.processor.tokenizer(prompts(1)[0].text)["input_ids"]))
    texts = [(1, context[1] + 3)] if in_one_row else [context, (2, 2)]
    assert shapes == texts
    assert media_rows == [1] * len(texts)  # the image is in the cache once, for all candidates
    assert ranking.num_encoded == 3

    shapes.clear()
    ranking.rank(prompts(1), [["w10", "w20", "w10", "w50"]])
    assert len(shapes) == 1  # the logits after the context are enough


@pytest.mark.parametrize(("size", "expected"), [(256, [40]), (15, [15, 15, 12])])
def test_candidates_are_computed_in_chunks(size, expected):
    # 20 prefixes of one token and 20 of two; prefixes from the chunk before that are needed again are recomputed
    candidates = [f"w{10 + i} w{40 + i} w{60 + j}" for i in range(20) for j in range(3)]
    ranking = engine(max_candidate_tokens=size)
    shapes = []
    ranking.model.language_model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape))
    )
    ranking.rank(prompts(1), [candidates])
    prefix, text = (len(ids) for ids in ranking.processor.tokenizer([PREFIX, prompts(1)[0].text])["input_ids"])
    # The shared prefix; the query with the first chunk; other chunks
    assert shapes == [(1, prefix), (1, text - prefix + expected[0]), *((1, size) for size in expected[1:])]


def test_a_long_context_is_computed_by_itself(monkeypatch):
    together = engine(shares_prefix=False).rank(prompts(2), [CANDIDATES] * 2)
    monkeypatch.setattr(ranking_module, "MAX_JOINED_TOKENS", 8)  # contexts have more
    apart = engine(shares_prefix=False)
    lengths = []
    apart.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    assert apart.rank(prompts(2), [CANDIDATES] * 2) == [pytest.approx(row, abs=1e-5) for row in together]
    assert lengths == [
        max(len(ids) for ids in apart.processor.tokenizer([p.text for p in prompts(2)])["input_ids"]),
        3,
    ]


@pytest.mark.parametrize("shares_prefix", [True, False])
def test_a_candidate_may_hold_a_marker_that_is_text(shares_prefix):
    candidates = [["w20 w21 w22", "w10 w20 w11"]]
    expected = engine(shares_prefix=shares_prefix).rank(prompts(1), candidates)
    ranking = engine(shares_prefix=shares_prefix)
    config = ranking.model.config
    config.image_token_ids = [config.image_token_id, *ranking.processor.tokenizer("w20")["input_ids"]]
    assert ranking.rank(prompts(1), candidates)[0] == pytest.approx(expected[0], abs=1e-5)


def test_a_shared_prefix_is_computed_once_and_each_image_encoded_once():
    ranking = engine(batch_size=3)
    lengths = []
    ranking.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ranking.rank(prompts(), [["w10", "w11"]] * 7)
    prefix_length = len(ranking.processor.tokenizer(PREFIX)["input_ids"])
    assert lengths[0] == (1, prefix_length)
    # Queries of 2, 2, 3, 3, 4, 4 and 5 tokens, in batches of 3; candidates of one token need no step
    assert lengths[1:] == [(3, 3), (3, 4), (1, 5)]
    assert ranking.num_encoded == 2 + 7
    lengths.clear()
    ranking.rank(prompts(), [["w10", "w11"]] * 7)
    assert lengths == [(3, 3), (3, 4), (1, 5)]
    assert ranking.num_encoded == 2 + 7


def test_kept_latents_are_bounded_and_the_least_used_go_first():
    kept = engine(max_cached_media=3)
    kept.encode([media_item(1), media_item(2), media_item(3)])
    kept.encode([media_item(1), media_item(4)])
    assert kept.num_encoded == 4
    kept.encode([media_item(1), media_item(3), media_item(4)])
    assert kept.num_encoded == 4
    kept.encode([media_item(2)])
    assert kept.num_encoded == 5


def test_a_video_and_text_alone():
    asked = [
        Prompt("w4<|endofchunk|>", "<image>w5", (), (MediaItem("v", [draw_image(1), draw_image(2)]),)),
        Prompt("", "w6 w4"),
    ]
    generation = GenerationSettings(max_new_tokens=3, num_beams=1)
    together = engine().generate(asked, generation)
    assert together == [engine().generate([prompt], generation)[0] for prompt in asked]
    still = Prompt("w4<|endofchunk|>", "<image>w5", (), (media_item(1),))
    scores = engine().rank([asked[0], still], [["w5"], ["w5"]])
    assert scores[0] != scores[1]


def test_errors():
    with pytest.raises(ValueError, match="The candidate '' has no token"):
        engine().rank(prompts(1), [["w4", ""]])
    broken = Prompt("", "<image>w4", (), (MediaItem("x", b"not an image", "query '7'"),))
    with pytest.raises(ValueError, match="query '7': the image cannot be decoded"):
        engine().rank([broken], [["w4"]])
