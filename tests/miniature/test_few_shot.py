# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Episodes that bind new words, what the shipped model makes of them, and the training cut short."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo.cards.rendering import render_card
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.training import FlamingoDataCollator
from transformers_flamingo_cli import main
from transformers_flamingo_miniature import few_shot_episodes, text_backbone_path, vision_backbone_path
from transformers_flamingo_miniature.few_shot import (
    FewShotArguments,
    evaluate_few_shot,
    few_shot_model_path,
    rank_words,
)
from transformers_flamingo_miniature.few_shot_episodes import (
    CONTRASTS,
    PAIRS,
    SHOTS,
    WORDS,
    FewShotEpisode,
    PicturePool,
    few_shot_prompt,
    reorder,
    sample_few_shot_episode,
)
from transformers_flamingo_miniature.few_shot_training import STAGES, episode_row, name_row, stage_rows
from transformers_flamingo_miniature.shipped import card_template, few_shot_text_backbone_path
from transformers_flamingo_miniature.text_backbone import TextBackboneSettings, train_text_backbone


CARDS = Path(__file__).parents[2] / "model_cards"


@pytest.fixture(scope="module")
def shipped():
    path = few_shot_model_path()
    return AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)


@pytest.fixture(scope="module")
def processor():
    return FlamingoProcessor.from_vision_text_pretrained(str(vision_backbone_path()), str(text_backbone_path()))


@pytest.fixture
def few_pictures(monkeypatch):
    """Drawing and encoding pictures takes most of the time."""
    for split in few_shot_episodes._PICTURES_PER_PAIR:
        monkeypatch.setitem(few_shot_episodes._PICTURES_PER_PAIR, split, max(SHOTS) + 1)


@pytest.fixture(scope="module")
def pool():
    return PicturePool("train", seed=0, per_pair=10)


def test_splits_share_no_word_and_no_pair():
    for parts in (WORDS, PAIRS):
        items = [item for part in parts.values() for item in part]
        assert len(items) == len(set(items))


@given(
    split=st.sampled_from(list(PAIRS)),
    contrast=st.sampled_from(CONTRASTS),
    ways=st.integers(2, 4),
    shots=st.sampled_from(SHOTS),
    seed=st.integers(0, 2**32),
)
def test_an_episode_binds_each_word_to_one_pair(split, contrast, ways, shots, seed):
    episode = sample_few_shot_episode(split, contrast, ways, shots, np.random.default_rng(seed))
    assert len(episode.pairs) == len(episode.words) == shots + 1
    assert len(set(episode.candidates)) == ways and set(episode.words) <= set(episode.candidates)
    assert set(episode.candidates) <= set(WORDS[split])
    bindings = dict(zip(episode.words, episode.pairs, strict=True))
    assert all(bindings[word] == pair for word, pair in zip(episode.words, episode.pairs, strict=True))
    assert len(set(bindings.values())) == len(bindings)
    assert episode.pairs[-1] in PAIRS[split]
    if contrast == "pair":
        assert set(episode.pairs) <= set(PAIRS[split])
        assert len({color for color, _ in bindings.values()}) == len(bindings)
    else:
        shared = 1 if contrast == "color" else 0
        assert len({pair[shared] for pair in episode.pairs}) == 1
        assert set(episode.pairs) <= {*PAIRS[split], *PAIRS["train"]}
    counts = [episode.words[:-1].count(word) for word in episode.candidates]
    assert max(counts) - min(counts) <= 1


def test_the_answer_is_any_candidate_and_any_example_equally_often():
    rng = np.random.default_rng(0)
    episodes = [sample_few_shot_episode("test", "pair", 2, 4, rng) for _ in range(1000)]
    for guess in (lambda e: e.candidates[0], lambda e: e.words[0], lambda e: e.words[-2]):
        assert 0.45 < np.mean([guess(episode) == episode.words[-1] for episode in episodes]) < 0.55


def test_impossible_episodes():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="2 to 4 ways, but `ways` is 5"):
        sample_few_shot_episode("validation", "pair", 5, 4, rng)
    with pytest.raises(ValueError, match="Unknown split 'tset'"):
        sample_few_shot_episode("tset", "pair", 2, 4, rng)


@pytest.mark.parametrize("described", [0.0, 0.5, 1.0])
def test_what_is_learned_from_an_episode(processor, pool, described):
    rng = np.random.default_rng(0)
    rows = [episode_row(pool, processor, rng, described, examples=10) for _ in range(16)]
    for row in rows:
        assert row["text"].count(processor.image_token) == len(row["pictures"]) == len(set(row["pictures"]))
        for start, end in row["supervised"]:
            assert row["text"][:start].endswith(processor.image_token)
            assert row["text"][start:end] in WORDS["train"] and row["text"][start:end] in row["text"][:start]
    numbers = {len(row["pictures"]) for row in rows}
    assert numbers == {10} if described == 0 else numbers == {1} if described == 1 else len(numbers) > 2
    # Held-out words and pictures are nowhere.
    assert not any(word in row["text"] for row in rows for word in (*WORDS["validation"], *WORDS["test"]))
    features = [np.zeros((len(row["pictures"]), 2, 3), dtype=np.float32) for row in rows]
    batch = FlamingoDataCollator(processor)(
        [{**row, "image_features": f} for row, f in zip(rows, features, strict=True)]
    )
    assert (batch["labels"] != -100).sum() == sum(len(row["supervised"]) for row in rows)  # a word is a token


def test_new_words_are_learned_except_for_the_first(processor, pool):
    """What matches no example must not get the word of one, and only where a word is new can that be learned."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        row = episode_row(pool, processor, rng, 0.0, examples=6, supervises_new_words=True)
        words = [text.removeprefix(processor.image_token) for text in row["text"].split(processor.end_of_chunk_token)]
        assert [row["text"][start:end] for start, end in row["supervised"]] == words[1:6]


def test_the_rows_of_a_step_are_as_long_and_steps_differ(processor, pool):
    stage = STAGES["episodes"]._replace(batch_size=3, described=0.0)
    rows = stage_rows(stage, 12, PicturePool("train", 0, per_pair=33), processor, np.random.default_rng(0))
    numbers = [len(row["pictures"]) for row in rows]
    assert numbers[0::3] == numbers[1::3] == numbers[2::3]
    assert min(numbers) >= 2 and max(numbers) <= 33 and len(set(numbers)) > 6


def test_order_of_the_matching_examples():
    pairs = (("red", "bar"), ("blue", "bar"), ("blue", "ring"), ("red", "ring"), ("red", "bar"))
    episode = FewShotEpisode(pairs, ("dax", "wug", "wug", "dax", "dax"), ("wug", "dax"))
    first, last = reorder(episode, "first"), reorder(episode, "last")
    assert first.words == ("dax", "dax", "wug", "wug", "dax") and last.words == ("wug", "wug", "dax", "dax", "dax")
    assert first.pairs[0] == ("red", "bar") and first.pairs[1] == ("red", "ring") and first.pairs[-1] == pairs[-1]
    with pytest.raises(ValueError, match="Unknown order 'middle'"):
        reorder(episode, "middle")


def test_a_name_is_the_color_or_the_shape_of_the_picture(processor, pool):
    rng = np.random.default_rng(0)
    for _ in range(50):
        row = name_row(pool, processor, rng)
        ((start, end),) = row["supervised"]
        pair = list(PAIRS["train"])[row["pictures"][0] // pool.per_pair]
        assert row["text"][start:end] in pair


def test_the_shipped_model_binds_unseen_words_and_only_by_looking(shipped):
    pool = PicturePool("test", 11, per_pair=33)
    scores = evaluate_few_shot(*shipped, episodes=100, seed=11, ways=(2,), shots=(0, 2, 4, 32), pool=pool)
    by_shots = {score["shots"]: score for score in scores if score["contrast"] == "pair"}
    assert by_shots[4]["image"] >= 0.95 and by_shots[32]["image"] >= 0.95
    assert by_shots[0]["image"] < 0.65 < by_shots[2]["image"]
    for score in scores:
        assert 0.3 < score["permuted"] < 0.7
        assert (score["shown"] is None) == (score["first"] is None) == (score["shots"] == 0)
        assert min(score["small"], score["large"]) <= score["image"] <= max(score["small"], score["large"])
    assert by_shots[4]["not_shown"] is None and by_shots[4]["shown"] == by_shots[4]["image"]
    assert min(by_shots[n][order] for n in (4, 32) for order in ("first", "last")) >= 0.9


def test_the_record_of_the_shipped_model_does_not_fall_with_more_shots():
    """With 2 words; with 4 it does (docs/few-shot-log.md)."""
    record = json.loads((few_shot_model_path() / "metrics.json").read_text())
    pairs = {(s["ways"], s["shots"]): s["image"] for s in record["scores"] if s["contrast"] == "pair"}
    assert {shots for _, shots in pairs} == set(SHOTS)
    assert min(pairs[2, shots] for shots in (8, 16, 32)) >= pairs[2, 4] - 0.01


def test_pixels_and_kept_latents_give_the_same_answer(shipped):
    model, processor = shipped
    rng = np.random.default_rng(0)
    pool = PicturePool("test", 0, per_pair=5)
    episode = sample_few_shot_episode("test", "pair", 2, 4, rng)
    images = [pool.images[index] for index in pool.draw(episode.pairs, rng)]
    inputs = processor(images=[images], text=[few_shot_prompt(episode, processor)], return_tensors="pt")
    logits = model(**inputs).logits[0, -1]
    words = list(episode.candidates)
    expected = words[logits[processor.tokenizer.convert_tokens_to_ids(words)].argmax()]
    latents = model.get_image_features(inputs["pixel_values"]).pooler_output
    assert rank_words(model, processor, [episode], latents) == [expected]


def test_the_shipped_model_has_the_shipped_language_model(shipped):
    weights = {name.removeprefix("language_model."): tensor for name, tensor in shipped[0].state_dict().items()}
    frozen = AutoModelForCausalLM.from_pretrained(few_shot_text_backbone_path()).state_dict()
    # The two special tokens of Flamingo are behind the words.
    assert all(torch.equal(weights[name][: len(tensor)], tensor) for name, tensor in frozen.items())


def test_the_shipped_model_comes_with_the_card_of_its_record():
    path = few_shot_model_path()
    assert (CARDS / "few-shot.md").read_text() == (path / "README.md").read_text()
    record = json.loads((path / "metrics.json").read_text())
    assert (path / "README.md").read_text() == render_card(card_template("few-shot"), record=record)
    assert (CARDS / "few_shot.png").read_bytes() == (path / "few_shot.png").read_bytes()
    start = record["training"]["gates"][0]
    assert start["attn"] == [0.0] and start["ffn"] == [0.0]


def test_the_command_measures_the_shipped_model(tmp_path, few_pictures, capsys):
    assert main(["demo", "--few-shot", "--output-dir", str(tmp_path), "--episodes", "10"]) == 0
    assert "pair, 2 words" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {score["shots"] for score in metrics["scores"]} == set(SHOTS)
    with Image.open(tmp_path / "few_shot.png") as picture:
        assert picture.format == "PNG"
    assert not (tmp_path / "model").exists()


def test_the_command_trains_it_again(tmp_path, few_pictures):
    settings = TextBackboneSettings(steps=1, width=64, layers=2)
    train_text_backbone(tmp_path / "gpt2", settings=settings, evaluation_size=0, progress=False)
    command = ["demo", "--few-shot", "--from-scratch", "--split", "validation", "--scale", "0.002", "--episodes", "4"]
    assert main([*command, "--text-backbone", str(tmp_path / "gpt2"), "--output-dir", str(tmp_path)]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert model.config.cross_attention_layer_indices == [0]
    assert model.config.text_config.hidden_size == 64
    assert model.config.resampler_feature_positions > 0  # standardized
    assert model.config.use_cache
    record = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert [entry["stage"] for entry in record["training"]["gates"] if entry["step"] == 0] == [
        "names",
        "look-up",
        "episodes",
    ]
    assert "the folder `gpt2`" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "model" / "few_shot.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--few-shot", "--max-steps", "3"], "--max-steps has no effect with --few-shot"),
        (["--from-scratch"], "--from-scratch has no effect without --few-shot"),
    ],
)
def test_options_of_the_other_demo_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *options, "--output-dir", str(tmp_path)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"split": "train"}, {"episodes": 1}, {"scale": 0.0}, {"text_backbone": "gpt2"}])
def test_impossible_arguments(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is {next(iter(wrong.values()))!r}"):
        FewShotArguments(**wrong)
