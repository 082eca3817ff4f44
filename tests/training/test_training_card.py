# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The metadata of the card that `FlamingoTrainer` writes: base models, datasets, results, and what the stock card takes."""

import json

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from runs import model, source, trainer


@pytest.fixture
def pairs(tmp_path) -> str:
    """Return the path of one image-text pair, in a folder as the cache of the Hub has it."""
    folder = tmp_path / "datasets--owner--cached" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 10), "red").save(folder / "a.png")
    (folder / "pairs.jsonl").write_text(json.dumps({"image": "a.png", "text": "w5"}))
    return str(folder / "pairs.jsonl")


def card(run) -> ModelCard:
    return ModelCard.load(run.args.output_dir + "/README.md")


def test_base_model_datasets_and_results_are_in_the_metadata(pairs, tmp_path):
    flamingo = model()
    flamingo.config.vision_config.name_or_path = str(tmp_path)  # a folder that names nothing
    flamingo.config.text_config.name_or_path = "owner/gpt2"
    run = trainer(tmp_path / "out", [source("owner/pairs", pairs), source("mine", pairs)], flamingo=flamingo)
    run.state.log_history = [{"eval_coco_word_f1": 0.25, "eval_coco_blind_word_f1": 0.125, "step": 6}]
    run.create_model_card()
    data = card(run).data
    assert data.base_model == ["owner/gpt2"]
    assert data.datasets == ["owner/pairs", "owner/cached"]
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results] == [("coco", "word_f1", 0.25)]
    assert str(tmp_path) not in card(run).content


def test_a_trained_flamingo_has_a_flamingo_as_its_base(pairs, tmp_path):
    flamingo = model()
    flamingo.config.text_config.name_or_path = "owner/gpt2"
    flamingo.config.name_or_path = "owner/flamingo"
    run = trainer(tmp_path / "out", [source("pairs", pairs)], flamingo=flamingo)
    run.create_model_card()
    assert card(run).data.base_model == ["owner/flamingo"]
    assert "The language model is owner/gpt2." in card(run).text


def test_what_the_stock_card_takes_is_in_the_card(pairs, tmp_path, caplog):
    """`trainer.push_to_hub(**kwargs)` of transformers' example scripts."""
    run = trainer(tmp_path / "out", [source("pairs", pairs)])
    run.create_model_card(
        language="en",
        license="mit",
        tags="drawings",
        model_name="My Flamingo",
        finetuned_from="owner/base",
        tasks=["image-text-to-text", "image-to-text"],
        dataset_tags=["owner/glue"],
        dataset="GLUE MRPC",
        dataset_args="mrpc",
    )
    data, text = card(run).data, card(run).text
    assert (data.language, data.license, data.base_model) == ("en", "mit", ["owner/base"])
    assert data.datasets == ["owner/glue", "owner/cached"] and data.tags[-1] == "drawings"
    assert text.lstrip().startswith("# My Flamingo\n")
    assert "| owner/glue |" in text and "| GLUE MRPC | mrpc |" in text
    assert "`tasks` is ['image-to-text']" in caplog.text
