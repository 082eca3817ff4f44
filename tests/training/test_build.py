# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The model of a recipe: which parameters are trained, and what is refused."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer

from transformers_flamingo.training import ModelArguments, build_model, parse_recipe
from transformers_flamingo.training.build import build_processor
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


def model_arguments(**values):
    source = {"format": "image_text_pairs", "path": "p"}
    values = {"vision": "miniature", "text": "miniature", **values}
    return parse_recipe({**values, "use_cpu": True, "data": {"a": source}}).model


def test_the_parameters_that_a_recipe_trains():
    def trained(**values) -> set[str]:
        model, _ = build_model(model_arguments(**values))
        return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}

    new = {"resampler", "gated_cross_attention"}
    assert trained() == new | {"input_token_rows"}
    assert trained(train_text=True) == new | {"language_model"}
    assert trained(train_vision=True) == new | {"input_token_rows", "vision_model"}
    model, _ = build_model(model_arguments(train_token_embeddings=False))
    assert not model.input_token_rows.trains_input


def test_layers_of_the_vision_encoder():
    for layers, factor in ((-2, 1), ([-2, -1], 2)):
        model, _ = build_model(model_arguments(model_config={"vision_feature_layer": layers}))
        assert model.config.vision_feature_layer == layers
        assert model.config.vision_hidden_size == factor * model.config.vision_config.hidden_size


def test_a_language_model_with_random_weights():
    model, _ = build_model(model_arguments(text_from_scratch=True))
    pretrained, _ = build_model(model_arguments())
    name = "transformer.h.0.attn.c_attn.weight"
    fresh, old = (m.language_model.get_parameter(name) for m in (model, pretrained))
    assert fresh.requires_grad and not torch.equal(fresh, old)
    assert fresh.std().item() == pytest.approx(model.config.text_config.initializer_range, rel=0.1)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight is embedding.weight


def test_the_chat_template(tmp_path):
    shutil.copytree(text_backbone_path(), tmp_path / "text")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "text")
    instruct = {"text": str(tmp_path / "text")}
    model, processor = build_model(model_arguments(**instruct))
    assert processor.chat_template.endswith(tokenizer.chat_template)
    eos = [processor.end_of_chunk_token_id, tokenizer.eos_token_id]
    assert sorted(set(model.generation_config.eos_token_id)) == sorted(eos)
    few_shot = build_processor(model_arguments(**instruct, chat_template="few_shot"))
    assert few_shot.has_few_shot_template
    few_shot.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    saved = {"vision": None, "text": None, "model": str(tmp_path / "model")}
    assert build_processor(model_arguments(**saved)).has_few_shot_template
    for values in ({}, saved):
        with pytest.raises(ValueError, match="`chat_template` is 'text', the language model's own, but .* has none"):
            build_processor(model_arguments(**values, chat_template="text"))
    with pytest.raises(ValueError, match="chat_template"):
        model_arguments(chat_template="alpaca")


def test_the_bit_depth(tmp_path):
    build_processor(model_arguments(bit_depth=12)).save_pretrained(tmp_path / "processor")
    model, processor = build_model(model_arguments(bit_depth=10))
    assert processor.bit_depth == 10
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(tmp_path / "processor").save_pretrained(tmp_path)
    saved = {"vision": None, "text": None, "model": str(tmp_path)}
    assert [build_processor(model_arguments(**saved, bit_depth=depth)).bit_depth for depth in (None, 14)] == [12, 14]
    with pytest.raises(ValueError, match="`bit_depth` is 17"):
        model_arguments(bit_depth=17)


@pytest.mark.parametrize("part", ["vision", "text", "model"])
def test_missing_weights_are_an_error_instead_of_random(tmp_path, part):
    if part == "model":
        model, processor = build_model(model_arguments())
        model.save_pretrained(tmp_path / part)
        processor.save_pretrained(tmp_path / part)
        values = {"vision": None, "text": None, "model": str(tmp_path / part)}
    else:
        whole = vision_backbone_path() if part == "vision" else text_backbone_path()
        shutil.copytree(whole, tmp_path / part)
        values = {part: str(tmp_path / part)}
    weights: Path = tmp_path / part / "model.safetensors"
    tensors = load_file(weights)
    missing = next(name for name in sorted(tensors) if "layers.0." in name or "h.0.attn" in name)
    del tensors[missing]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 weights .*such as .*would be random") as caught:
        build_model(model_arguments(**values))
    named = re.search(r"such as (\S+)\.", str(caught.value))[1]
    assert missing.endswith(named) or named.endswith(missing)


def test_a_field_that_a_backbone_does_not_accept_is_reported():
    with pytest.raises(ValueError, match="`model_config` has text_nope, and the backbone does not accept them"):
        build_model(model_arguments(model_config={"text_nope": 3}))


def test_a_folder_without_a_model_is_refused_before_its_processor_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json. Pass a folder that a complete Flamingo"):
        build_model(ModelArguments(model=str(tmp_path)))
