# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Converted checkpoints reproduce the outputs of the peers' code: ids, image locations, logits and generated text."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo


GOLDEN = Path(__file__).parents[1] / "golden"
EVERY = 8  # interval of the positions whose logits are saved
VARIANTS = ["flamingo_mini/gpt2_every1", "flamingo_mini/opt_every2"]
VARIANTS += ["open_flamingo/gpt_neox_every2", "open_flamingo/mpt_every1"]


@pytest.fixture(scope="module", params=VARIANTS)
def golden(request, tmp_path_factory):
    """Convert a checkpoint of a peer, and return the model, its processor, and the cases: name -> (text, tensors)."""
    source = GOLDEN / request.param
    output_dir = tmp_path_factory.mktemp("converted") / source.name
    if source.parent.name == "flamingo_mini":
        options = {"vision": source / "vision_base", "text": source / "lm_base", "tokenizer": source / "tokenizer"}
        convert_flamingo_mini(source / "hf", output_dir, **options)
    else:
        options = {"vision": source / "vision_hf", "text": source / "lm_frozen", "tokenizer": source / "tokenizer"}
        every = int(source.name[-1])
        convert_open_flamingo(source / "checkpoint.pt", output_dir, **options, cross_attention_every_n_layers=every)
    cases = {name: (text, {}) for name, text in json.loads((source / "texts.json").read_text()).items()}
    for key, tensor in load_file(source / "cases.safetensors").items():
        name, _, kind = key.partition(".")
        cases[name][1][kind] = tensor
    return (
        AutoModelForImageTextToText.from_pretrained(output_dir).eval(),
        AutoProcessor.from_pretrained(output_dir),
        cases,
    )


def images_of(model, case):
    """Return the pixels and the mask of real images. The peers pad with images that have no marker in the text."""
    pixels = case["pixel_values"] if "pixel_values" in case else case.get("vision_x")
    if pixels is None:
        return {}
    if "vision_x" in case:
        pixels = pixels.squeeze(2)  # (B, N, 1, C, H, W)
    ids = torch.tensor(model.config.image_token_ids or [model.config.image_token_id])
    counts = (torch.isin(case["input_ids"], ids) & case["attention_mask"].bool()).sum(dim=1, keepdim=True)
    if not counts.any():
        return {}
    mask = torch.arange(pixels.shape[1]) < counts
    return {"pixel_values": pixels, "frame_attention_mask": mask.long()}


def test_the_processor_gives_the_ids_of_the_peer(golden):
    _, processor, cases = golden
    for name, (text, case) in cases.items():
        side = "right" if case["attention_mask"][:, -1].min() == 0 else "left"
        batch = processor(text=text, padding=True, padding_side=side, return_tensors="pt")
        assert torch.equal(batch["input_ids"], case["input_ids"]), name
        assert torch.equal(batch["attention_mask"], case["attention_mask"]), name


def test_images_are_located_where_the_peer_locates_them(golden):
    """flamingo-mini locates one at every `<`."""
    model, processor, cases = golden
    assert model.config.image_token_ids == (processor.image_token_ids if processor.image_token_is_text else None)
    ids = torch.tensor(processor.image_token_ids)
    located = [case for _, case in cases.values() if "media_locations" in case]
    assert len(located) >= 7
    for case in located:
        assert torch.equal(torch.isin(case["input_ids"], ids), case["media_locations"].bool())


def test_logits_are_those_of_the_peer(golden):
    model, _, cases = golden
    for name, (_, case) in cases.items():
        with torch.no_grad():
            logits = model(case["input_ids"], case["attention_mask"], **images_of(model, case)).logits
        is_text = case["attention_mask"][:, ::EVERY].bool()
        torch.testing.assert_close(
            logits[:, ::EVERY][is_text],
            case["logits"][is_text],
            atol=1e-4,
            rtol=0,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def test_greedy_text_is_that_of_the_peer(golden):
    model, _, cases = golden
    generated = [(name, case) for name, (_, case) in cases.items() if "greedy_ids" in case]
    assert len(generated) >= 6
    for name, case in generated:
        num_new = case["greedy_ids"].shape[1] - case["input_ids"].shape[1]
        ids = model.generate(
            input_ids=case["input_ids"],
            attention_mask=case["attention_mask"],
            **images_of(model, case),
            max_new_tokens=num_new,
            do_sample=False,
        )
        assert torch.equal(ids, case["greedy_ids"]), name


def test_the_image_matters(golden):
    model, _, cases = golden
    case = cases["one_image"][1]
    images = images_of(model, case)
    with torch.no_grad():
        seen = model(case["input_ids"], **images).logits
        images["pixel_values"] = images["pixel_values"].flip(-1) + 0.5
        other = model(case["input_ids"], **images).logits
    assert (seen - other).abs().max() > 0.1
