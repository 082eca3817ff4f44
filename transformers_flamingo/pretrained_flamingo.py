# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Joining two pretrained backbones, and loading and saving a whole model: special tokens, quantization, whole folders.
"""

import copy
import functools
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, create_repo
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import logging
from transformers.utils.loading_report import log_state_dict_report
from transformers.utils.quantization_config import GgufConfig, QuantizationConfigMixin

from .backbone_files_flamingo import FILE_ARGUMENTS, check_kind, read_backbone_config
from .chat_templates_flamingo import find_end_of_turn
from .configuration_flamingo import FlamingoConfig, as_layer_list, find_width
from .language_models_flamingo import check_text_config, take_language_model
from .saving_flamingo import update_folder
from .tokenizers_flamingo import load_tokenizer
from .vision_encoders_flamingo import measure_width


logger = logging.get_logger(__name__)


# Names that a quantization config must skip so that it quantizes the decoder of the language model only. Quantizers match
# prefixes, suffixes and regular expressions against names of modules or of their weights. The direct children of a language
# model are its decoder and its head; the heads of BERT and its relatives are deeper.
_UNQUANTIZED_MODULES = [
    "vision_model",
    "resampler",
    "gated_cross_attention",
    "score",
    r"language_model\.[^.]+(\.weight|\.bias)?$",
    r"language_model\.(lm_head|cls|generator_predictions)",
]
# In each card that transformers makes from its template, in which nothing is filled in.
_STOCK_CARD = "This model card has been automatically generated."
# Attributes that hold this list in the quantization configs of different libraries.
_SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert")


def _quantize_only_the_decoder(quantization_config: QuantizationConfigMixin | dict) -> QuantizationConfigMixin:
    """
    Return a copy that quantizes the decoder of the language model only.

    The names that it skips already may be relative to the language model, as users know them, or to the whole model.
    """
    if isinstance(quantization_config, dict):
        quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
    quantization_config = copy.deepcopy(quantization_config)
    for name in _SKIP_LISTS:
        if hasattr(quantization_config, name):
            given = getattr(quantization_config, name) or []
            inside = [f"language_model.{key}" for key in given if not key.startswith("language_model")]
            names = [*_UNQUANTIZED_MODULES, *given, *inside]
            setattr(quantization_config, name, list(dict.fromkeys(names)))
    return quantization_config


def _load_backbone(auto_class: type, name_or_path: str | os.PathLike, kwargs: dict[str, Any]) -> PreTrainedModel:
    """Load a backbone, and check that no weight is missing: `from_pretrained` would leave it random, and then it is frozen."""
    model, info = auto_class.from_pretrained(name_or_path, **kwargs, output_loading_info=True)
    # A checkpoint of a classifier has no pooler, and none is used here.
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key.split(".")):
        raise ValueError(
            f"{str(name_or_path)!r} lacks {len(missing)} weights of its model, such as {missing[0]}. They would be random. Use the "
            "config.json that was saved with these weights, or fetch the model again."
        )
    return model


def _load_language_model(name_or_path: str | os.PathLike, kwargs: dict[str, Any]) -> PreTrainedModel:
    """Load a causal language model: a plain one, or the one inside a multimodal model; as ordinary weights from a GGUF file."""
    if kwargs.get("gguf_file") is not None:
        # Otherwise the model says that it is quantized, whether it is or not, and cannot be saved
        kwargs = {"quantization_config": GgufConfig(dequantize=True), **kwargs}
    loaded = _load_backbone(AutoModelForCausalLM, name_or_path, kwargs)
    language_model = take_language_model(loaded)
    if language_model is not loaded and getattr(loaded, "hf_quantizer", None) is not None:
        raise ValueError(
            f"{str(name_or_path)!r} is a {type(loaded).__name__}, of which the language model inside is used, and it cannot be quantized "
            "while it is taken out. Join it without `text_quantization_config`, save the Flamingo, and quantize that: "
            "`FlamingoModel.from_pretrained(DIRECTORY, quantization_config=...)`."
        )
    return language_model


def split_backbone_arguments(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """
    Split arguments into fields of [`FlamingoConfig`] and those of the vision encoder and of the language model.

    The latter begin with `vision_` and `text_`, and are returned without it.
    """
    names, of_backbones = {f.name for f in fields(FlamingoConfig)}, {"vision": {}, "text": {}}
    rest = {}
    for key, value in kwargs.items():
        role, _, name = key.partition("_")
        target = of_backbones[role] if role in of_backbones and name and key not in names else None
        if target is None:
            rest[key] = value
        else:
            target[name] = value
    return rest, of_backbones["vision"], of_backbones["text"]


def join_configs(vision_model: PreTrainedModel | None, text_config: PreTrainedConfig, **kwargs) -> FlamingoConfig:
    """
    Join the configurations of two backbones. The width of the vision features is that of the vision encoder.

    Args:
        vision_model (`PreTrainedModel`, *optional*): The vision encoder, which may be on the device `meta`.
        text_config (`PreTrainedConfig`): Of the language model.
        kwargs: Other fields of [`FlamingoConfig`].
    """
    vision_config = None if vision_model is None else vision_model.config
    if vision_model is not None and kwargs.get("vision_hidden_size") is None:
        layers = as_layer_list(kwargs.get("vision_feature_layer"))
        # By default, what the configuration says, so that it is checked against the encoder
        kwargs["vision_hidden_size"] = find_width(vision_config, layers) or measure_width(vision_model, layers)
    return FlamingoConfig.from_vision_text_configs(vision_config, text_config, **kwargs)


def _file_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that say where files are."""
    return {name: kwargs[name] for name in FILE_ARGUMENTS if name in kwargs}


def _special_token_ids(
    text_model_name_or_path: str, vocab_size: int, given: dict[str, Any], file_arguments: dict[str, Any]
) -> tuple[dict[str, int], int | None]:
    """
    Find the ids that the processor gives to `<|endofchunk|>`, `<image>` and, where there is no padding token, `<PAD>`; and the
    id of the token that ends an answer in the tokenizer's chat template.

    They are those of the tokenizer if it has them, else the next free ones. The model needs a row for each. Ids in `given`
    are kept.
    """
    end_of_turn_id = None
    try:
        tokenizer = load_tokenizer(text_model_name_or_path, **file_arguments)
        end_of_turn = find_end_of_turn(tokenizer, tokenizer.chat_template)
        end_of_turn_id = None if end_of_turn is None else tokenizer.convert_tokens_to_ids(end_of_turn)
        vocabulary, free = tokenizer.get_vocab(), len(tokenizer)
        needs_pad = "pad_token" not in tokenizer.special_tokens_map
    except (OSError, ValueError):
        vocabulary, free, needs_pad = {}, 0, False
    has_ids = "image_token_id" in given or "end_of_chunk_token_id" in given
    # Where there are no tokenizer files, some tokenizer classes start with an empty vocabulary instead of failing.
    if 2 * free < vocab_size:
        vocabulary, free, needs_pad, end_of_turn_id = {}, vocab_size, False, None
        if not has_ids:
            logger.warning(
                f"No tokenizer was found at {text_model_name_or_path}, so `<|endofchunk|>` and `<image>` get the ids "
                f"{free} and {free + 1}, after all rows of the language model. If your tokenizer has other ids for "
                "them, pass `image_token_id` and `end_of_chunk_token_id`."
            )
    ids = {}
    # The order in which FlamingoProcessor adds them.
    for name, token in (("end_of_chunk_token_id", "<|endofchunk|>"), ("image_token_id", "<image>")):
        ids[name] = given.get(name) if has_ids else vocabulary.get(token, free)
        free = max(free, 1 + (ids[name] or 0))
    if needs_pad:
        ids["pad_token_id"] = free
    return ids, end_of_turn_id


class FlamingoPretrainedMixin:
    """
    Loading, saving and publishing of a [`FlamingoModel`]: `from_pretrained`, `from_vision_text_pretrained`, `save_pretrained`
    and `push_to_hub`.

    Attributes:
        make_card (`Callable[[FlamingoModel, str], ModelCard]`, *optional*):
            Makes the card that is published with a model in a repository of this name. The package sets it; code that travels with a checkpoint has none.
    """

    make_card: Callable[[PreTrainedModel, str], ModelCard] | None = None

    @classmethod
    def from_pretrained(cls, *args, quantization_config: QuantizationConfigMixin | dict | None = None, **kwargs):
        """
        Load a model as [`PreTrainedModel.from_pretrained`] does.

        A `quantization_config` quantizes the decoder of the language model only, except for the modules that it names
        itself. The head, the vision encoder, the resampler and the gated blocks keep their precision.

        Raises:
            ValueError: the quantization cannot skip modules.
        """
        if quantization_config is not None:
            quantization_config = _quantize_only_the_decoder(quantization_config)
            if not any(hasattr(quantization_config, name) for name in _SKIP_LISTS):
                raise ValueError(
                    f"{type(quantization_config).__name__} has no list of modules to skip, so it would also "
                    "quantize the gated blocks, which are trained, and the vision encoder. Use BitsAndBytesConfig, "
                    "TorchAoConfig or QuantoConfig."
                )
            kwargs["quantization_config"] = quantization_config
        return super().from_pretrained(*args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """
        Save the model as `PreTrainedModel.save_pretrained` does, with two differences.

        Parameters keep their own names. The stock method gives those of some language models the names of older
        releases (GPT-NeoX: `embed_out`). [`~FlamingoModel.from_pretrained`] reads either, but a `Trainer` that resumes
        would ignore them with a warning.

        The new files replace those of an earlier model only when all are written. A process that is killed leaves the
        earlier model, or a folder without `config.json`, which does not load. It never leaves the configuration of one
        model with the weights of another.

        Raises:
            OSError: the folder cannot be written, or there is a file of that name. Its content does not change then.
        """
        if any(rows is not None and not rows.is_view for rows in (self.input_token_rows, self.output_token_rows)):
            state_dict = self.merge_token_rows(self.state_dict() if state_dict is None else state_dict)
        self.update_feature_config()
        kwargs.setdefault("save_original_format", False)
        save = functools.partial(
            super().save_pretrained, is_main_process=is_main_process, state_dict=state_dict, push_to_hub=push_to_hub
        )
        # Shards are written by all processes at once, into the folder itself.
        if kwargs.get("distributed_checkpoint") or not self.should_save_on_this_rank(is_main_process):
            save(save_directory, **kwargs)
            return
        if push_to_hub:
            kwargs.setdefault("repo_id", os.path.basename(os.path.normpath(save_directory)))
            if is_main_process:
                self._publish_card(**kwargs)
        with update_folder(save_directory) as partial:
            save(partial, **kwargs)

    def push_to_hub(self, repo_id: str, *args, **kwargs) -> Any:
        """
        Publish the model as `PreTrainedModel.push_to_hub` does, with a card that says what it is.

        A card that the repository has already stays as it is, unless it is the empty one of transformers.
        """
        self._publish_card(repo_id, **kwargs)
        return super().push_to_hub(repo_id, *args, **kwargs)

    def _publish_card(
        self,
        repo_id: str,
        token: str | bool | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        **_: Any,
    ) -> None:
        """Publish the card of the model, unless the repository has one. The stock method, which comes next, keeps it."""
        # A pull request is for a repository of others, in whose main branch nothing is to be written
        if self.make_card is None or create_pr:
            return
        repo_id = create_repo(repo_id, token=token, private=private, exist_ok=True).repo_id
        try:
            if _STOCK_CARD not in ModelCard.load(repo_id, token=token).text:
                return
        except EntryNotFoundError:
            pass
        self.make_card(repo_id).push_to_hub(repo_id, token=token, commit_message="Upload the model card")

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | None,
        text_model_name_or_path: str,
        **kwargs,
    ) -> Self:
        """
        Join two pretrained backbones. Resampler and gated blocks are new and must be trained. Until then the model
        computes exactly what the language model does.

        The embeddings of the language model are resized to hold `<|endofchunk|>` and `<image>`, and the `<PAD>` that
        [`FlamingoProcessor`] adds to a tokenizer without one. New rows are drawn around the mean of the old ones (the
        default of `resize_token_embeddings`).

        Args:
            vision_model_name_or_path (`str`, *optional*):
                Name or directory of the vision encoder. Of a two-tower model, such as CLIP, the vision tower is used.
                `None` makes a model without one, which needs `vision_hidden_size`.
            text_model_name_or_path (`str`):
                Name or directory of the causal language model. Of a multimodal model, such as Gemma 3, the language model
                inside is used.
            kwargs:
                `vision_*` and `text_*` go to the `from_pretrained` of that backbone without their prefix, such as
                `text_quantization_config`, or `text_gguf_file`, the name of a GGUF file in `text_model_name_or_path`, whose
                weights become ordinary ones ([`FlamingoProcessor.from_vision_text_pretrained`] needs it too); `dtype` is the
                dtype of the whole model (default: the language model's);
                the rest are fields of [`FlamingoConfig`]. By default `image_token_id` and `end_of_chunk_token_id` are those
                that [`FlamingoProcessor`] adds to the tokenizer at `text_model_name_or_path`. Without a tokenizer there,
                they come after the last row of the embeddings.

        Returns:
            [`FlamingoModel`] in evaluation mode. Nothing is frozen: see [`~FlamingoModel.freeze_backbones`].

        Raises:
            ValueError: a backbone does not fit.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        kwargs, of_vision, of_text = split_backbone_arguments(kwargs)
        for target in (of_vision, of_text):
            if dtype is not None:
                target.setdefault("dtype", dtype)

        text_files = _file_arguments(of_text)
        if "config" not in of_text:  # before the weights of the vision encoder are read
            text_config = read_backbone_config(text_model_name_or_path, "text", text_files)
            check_text_config(text_config)
            check_kind(text_model_name_or_path, "text", text_config)
        vision_model = None
        if vision_model_name_or_path is not None:
            vision_files = _file_arguments(of_vision)
            vision_config = read_backbone_config(vision_model_name_or_path, "vision", vision_files)
            check_kind(vision_model_name_or_path, "vision", vision_config)
            vision_config = getattr(vision_config, "vision_config", vision_config)
            vision_model = _load_backbone(AutoModel, vision_model_name_or_path, {"config": vision_config, **of_vision})

        language_model = _load_language_model(text_model_name_or_path, of_text)
        text_config = language_model.config
        token_ids, end_of_turn_id = _special_token_ids(
            text_model_name_or_path, text_config.vocab_size, kwargs, text_files
        )
        kwargs = {**token_ids, **kwargs}
        ids = [kwargs.get(name) for name in ("image_token_id", "end_of_chunk_token_id", "pad_token_id")]
        num_rows = 1 + max(token_id or 0 for token_id in ids)
        if num_rows > language_model.get_input_embeddings().weight.shape[0]:
            language_model.resize_token_embeddings(num_rows)

        config = join_configs(vision_model, text_config, **kwargs)
        model = cls(config, vision_model=vision_model, language_model=language_model)
        for part in model.children():
            if part is not language_model:
                part.to(language_model.device, language_model.dtype)
        if getattr(language_model, "hf_quantizer", None) is not None:
            model._adopt_quantization()
        # Not every instruct model names the end of its turns in its generation config
        if model.can_generate() and end_of_turn_id not in (None, *model.generation_config.eos_token_id):
            model.generation_config.eos_token_id.append(end_of_turn_id)
        return model.eval()

    def load_adapter(self, *args, **kwargs) -> Any:
        """Load adapters of PEFT, without a warning about the new rows of a tied head: they are saved once, as those of the embeddings."""
        held: list[Any] = []
        reporter = logging.get_logger("transformers.integrations.peft")

        def hold(record: Any) -> bool:
            held.extend([record] if (is_report := "LOAD REPORT" in record.getMessage()) else [])
            return not is_report

        reporter.addFilter(hold)
        try:
            info = super().load_adapter(*args, **kwargs)
        except Exception:
            for record in held:  # its details
                logger.handle(record)
            raise
        finally:
            reporter.removeFilter(hold)
        tied = [name for name, module in self.named_modules() if getattr(module, "tied_adapter", None) is not None]
        info.missing_keys = {
            key for key in info.missing_keys if not key.startswith(tuple(f"{name}." for name in tied))
        }
        log_state_dict_report(
            model=self,
            pretrained_model_name_or_path=str(args[0] if args else kwargs.get("peft_model_id")),
            ignore_mismatched_sizes=True,  # otherwise it was raised already
            loading_info=info,
            logger=logger,
        )
        return info

    def _adopt_quantization(self) -> None:
        """Copy the quantization attributes to the composite model, where saving, loading, Trainer and PEFT expect them."""
        quantizer, text_config = self.language_model.hf_quantizer, self.config.text_config
        quantizer.quantization_config = _quantize_only_the_decoder(quantizer.quantization_config)
        self.config.quantization_config = quantizer.quantization_config
        del text_config.quantization_config
        for name in ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_8bit", "is_loaded_in_4bit"):
            if hasattr(self.language_model, name):
                setattr(self, name, getattr(self.language_model, name))
