# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a vision encoder with captions."""

import json

import pytest
import torch
from factory import IMAGE_SIZE, tiny_tokenizer
from PIL import Image
from pretraining_runs import GPT2, logged, training, write_texts
from runs import TOWERS, png, write_pairs
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo.data import BadSampleError
from transformers_flamingo.pretraining import (
    TextPretrainingArguments,
    VisionPretrainingArguments,
    pretrain_text,
    pretrain_vision,
)


def clip_model(**kwargs) -> CLIPModel:
    """Make a model for the tokenizer of the factory, whose end-of-sequence token is 2."""
    config = CLIPModel.config_class(
        text_config=CLIPTextConfig(**{**TOWERS["text_config"], "vocab_size": 99, **kwargs}).to_dict(),
        vision_config=CLIPVisionConfig(**TOWERS["vision_config"]).to_dict(),
        projection_dim=16,
    )
    return CLIPModel(config)


def test_pretrained_backbones_make_a_flamingo(tmp_path, pairs):
    vision, text = tmp_path / "vision", tmp_path / "text"
    given = training(vision, learning_rate=1e-3, max_steps=90)
    trained = pretrain_vision(VisionPretrainingArguments(data_path=pairs, **TOWERS), given)
    assert given.remove_unused_columns
    losses = logged(trained)
    assert losses[0] > 2.5 and losses[-1] < 0.5 * losses[0]
    tower = AutoModel.from_pretrained(vision)
    assert type(tower) is CLIPVisionModel
    state = trained.model.vision_model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tower.state_dict().items())

    arguments = TextPretrainingArguments(
        data_path=write_texts(tmp_path / "texts.jsonl"), text_config=GPT2, block_size=48, vocab_size=320
    )
    losses = logged(pretrain_text(arguments, training(text, max_steps=100)))
    assert losses[0] > 5 and losses[-1] < 0.5 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(text)
    prompt = tokenizer("the number 7 comes after the", return_tensors="pt")
    generated = AutoModelForCausalLM.from_pretrained(text).generate(**prompt, max_new_tokens=40, do_sample=False)
    # The model learned to end its texts
    assert tokenizer.decode(generated[0]).endswith(".<|endoftext|>")

    flamingo = FlamingoModel.from_vision_text_pretrained(str(vision), str(text))
    processor = FlamingoProcessor.from_vision_text_pretrained(vision, text)
    picture = Image.new("RGB", (2 * IMAGE_SIZE, IMAGE_SIZE), (200, 0, 0))
    inputs = processor(images=[[picture]], text=["<image>the number"], return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE)
    assert flamingo(**inputs).logits.isfinite().all()


def test_training_starts_from_pretrained_parts(tmp_path, pairs):
    """With a learning rate of 0, the weights are those of the pretrained parts."""
    two_towers = clip_model(eos_token_id=97)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    two_towers.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, do_center_crop=False).save_pretrained(tmp_path / "clip")

    def run(name, **kwargs):
        arguments = VisionPretrainingArguments(data_path=pairs, max_length=8, **kwargs)
        return pretrain_vision(arguments, training(tmp_path / name, max_steps=1, learning_rate=0.0))

    clip = str(tmp_path / "clip")
    whole = run("a", vision=clip, text=clip).model
    assert torch.equal(whole.visual_projection.weight, two_towers.visual_projection.weight)
    joined = run("b", vision=clip, text_config=TOWERS["text_config"], vocab_size=300).model
    assert joined.projection_dim == 512
    for name, model in (("a", whole), ("b", joined)):
        for key, tensor in two_towers.vision_model.state_dict().items():
            assert torch.equal(model.vision_model.state_dict()[key], tensor), key
        assert json.loads((tmp_path / name / "preprocessor_config.json").read_text())["do_center_crop"] is False


def test_parts_that_do_not_fit_are_refused(tmp_path, pairs):
    def vision(message, error=ValueError, batch_size=6, **kwargs):
        arguments = VisionPretrainingArguments(**{"data_path": pairs, **TOWERS, **kwargs})
        with pytest.raises(error, match=message):
            pretrain_vision(arguments, training(tmp_path / "o", per_device_train_batch_size=batch_size))

    vision("12 rows and 13 in a batch", batch_size=13)
    vision("`per_device_train_batch_size` is 1, but a caption is contrasted with the others", batch_size=1)
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    vision("The vision tower is a resnet, whose configuration has no `hidden_size`", vision_config=resnet)
    vision("the text tower has 16 positions", max_length=17)
    vision("but the model embeds 20", text_config={**TOWERS["text_config"], "vocab_size": 20})
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    # With an `eos_token_id` of 2, CLIP reads the caption at the token with the highest id
    vision(
        "ends captions with token 2, but the text tower reads them at token 96", tokenizer=str(tmp_path / "tokenizer")
    )
    broken = write_pairs(tmp_path / "broken", 6, broken=(2,))
    vision("metadata.jsonl, row 2: .*cannot be decoded", BadSampleError, data_path=broken)
    document = {"parts": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "w5"}] * 2}
    (tmp_path / "parts.jsonl").write_text((json.dumps(document) + "\n") * 6)
    (tmp_path / "0.png").write_bytes(png(0))
    vision(
        "2 images or videos with text", BadSampleError, data_path=str(tmp_path / "parts.jsonl"), data_format="parts"
    )
