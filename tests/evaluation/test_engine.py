# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Batches, shared prefixes and kept latents change what an answer costs, and not the answer."""

import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from words import picture

from transformers_flamingo.evaluation.engine import FewShotEngine, Medium, Prompt
from transformers_flamingo.evaluation.task import GenerationSettings


# Absolute, rotary and ALiBi positions; layers with and without keywords
TEXTS = ("gpt2", "opt", "llama", "mpt")
PREFIX = "<image>w4 w5<|endofchunk|><image>w6<|endofchunk|>"


def medium(number: int) -> Medium:
    return Medium(number, picture(number))


def prompts(count: int = 7) -> list[Prompt]:
    queries = ["<image>" + " ".join(f"w{60 + i * j}" for j in range(1 + i % 4)) for i in range(count)]
    return [Prompt(PREFIX, query, (medium(1), medium(2)), (medium(3 + i),)) for i, query in enumerate(queries)]


def engine(text: str = "gpt2", **kwargs) -> FewShotEngine:
    return FewShotEngine(tiny_flamingo(text=text, gates=0.7), tiny_processor(), **kwargs)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation(text, num_beams):
    settings = GenerationSettings(max_new_tokens=4, num_beams=num_beams)
    shared = engine(text, batch_size=3).generate(prompts(), settings)
    one_by_one = engine(text, shares_prefix=False, batch_size=1)
    assert shared == [one_by_one.generate([prompt], settings)[0] for prompt in prompts()]
    assert engine(text, batch_size=5, shares_prefix=False).generate(prompts(), settings) == shared

    model, processor = one_by_one.model, one_by_one.processor
    prompt = prompts()[5]
    images = [medium.data for medium in prompt.media]
    inputs = processor(images=[images], text=[prompt.text], return_tensors="pt")
    options = {"max_new_tokens": 4, "num_beams": num_beams, "do_sample": False}
    options |= {"length_penalty": 0.0} if num_beams > 1 else {}
    expected = model.generate(**inputs, **options, eos_token_id=model.config.end_of_chunk_token_id)
    assert (
        shared[5] == processor.batch_decode(expected[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    )


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kwargs", [{"shares_prefix": True}, {"shares_prefix": False}, {"candidate_batch_size": 2}])
def test_likelihoods_of_candidates(text, kwargs):
    candidates = [[f"w{10 + i}", f"w{40 + i} w9 w8", f"w{50 - i} w7"] for i in range(7)]
    asked = prompts()
    ranking = engine(text, batch_size=3, **kwargs)
    for normalised in (True, False):
        got = ranking.rank(asked, candidates, length_normalised=normalised)
        for index in (0, 4):
            images = [medium.data for medium in asked[index].media]
            for candidate, score in zip(candidates[index], got[index], strict=True):
                whole = asked[index].text + " " + candidate
                inputs = ranking.processor(images=[images], text=[whole], return_tensors="pt")
                length = len(candidate.split())
                with torch.no_grad():
                    log_probs = ranking.model(**inputs).logits[0].log_softmax(dim=-1)
                targets = inputs["input_ids"][0, -length:]
                expected = log_probs[-length - 1 : -1].gather(1, targets[:, None]).sum().item()
                assert score == pytest.approx(expected / (length if normalised else 1), abs=1e-4)


def test_a_shared_prefix_is_computed_once_and_each_image_encoded_once():
    ranking = engine(batch_size=3)
    lengths = []
    ranking.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ranking.rank(prompts(), [["w10", "w11"]] * 7)
    prefix_length = len(ranking.processor.tokenizer(PREFIX)["input_ids"])
    assert lengths[0] == (1, prefix_length)
    # Queries of 2 to 5 tokens, those of like length together; candidates of one token need no step
    assert sorted(lengths[1:]) == [(1, 5), (2, 2), (2, 3), (2, 4)]
    assert ranking.num_encoded == 2 + 7
    lengths.clear()
    ranking.rank(prompts(), [["w10", "w11"]] * 7)
    assert len(lengths) == 4
    assert ranking.num_encoded == 2 + 7


def test_kept_latents_are_bounded_and_the_least_used_go_first():
    kept = engine(max_cached_media=3)
    kept.encode([medium(1), medium(2), medium(3)])
    kept.encode([medium(1), medium(4)])
    assert kept.num_encoded == 4
    kept.encode([medium(1), medium(3), medium(4)])
    assert kept.num_encoded == 4
    kept.encode([medium(2)])
    assert kept.num_encoded == 5


def test_a_video_and_text_alone():
    asked = [
        Prompt("w4<|endofchunk|>", "<image>w5", (), (Medium("v", [picture(1), picture(2)]),)),
        Prompt("", "w6 w4"),
    ]
    settings = GenerationSettings(max_new_tokens=3, num_beams=1)
    together = engine().generate(asked, settings)
    assert together == [engine().generate([prompt], settings)[0] for prompt in asked]
    still = Prompt("w4<|endofchunk|>", "<image>w5", (), (medium(1),))
    scores = engine().rank([asked[0], still], [["w5"], ["w5"]])
    assert scores[0] != scores[1]


def test_errors():
    with pytest.raises(ValueError, match="The candidate '' has no token"):
        engine().rank(prompts(1), [["w4", ""]])
    broken = Prompt("", "<image>w4", (), (Medium("x", b"no picture", "query '7'"),))
    with pytest.raises(ValueError, match="query '7': the image cannot be decoded"):
        engine().rank([broken], [["w4"]])
