# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import re

import torch
from factory import random_images, tiny_config, tiny_flamingo
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_flamingo import FlamingoModel
from transformers_flamingo.cards.model_card import FlamingoModelCardData


FACTS = {
    "model_name": "My model",
    "source": "the checkpoint of somebody",
    "license": "mit",
    "language": "en",
    "data_mixture": [{"name": "owner/pairs", "weight": 0.2}, {"name": "/data/secret/pages", "batch size": 8}],
    "hyperparameters": {"learning rate": 1e-4, "steps": 100},
    "scores": [
        {"task": "coco", "metric": "CIDEr", "shots": 0, "value": 79.51, "std": 0.2},
        {"task": "coco", "metric": "CIDEr", "shots": 4, "value": 89.0},
        {"task": "vqav2", "metric": "accuracy", "shots": 4, "value": 0.5, "blind": 0.25},
    ],
    "notes": ["One limit."],
    "image_use": {
        "is_used": False,
        "text": "The images are not used yet.",
        "sources": [
            {"name": "pairs|x", "measurements": 5, "loss": 1.0, "swapped_loss": 1.0004, "swapped_for": "other images"}
        ],
    },
}
HEADINGS = {
    "data_mixture": "## Training",
    "scores": "## Scores",
    "notes": "## Limits and differences",
    "image_use": "## Use of the images",
}


def test_a_card_says_what_the_model_itself_says():
    model = tiny_flamingo()
    card = FlamingoModelCardData.from_model(model).to_model_card()
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "image-text-to-text"
    assert card.data.license is None and card.data.base_model is None and card.data.eval_results is None
    total = sum(p.numel() for p in model.parameters())
    assert f"{total:,}" in card.text
    assert f"| resampler | {sum(p.numel() for p in model.resampler.parameters()):,} |" in card.text
    assert re.search(r"\| language model \| [\d,]+ \| gpt2, 3 layers of width 32 \|", card.text)
    assert "| gated blocks | before decoder layers 0, 1, 2;" in card.text
    assert not any(heading in card.text for heading in HEADINGS.values())


def test_a_card_says_that_features_are_standardized():
    model = tiny_flamingo(gates=0.0)
    assert "standardized" not in FlamingoModelCardData.from_model(model).to_model_card().text
    model.calibrate_features(random_images(4, 1))
    text = FlamingoModelCardData.from_model(model).to_model_card().text
    assert "of width 24; patches alone, standardized by those of training images" in text


def test_a_full_card():
    names = {"vision_name": "openai/clip-vit-large-patch14", "text_name": "gpt2"}
    card = FlamingoModelCardData.from_model(tiny_flamingo(), **names, **FACTS).to_model_card()
    assert card.data.base_model == ["openai/clip-vit-large-patch14", "gpt2"]
    assert card.data.datasets == ["owner/pairs"] and card.data.license == "mit"
    assert [(r.metric_value, r.dataset_config) for r in card.data.eval_results] == [
        (79.51, "0 shots"),
        (89.0, "4 shots"),
        (0.5, "4 shots"),
    ]
    for line in (
        "| task | metric | 0 shots | 4 shots |",
        "| coco | CIDEr | 79.5 (std 0.2) | 89.0 |",
        "| vqav2 | accuracy |  | 0.5, blind 0.25 |",
        "| owner/pairs | 0.2 |  |",
        "| pages |  | 8 |",
        "| learning rate | 0.0001 |",
        "- One limit.",
        "**The images are not used yet.**",
        "| pairs\\|x | 5 | 1.000 | 1.000 | other images |",
    ):
        assert line in card.text.splitlines(), line
    assert "secret" not in card.content


@settings(max_examples=40)
@given(st.sets(st.sampled_from(sorted(FACTS))))
def test_what_is_not_known_is_not_there(given_facts):
    with torch.device("meta"):
        model = FlamingoModel(tiny_config())
    facts = {name: FACTS[name] for name in given_facts}
    content = FlamingoModelCardData.from_model(model, **facts).to_model_card().content
    text = ModelCard(content).text
    assert "None" not in content and "\n\n\n" not in text
    for name, heading in HEADINGS.items():
        shown = name in given_facts or (name == "data_mixture" and "hyperparameters" in given_facts)
        assert (heading in text) == shown
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len(rows) > 2 and len({row.replace("\\|", "").count("|") for row in rows}) == 1 for rows in tables)


@settings(max_examples=40)
@given(st.text(min_size=1))
def test_no_text_breaks_a_table_or_the_metadata(text):
    facts = {"hyperparameters": {"a": text}, "source": text, "model_name": text, "scores": FACTS["scores"]}
    card = FlamingoModelCardData.from_model(tiny_flamingo(), **facts).to_model_card()
    row = next(line for line in card.text.splitlines() if line.startswith("| a |"))
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 3
    assert ModelCard(card.content).data.eval_results is not None


def test_a_local_backbone_has_no_name_in_the_card(tmp_path):
    data = FlamingoModelCardData.from_model(tiny_flamingo(), vision_name=str(tmp_path), text_name="owner/model")
    assert [backbone.get("name") for backbone in data.backbones] == [None, "owner/model"]
    data.save(tmp_path / "README.md")
    assert ModelCard.load(tmp_path / "README.md").data.base_model == ["owner/model"]
