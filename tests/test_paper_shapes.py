# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Count the parameters of the paper's models (Alayrac et al. 2022) on the meta device.

Layers `L`, width `D` and heads `H`. A feed-forward has `4 D` hidden units. The values of 3B are quoted from the paper in the
wiki of flamingo-mini ("Model Configurations"). For 9B and 80B, widths and heads are Chinchilla's, and the numbers of layers
and blocks follow from the paper's counts and its "every fourth" and "every seventh" layer.

|     | resampler, L D H | gated blocks, L D H | language model, L D H | resampler | ours   | gated blocks | ours  |
|-----|------------------|---------------------|-----------------------|-----------|--------|--------------|-------|
| 3B  | 6 1536 16        | 24 2048 16          | 24 2048 16            | 194M      | 188.9M | 1.2B         | 1.16B |
| 9B  | 6 1536 16        | 8 4096 32           | 32 4096 32            | 194M      | 188.9M | 1.6B         | 1.44B |
| 80B | 6 1536 16        | 12 8192 64          | 80 8192 64            | 194M      | 188.9M | 10B          | 8.36B |

These facts are not public or do not follow from the dimensions:

- Width of a head. It is 128 here throughout, as in that wiki. In the resampler `D / H` would be 96, which gives 170.0M and
  is further away.
- Resampler: 4.7M are missing, the size of one projection of features from width 3072 to 1536. The paper mentions none.
- Gated blocks: the paper's three counts are `12 D^2` per block, so keys and values are projected from vectors of width `D`.
  Ours, like those of both peers, project them from the latents of width 1536: `8 D^2 + 2 D (D + 1536)`. The paper does not
  say how latents would get from 1536 to `D`. Counted in that way, our blocks have 1.21B, 1.61B and 9.66B parameters.
- Layers of the 7B language model. 32 layers match 7.1B parameters (`13 D^2` per layer with relative positions, which also
  gives 1.4B for 24 layers and 70B for 80 layers), and give 8 blocks with "every fourth" and 1.6B.
- Position of the first block. 12 blocks in 80 layers with "every seventh" need one before the first layer.
- Chinchilla's relative positions and NFNet are not in transformers, so a shape has no fields of the backbones.
"""

import pytest
import torch
from torch import nn

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.training import read_recipe
from transformers_flamingo.training.recipe_file import RECIPES


# layers and width of the language model, gated blocks, their parameters here, in the paper, and the paper's last digit
SHAPES = {
    "flamingo-3b": (24, 2048, 24, 1_157_824_560, 1.2e9, 0.1e9),
    "flamingo-9b": (32, 4096, 8, 1_442_971_664, 1.6e9, 0.1e9),
    "flamingo-80b": (80, 8192, 12, 8_355_446_808, 10e9, 1e9),
}
shapes = pytest.mark.parametrize("name", SHAPES)
RESAMPLER = 188_912_640


def build(name: str, directory, vision_hidden_size: int = 1536, **kwargs) -> FlamingoModel:
    """Build a model on the meta device, with the shape read from a custom recipe that is based on it."""
    (directory / "recipe.yaml").write_text(
        f"base: {RECIPES}/shapes/{name}.yaml\nvision: miniature\ntext: miniature\nuse_cpu: true\n"
        "data: {pairs: {format: image_text_pairs, path: pairs}}\n"
    )
    fields = read_recipe(directory / "recipe.yaml").model.model_config
    num_layers, width, *_ = SHAPES[name]
    text_config = {
        "model_type": "gpt_neox",
        "vocab_size": 32000,
        "num_hidden_layers": num_layers,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 128,
    }
    config = FlamingoConfig(text_config=text_config, vision_hidden_size=vision_hidden_size, **{**fields, **kwargs})
    with torch.device("meta"):
        return FlamingoModel(config)


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@shapes
def test_parameters_of_the_new_parts(name, tmp_path):
    model = build(name, tmp_path)
    _, _, num_blocks, expected, in_paper, last_digit = SHAPES[name]
    assert len(model.gated_cross_attention) == num_blocks
    assert count(model.resampler) == RESAMPLER
    assert round((count(model.resampler) + 3072 * 1536) / 1e6) == 194
    assert count(model.gated_cross_attention) == expected
    # With keys and values from vectors as wide as the text, the paper's counts to their last digit
    model = build(name, tmp_path, vision_hidden_size=SHAPES[name][1], resampler_num_layers=0)
    assert round(count(model.gated_cross_attention) / last_digit) == round(in_paper / last_digit)


def test_parameters_of_a_resampler_with_narrower_heads(tmp_path):
    assert count(build("flamingo-3b", tmp_path, resampler_head_dim=96).resampler) == 170_038_272


@pytest.mark.parametrize("kind", ["transformer", "mlp"])
def test_the_other_resamplers_are_as_large(kind, tmp_path):
    assert count(build("flamingo-3b", tmp_path, resampler_type=kind).resampler) == pytest.approx(RESAMPLER, rel=1e-3)
