# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Build the model that a recipe trains."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from ..backbone_files_flamingo import check_kind
from ..modeling_flamingo import FlamingoModel
from ..pretrained_flamingo import join_configs, split_backbone_arguments
from ..processing_flamingo import FlamingoProcessor
from ..utils.hub_names import check_can_look_up
from ..utils.loading import TOKENIZER_OPTIONS, check_name, check_weights, load_partial, read_flamingo_config
from ..utils.partial_models import fetch_partial, find_partial, read_base, record_base
from ..utils.plugins import TEXT_BACKBONES, VISION_BACKBONES, plugin_path
from ..utils.redaction import explain
from ..vision_encoders_flamingo import build_vision_model, check_vision_model
from .adapters import lora_config
from .arguments import ModelArguments
from .recipe_file import suggest


if TYPE_CHECKING:
    from peft import LoraConfig


def build_model(arguments: ModelArguments) -> tuple[torch.nn.Module, FlamingoProcessor]:
    """
    Build the model of a recipe, with the parameters frozen that it does not train, and its processor.

    Args:
        arguments ([`ModelArguments`]): The model of the recipe.

    Returns:
        [`FlamingoModel`], or a `PeftModel` around it with `lora_rank`, and [`FlamingoProcessor`].

    Raises:
        ValueError: a model or a backbone cannot be used, or a field of `model_config` does not fit.
    """
    model, processor = _join_backbones(arguments) if arguments.model is None else _load_saved(arguments)
    if arguments.text_from_scratch:
        # From the configuration of the joined model, which has the rows of the new tokens already
        fresh = AutoModelForCausalLM.from_config(model.config.text_config)
        model.language_model.load_state_dict(fresh.state_dict())
    if arguments.lora_rank is not None:
        from peft import get_peft_model

        model = get_peft_model(model, _make_lora_config(model, arguments))
    else:
        model.freeze_backbones(train_token_embeddings=arguments.train_token_embeddings)
        model.unfreeze_backbones(
            vision_model=arguments.train_vision,
            language_model=arguments.train_text or arguments.text_from_scratch,
        )
    return model, processor


def build_processor(arguments: ModelArguments) -> FlamingoProcessor:
    """
    Build the processor of the model of a recipe. No weights are read.

    Args:
        arguments ([`ModelArguments`]): The model of the recipe.

    Raises:
        ValueError, OSError: a model or a backbone cannot be used.
    """
    if arguments.model is not None:
        name = fetch_partial(arguments.model)
        if find_partial(name) is None:  # which the processor of any other model would be loaded from
            read_flamingo_config(name)
        check_name(name)
        return _change_settings(AutoProcessor.from_pretrained(name), arguments)
    vision, text = find_backbone(arguments.vision, "vision"), find_backbone(arguments.text, "text")
    for name in (vision, text):  # after both were looked for on this machine
        check_can_look_up(name)
    model_config = arguments.model_config or {}
    options = {name: model_config[name] for name in TOKENIZER_OPTIONS if name in model_config}
    settings = {"chat_template": arguments.chat_template, "bit_depth": arguments.bit_depth}
    options |= {name: value for name, value in settings.items() if value is not None}
    return FlamingoProcessor.from_vision_text_pretrained(vision, text, **options)


def _change_settings(processor: FlamingoProcessor, arguments: ModelArguments) -> FlamingoProcessor:
    """Give a saved processor what the recipe sets, and return it."""
    if arguments.chat_template is not None:
        processor.set_chat_template(arguments.chat_template)
    if arguments.bit_depth is not None:
        processor.bit_depth = arguments.bit_depth
    return processor


def read_text_config(arguments: ModelArguments) -> PreTrainedConfig:
    """
    Read the configuration of the language model of a recipe. No weights are read.

    Args:
        arguments ([`ModelArguments`]): The model of the recipe.
    """
    if arguments.model is not None:
        name = fetch_partial(arguments.model)
        if find_partial(name) == "adapters":
            base = read_base(name)
            return read_text_config(ModelArguments(**{name: base.get(name) for name in ("model", "vision", "text")}))
        return AutoConfig.from_pretrained(name).get_text_config()
    changes = _text_changes(arguments)
    return AutoConfig.from_pretrained(find_backbone(arguments.text, "text"), **changes).get_text_config()


def _text_changes(arguments: ModelArguments) -> dict[str, Any]:
    return split_backbone_arguments(arguments.model_config or {})[2]


def check_model(arguments: ModelArguments, processor: FlamingoProcessor) -> None:
    """
    Check that the parts of a recipe's model fit: its backbones, and the fields of its configuration. No weights are read.

    The vision encoder is built on the device `meta`, to know what its layers return.

    Args:
        arguments ([`ModelArguments`]): The model of the recipe.
        processor ([`FlamingoProcessor`]): Its processor.

    Raises:
        ValueError: a backbone is of the wrong kind, or a field does not fit.
    """
    if arguments.model is not None:
        # What a part belongs to was checked when it was trained
        if find_partial(fetch_partial(arguments.model)) is not None:
            return
        config = AutoConfig.from_pretrained(arguments.model)
        vision_model = _build_without_weights(config.vision_config)
    else:
        fields_of_config, of_vision, _ = split_backbone_arguments(arguments.model_config or {})
        vision, text = find_backbone(arguments.vision, "vision"), find_backbone(arguments.text, "text")
        check_kind(text, "text", AutoConfig.from_pretrained(text, **_text_changes(arguments)))
        text_config = copy.deepcopy(read_text_config(arguments))
        text_config.vocab_size = max(text_config.vocab_size, len(processor.tokenizer))
        vision_config = AutoConfig.from_pretrained(vision, **of_vision)
        check_kind(vision, "vision", vision_config)
        vision_config = getattr(vision_config, "vision_config", vision_config)
        vision_model = _build_without_weights(vision_config)
        with _explaining_fields():
            config = join_configs(
                vision_model,
                text_config,
                image_token_id=processor.image_token_id,
                end_of_chunk_token_id=processor.end_of_chunk_token_id,
                **{name: value for name, value in fields_of_config.items() if not name.endswith("_token_id")},
            )
    check_vision_model(vision_model, config)


def _build_without_weights(vision_config: PreTrainedConfig | None) -> PreTrainedModel | None:
    if vision_config is None:
        return None
    with torch.device("meta"):
        return build_vision_model(vision_config)


@contextmanager
def _explaining_fields() -> Iterator[None]:
    """Name `model_config` in errors about the fields in it."""
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"`model_config` has a value that does not fit: {explain(error)}") from error


def find_backbone(name: str, kind: Literal["vision", "text"]) -> str:
    """
    Return the folder or Hub name of a backbone that a recipe names, and check its files if it is a folder.

    Args:
        name (`str`): Its name, folder or Hub name.
        kind (`str`): `"vision"` or `"text"`.

    Raises:
        ValueError, OSError: it does not exist, or its files are damaged.
    """
    path = plugin_path({"vision": VISION_BACKBONES, "text": TEXT_BACKBONES}[kind], name)
    check_name(path)
    return path


def _load_saved(arguments: ModelArguments) -> tuple[FlamingoModel, FlamingoProcessor]:
    folder = fetch_partial(arguments.model)
    content = find_partial(folder)
    if content is not None:
        if arguments.quantization is not None:
            raise ValueError(
                f"{arguments.model!r} has only {content}, which cannot be put into a quantized model. Merge them with their base "
                f"first: flamingo merge {arguments.model} NEW_FOLDER, and train NEW_FOLDER."
            )
        model, processor = load_partial(folder)
        record_base(model, model=arguments.model)
        return model, _change_settings(processor, arguments)
    processor = build_processor(arguments)
    quantization = _make_quantization_config(arguments.quantization)
    options = {} if quantization is None else {"quantization_config": quantization}
    model, info = FlamingoModel.from_pretrained(
        arguments.model, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    check_weights(arguments.model, info)
    record_base(model, model=arguments.model)
    return model, processor


def _join_backbones(arguments: ModelArguments) -> tuple[FlamingoModel, FlamingoProcessor]:
    vision, text = find_backbone(arguments.vision, "vision"), find_backbone(arguments.text, "text")
    processor = build_processor(arguments)
    options = {
        "image_token_id": processor.image_token_id,
        "end_of_chunk_token_id": processor.end_of_chunk_token_id,
        **(arguments.model_config or {}),
    }
    if arguments.quantization is not None:
        options["text_quantization_config"] = _make_quantization_config(arguments.quantization)
    try:
        with _explaining_fields():
            model = FlamingoModel.from_vision_text_pretrained(vision, text, **options)
    except (
        AttributeError,
        TypeError,
    ) as error:  # raised by the backbone, for a field that is passed on to it unchecked
        given = [name for name in arguments.model_config or {} if name.startswith(("vision_", "text_"))]
        if not given:
            raise
        raise ValueError(
            f"`model_config` has {', '.join(given)}, and the backbone does not accept them: {explain(error)}"
        ) from error
    given = arguments.model_config or {}
    fields_of_config = split_backbone_arguments(given)[0]
    of_backbones = {name: value for name, value in given.items() if name not in fields_of_config}
    record_base(model, vision=arguments.vision, text=arguments.text, options=of_backbones)
    return model, processor


def _make_lora_config(model: FlamingoModel, arguments: ModelArguments) -> "LoraConfig":
    """Make the configuration of the adapters. Names of layers that do not exist, which PEFT would ignore, are an error."""
    rank, alpha, targets = arguments.lora_rank, arguments.lora_alpha, arguments.lora_target_modules
    options = {
        "r": rank,
        "lora_alpha": 2 * rank if alpha is None else alpha,
        "lora_dropout": arguments.lora_dropout or 0.0,
    }
    if targets is None or targets == ["all-linear"]:
        return lora_config(model, **options)
    layers = [
        name for name, module in model.language_model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = {name.rpartition(".")[2] for name in layers}
            raise ValueError(
                f"`lora_target_modules` has {target!r}, which is not a linear layer of the language model, so it would get no "
                f"adapter.{suggest(target, known)}"
            )
    return lora_config(model, target_modules=targets, **options)


def _make_quantization_config(name: str | None) -> BitsAndBytesConfig | None:
    if name is None:
        return None
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    dtype = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
