# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo_miniature import evaluation
from transformers_flamingo_miniature.data import build_image_split
from transformers_flamingo_miniature.demo import build_miniature_flamingo
from transformers_flamingo_miniature.evaluation import CONDITIONS, evaluate_miniature, generate_texts, parse_caption


@pytest.mark.parametrize(
    ("caption", "attributes"),
    [
        (
            "a small red circle on a striped background",
            {"color": "red", "shape": "circle", "size": "small", "background": "striped"},
        ),
        ("three blue crosses", {"color": "blue", "shape": "cross", "count": 3}),
        (
            "a red circle left of an orange bar",
            {"color": "red", "right_color": "orange", "shape": "circle", "right_shape": "bar"},
        ),
        ("on on on", {}),
        ("", {}),
    ],
)
def test_parse_caption(caption, attributes):
    assert parse_caption(caption) == attributes


def test_every_true_caption_is_parsed_to_its_scene():
    for row in build_image_split("test", 60, seed=3).remove_columns("image"):
        named = parse_caption(row["caption"])
        for name, value in named.items():
            assert row[name] == value, row["caption"]
        assert {"color", "shape"} <= set(named)


@given(size=st.integers(2, 60), seed=st.integers(0, 1000))
def test_no_image_stays_with_its_scene(size, seed):
    permutation = evaluation.derangement(size, np.random.default_rng(seed))
    assert sorted(permutation) == list(range(size))
    assert (permutation != np.arange(size)).all()


@pytest.fixture(scope="module")
def miniature():
    return build_miniature_flamingo()


def test_texts_that_are_right_score_one_and_texts_of_other_scenes_do_not(miniature, monkeypatch):
    """With a stand-in for generation that reads the truth from the scene whose image it is given."""
    scenes = build_image_split("test", 24, seed=1)
    rows = scenes.remove_columns("image").to_list()
    prompts = list(evaluation._prompts(scenes, "<image>"))

    def encode_images(model, processor, images, **kwargs):
        return [torch.full((1, 1), float(index)) for index in range(len(images))]

    def oracle(model, processor, texts, latents, **kwargs):
        if float(latents.max()) == float(latents.min()):  # the blank image
            return ["nothing"] * len(texts)
        answers = []
        for prompt, scene in zip(prompts, latents[:, 0, 0].long().tolist(), strict=True):
            row = rows[scene]
            if prompt.expected is None:
                answers.append(row["caption"])
            else:
                topic = prompt.score_names[0].rsplit("/", 1)[1]
                answers.append(next((q["answer"] for q in row["questions"] if q["topic"] == topic), "nothing"))
        return answers

    monkeypatch.setattr(evaluation, "encode_images", encode_images)
    monkeypatch.setattr(evaluation, "generate_texts", oracle)
    scores = evaluate_miniature(*miniature, scenes)
    captions = {name: values for name, values in scores.items() if name.startswith("caption/")}
    assert all(values["image"] == 1.0 for values in captions.values())
    assert all(values["blank"] == 0.0 for values in captions.values())
    assert np.mean([values["permuted"] for values in captions.values()]) < 0.6
    assert scores["caption/single/color_and_shape"]["n"] == 12
    assert scores["question/pair/position"]["chance"] == 0.5


def test_chance_is_how_often_two_scenes_agree():
    assert evaluation._chance(["red", "red", "blue", "blue"]) == 0.5
    assert evaluation._chance([("red", "bar"), ("red", "ring"), ("blue", "bar"), ("blue", "ring")]) == 0.25
    assert evaluation._chance(["red"]) == 1.0


def test_an_untrained_model_sees_nothing(miniature):
    """Closed gates: the three conditions give the very same scores."""
    scores = evaluate_miniature(*miniature, build_image_split("test", 12, seed=1))
    assert {"caption/single/color", "caption/pair/right_shape", "question/count/count"} <= set(scores)
    for values in scores.values():
        assert values["image"] == values["permuted"] == values["blank"]
        assert set(values) == {"n", "chance", *CONDITIONS}


def test_generated_texts_do_not_depend_on_the_batch(miniature):
    model, processor = miniature
    scenes = build_image_split("test", 6, seed=2)
    latents = torch.stack(encode_images(model, processor, list(scenes["image"]), batch_size=4))
    texts = ["<image>", "<image>question: what color? answer:"] * 3
    whole = generate_texts(model, processor, texts, latents)
    assert generate_texts(model, processor, texts, latents, batch_size=2) == whole
    assert [generate_texts(model, processor, [t], latents[i : i + 1])[0] for i, t in enumerate(texts)] == whole
