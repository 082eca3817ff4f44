# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuned backbones: the weights of the checkpoint are converted, and only equal ones count as frozen."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peers import GPT2, GPT_NEOX, LLAMA, MPT, OPT, open_clip_keys, rewrite, write_open_flamingo
from transformers import AutoModelForImageTextToText

from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo


TRAINED, FROZEN = "trained, unlike `vision`", "frozen, equal to `vision`"


def layout(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a vision encoder as a checkpoint has it, in the layout `name`."""
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(7), "token_embedding.weight": torch.ones(9, 7)}
    text |= {"positional_embedding": torch.ones(5, 7), "logit_scale": torch.ones(())}
    keys = {
        "transformers": lambda: state,
        "transformers 4": lambda: {f"vision_model.{name}": tensor for name, tensor in state.items()},
        "CLIPModel": lambda: {
            **{f"vision_model.{name}": tensor for name, tensor in state.items()},
            "text_model.final_layer_norm.weight": torch.ones(7),
            "visual_projection.weight": torch.ones(16, 24),
            "logit_scale": torch.ones(()),
        },
        "open_clip": lambda: open_clip_keys(state),
        "open_clip, both": lambda: {f"visual.{key}": value for key, value in open_clip_keys(state).items()} | text,
    }[name]()
    return {f"vision_encoder.{key}": value.clone() for key, value in keys.items()}


LAYOUTS = ["transformers", "transformers 4", "CLIPModel", "open_clip", "open_clip, both"]


def vision_of(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForImageTextToText.from_pretrained(directory).vision_model.state_dict()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_fine_tuned_vision_encoder_is_converted(tmp_path, caplog, name):
    files = write_open_flamingo(tmp_path, *GPT2)
    # All numbers differ, so that no two weights can be swapped
    trained = {k: v + torch.rand_like(v) for k, v in files.model.vision_model.state_dict().items()}
    rewrite(files.checkpoint, lambda keys: keys | layout(name, trained))
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert table == convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options, dry_run=True)
    converted = vision_of(tmp_path / "out")
    assert converted.keys() == trained.keys()
    assert all(torch.equal(converted[key], trained[key]) for key in trained)
    assert {row.target for row in table if row.reason == TRAINED} == {f"vision_model.{key}" for key in trained}
    assert f"{len(trained)} of the {len(trained)} tensors of the checkpoint's vision encoder differ" in caplog.text
    assert "The vision encoder was fine-tuned" in ModelCard.load(tmp_path / "out" / "README.md").text


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_equal_vision_encoder_is_frozen(tmp_path, caplog, name):
    files = write_open_flamingo(tmp_path, *GPT2)
    state = files.model.vision_model.state_dict()
    rewrite(files.checkpoint, lambda keys: keys | layout(name, state))
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    reasons = Counter(row.reason for row in table if row.source.startswith("vision_encoder."))
    assert reasons[FROZEN] == len(state) and reasons[TRAINED] == reasons["converted"] == 0
    assert all(row.target is None for row in table if row.reason == FROZEN)
    assert all(torch.equal(tensor, state[key]) for key, tensor in vision_of(tmp_path / "out").items())
    assert "fine-tuned" not in caplog.text + ModelCard.load(tmp_path / "out" / "README.md").text


def test_a_fine_tuned_part_is_converted_and_the_rest_is_that_of_vision(tmp_path):
    """Some trainers save only the parameters that require a gradient."""
    files = write_open_flamingo(tmp_path, *GPT2)
    state = files.model.vision_model.state_dict()
    part = {key: value + 1 for key, value in state.items() if ".layers.1." in key}
    equal = {key: value for key, value in state.items() if ".layers.0." in key}
    rewrite(files.checkpoint, lambda keys: keys | {f"vision_encoder.{k}": v for k, v in (part | equal).items()})
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    reasons = Counter(row.reason for row in table)
    assert (reasons[TRAINED], reasons[FROZEN]) == (len(part), len(equal)) == (16, 16)
    assert all(torch.equal(tensor, (state | part)[key]) for key, tensor in vision_of(tmp_path / "out").items())


def test_an_encoder_saved_in_half_precision_is_equal_to_its_original_in_float32(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    state = files.model.vision_model.state_dict()
    rewrite(files.checkpoint, lambda keys: keys | {f"vision_encoder.{k}": v.bfloat16() for k, v in state.items()})
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert Counter(row.reason for row in table)[FROZEN] == len(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in vision_of(tmp_path / "out").items())


@pytest.mark.parametrize("family", [GPT2, OPT, LLAMA, MPT, GPT_NEOX], ids=lambda family: family[0])
def test_a_fine_tuned_language_model_is_converted(tmp_path, family):
    files = write_open_flamingo(tmp_path, *family)
    model = files.model.language_model
    trained = {k: v + torch.rand_like(v) for k, v in model.state_dict().items()}
    trained = {
        k: trained["model.decoder.embed_tokens.weight"] if k == "lm_head.weight" and family is OPT else v
        for k, v in trained.items()
    }
    if family[0] in ("gpt2", "mpt"):  # tied
        trained["lm_head.weight"] = trained["transformer.wte.weight"]
    layers = family[1]
    peer = {
        key.replace("lm_head.", "embed_out.") if family is GPT_NEOX else key: value for key, value in trained.items()
    }
    peer = {
        key.replace(f"{layers}.{i}.", f"{layers}.{i}.decoder_layer."): value.clone()
        for key, value in peer.items()
        for i in [key.removeprefix(f"{layers}.").partition(".")[0]]
    }
    rewrite(files.checkpoint, lambda keys: keys | {f"lang_encoder.{key}": value for key, value in peer.items()})
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    converted = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").language_model.state_dict()
    assert all(torch.equal(converted[key], trained[key]) for key in trained) and converted.keys() == trained.keys()
    assert {row.source for row in table if row.target and row.target.startswith("language_model.")} == {
        f"lang_encoder.{key}" for key in peer
    }
    assert "The language model was fine-tuned" in ModelCard.load(tmp_path / "out" / "README.md").text


GOLDEN = Path(__file__).parents[1] / "golden" / "flamingo_mini" / "gpt2_every1"


def test_backbones_of_flamingo_mini_are_always_those_of_the_checkpoint(tmp_path):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    weights = torch.load(tmp_path / "hf" / "pytorch_model.bin", weights_only=True)
    changed = {key for key, value in weights.items() if value.is_floating_point()}
    changed = {key for key in changed if key.startswith(("flamingo.vision_encoder.", "flamingo.lm."))}
    changed = {key for key in changed if "xattn_block" not in key and not key.endswith(("masked_bias", "attn.bias"))}
    weights |= {key: weights[key] + torch.rand_like(weights[key]) for key in changed}
    torch.save(weights, tmp_path / "hf" / "pytorch_model.bin")
    options = {"vision": GOLDEN / "vision_base", "text": GOLDEN / "lm_base", "tokenizer": GOLDEN / "tokenizer"}
    table = convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **options)
    state = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    rows = [row for row in table if row.source in changed]
    assert {row.source for row in rows} == changed and len(changed) > 20
    assert all(row.reason == "converted" and torch.equal(state[row.target], weights[row.source]) for row in rows)
