# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The cards of the miniature are what their templates make of the shipped records."""

import json
from pathlib import Path

import jinja2
import pytest
from huggingface_hub import ModelCard

from transformers_flamingo.cards.rendering import render_card
from transformers_flamingo_miniature import read_training_record, text_backbone_path, vision_backbone_path
from transformers_flamingo_miniature.shipped import card_template, few_shot_text_backbone_path


CARDS = Path(__file__).parents[2] / "model_cards"
KINDS = sorted(path.stem for path in card_template("demo").parent.iterdir())


@pytest.mark.parametrize(
    ("kind", "card", "backbone"),
    [
        ("miniature-clip", "miniature-clip", vision_backbone_path()),
        ("miniature-gpt2", "miniature-gpt2", text_backbone_path()),
        ("miniature-gpt2", "miniature-few-shot-gpt2", few_shot_text_backbone_path()),
    ],
)
def test_the_cards_of_the_backbones_are_those_of_their_records(kind, card, backbone):
    expected = render_card(card_template(kind), record=read_training_record(backbone))
    assert (CARDS / f"{card}.md").read_text() == expected
    assert (backbone / "README.md").read_text() == expected


def test_the_card_of_the_miniature_flamingo_is_that_of_its_record():
    record = json.loads((CARDS / "miniature-flamingo.json").read_text())
    assert (CARDS / "miniature-flamingo.md").read_text() == render_card(card_template("demo"), record=record)


def test_all_cards_have_metadata_that_the_hub_reads():
    cards = list(CARDS.glob("*.md"))
    assert len(cards) == len(KINDS) + 1 == 5  # two language models
    for path in cards:
        assert ModelCard.load(path).data.license == "apache-2.0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_fact_is_an_error_not_a_gap(kind):
    with pytest.raises(jinja2.UndefinedError):
        render_card(card_template(kind), record={})


def test_an_unknown_kind_is_an_error():
    with pytest.raises(
        FileNotFoundError, match="Its folder has: demo.md, few-shot.md, miniature-clip.md, miniature-gpt2"
    ):
        render_card(card_template("nope"), record={})
