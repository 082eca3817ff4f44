# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Names on the Hub of what was loaded from folders, for the metadata of cards."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from factory import tiny_flamingo
from huggingface_hub import ModelCard, metadata_load

from transformers_flamingo import FlamingoModel, _make_card
from transformers_flamingo.cards.model_card import FlamingoModelCardData
from transformers_flamingo.cards.origins import find_dataset_names, find_name, find_origins


def folder(path: Path, *, card: str | None = None, config: dict | str | None = None) -> Path:
    path.mkdir(parents=True)
    if card is not None:
        (path / "README.md").write_text(card)
    if config is not None:
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"card": "---\nbase_model: owner/base\n---\n"}, ["owner/base"]),
        ({"card": "---\nbase_model: [owner/base, other/base]\n---\n"}, ["owner/base", "other/base"]),
        ({"config": {"_name_or_path": "owner/base"}}, ["owner/base"]),
        ({"card": "---\nbase_model: owner/base\n---\n", "config": {"_name_or_path": "owner/old"}}, ["owner/base"]),
        ({"card": "---\nlicense: mit\n---\n", "config": {"_name_or_path": "owner/base"}}, ["owner/base"]),
        # Nothing in these is a name on the Hub
        ({}, []),
        ({"card": "no metadata", "config": "no JSON"}, []),
        ({"card": "---\n a: [\n---\n", "config": "[]"}, []),
        ({"card": "---\n- a list\n---\n", "config": {"_name_or_path": "checkpoint-1000"}}, []),
        ({"card": "---\nbase_model: /home/me/base\n---\n", "config": {"_name_or_path": "/home/me/base"}}, []),
        ({"card": "---\nbase_model: [3, {}]\n---\n", "config": {"_name_or_path": "./models/base"}}, []),
    ],
)
def test_a_folder_names_its_origin_in_its_card_or_its_configuration(files, expected, tmp_path):
    assert find_origins(folder(tmp_path / "backbone", **files)) == expected


def test_a_path_that_exists_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "owner" / "base")
    assert find_name("owner/base") is None and find_name(None) is None and find_name("") is None
    assert find_origins(folder(tmp_path / "x", config={"_name_or_path": "owner/base"})) == []


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_a_folder_in_the_cache_of_the_hub_has_its_name(kind, tmp_path):
    path = folder(tmp_path / f"{kind}--owner--some--name" / "snapshots" / "0123", card="---\nbase_model: a/b\n---\n")
    assert find_origins(path) == ["owner/some--name"]
    assert find_name(str(path)) == "owner/some--name"
    assert find_name(str(path / "data" / "*.tar")) == "owner/some--name"
    assert find_name(str(tmp_path / f"{kind}--owner--name")) is None


def test_a_card_names_where_local_backbones_come_from(tmp_path):
    vision = folder(tmp_path / "secret" / "my-clip", config={"_name_or_path": "openai/clip"})
    text = folder(tmp_path / "secret" / "my-gpt2", card="---\nbase_model: openai-community/gpt2\n---\n")
    data = FlamingoModelCardData.from_model(tiny_flamingo(), vision_name=str(vision), text_name=str(text))
    data.save(tmp_path / "README.md")
    assert metadata_load(tmp_path / "README.md")["base_model"] == ["openai/clip", "openai-community/gpt2"]
    content = (tmp_path / "README.md").read_text()
    assert "loaded from a folder called my-gpt2, which was made from openai-community/gpt2." in content
    assert "secret" not in content


def test_a_saved_model_has_the_base_models_of_its_card(tmp_path):
    """The config of a saved model does not keep the names of local backbones."""
    tiny_flamingo().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nbase_model: [owner/clip, owner/gpt2]\n---\n")
    model = FlamingoModel.from_pretrained(tmp_path)
    assert FlamingoModelCardData.from_model(model).to_model_card().data.base_model == ["owner/clip", "owner/gpt2"]


@pytest.mark.parametrize(("repo_id", "expected"), [("me/mine", ["someone/flamingo"]), ("someone/flamingo", None)])
def test_a_model_of_the_hub_is_the_base_of_what_is_published(repo_id, expected):
    model = tiny_flamingo()
    model.config.name_or_path = "someone/flamingo"
    assert _make_card(model, repo_id).data.base_model == expected


def test_datasets_of_the_hub_are_known_by_their_files():
    dataset = Dataset.from_dict({"a": [1, 2]})
    assert find_dataset_names(dataset) == find_dataset_names([1]) == find_dataset_names(None) == []
    dataset.info.download_checksums = {
        "hf://datasets/owner/pairs@0123abc/data/train-00000.parquet": {"num_bytes": 3},
        "hf://datasets/owner/pairs@0123abc/data/train-00001.parquet": {"num_bytes": 3},
        "https://example.org/owner/file.parquet": {"num_bytes": 3},
    }
    assert find_dataset_names(dataset.map(lambda row: row)) == ["owner/pairs"]


def test_what_is_given_is_in_the_metadata_once():
    card = FlamingoModelCardData.from_model(
        tiny_flamingo(),
        base_model=["someone/flamingo", "someone/flamingo"],
        datasets=["owner/pages", "owner/pairs"],
        data_mixture=[{"name": "owner/pairs"}, {"name": "pages"}],
        tags=["flamingo", "mine"],
    ).to_model_card()
    data = ModelCard(card.content).data
    assert data.base_model == ["someone/flamingo"]
    assert data.datasets == ["owner/pairs", "owner/pages"]
    assert data.tags == ["flamingo", "vision-language", "few-shot", "mine"]
