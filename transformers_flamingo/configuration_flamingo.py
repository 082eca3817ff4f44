# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Configuration of a Flamingo model: numbers and names only.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import copy
import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Keywords that are not fields of the dataclass, but that transformers itself writes into a config or passes with it.
_STOCK_KEYWORDS = frozenset(
    {
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "experts_implementation",
        "gradient_checkpointing",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "quantization_config",
        "torch_dtype",
    }
)

# Fields of a vision encoder's configuration with the width of its features, or with those of its stages, of which the last
# counts. `neck_hidden_sizes` (MobileViT) comes before `hidden_sizes`, which there are those inside the blocks.
_WIDTHS = ("hidden_size", "neck_hidden_sizes", "hidden_sizes", "hidden_dim", "embed_dims", "d_model")
# Fields that only a configuration of stages has, each with features of a width and a resolution of its own.
_STAGES = ("depths", "hidden_sizes", "embed_dims", "embed_dim_per_stage", "blocks_per_stage")


def _make_divisible(value: float, divisor: int, minimum: int) -> int:
    """Round a number of channels as the MobileNets do: to a multiple, but not down by more than a tenth."""
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _width_of_mobilenet_v2(config: PreTrainedConfig) -> int:
    if config.finegrained_output and config.depth_multiplier < 1:
        return 1280
    return _make_divisible(round(1280 * config.depth_multiplier), config.depth_divisible_by, config.min_depth)


# Encoders whose configuration does not name the width of their output, or names another one.
_WIDTH_BY_TYPE: dict[str, Callable[[PreTrainedConfig], int]] = {
    "cvt": lambda config: config.embed_dim[-1],
    "depth_pro": lambda config: config.image_model_config.hidden_size,
    "focalnet": lambda config: config.embed_dim * 2 ** (len(config.depths) - 1),
    "mobilenet_v1": lambda config: max(int(1024 * config.depth_multiplier), config.min_depth),
    "mobilenet_v2": _width_of_mobilenet_v2,
    "mobilevitv2": lambda config: _make_divisible(512 * config.width_multiplier, 8, 8),
    "sam2_hiera_det_model": lambda config: config.embed_dim_per_stage[-1],
    "sam2_vision_model": lambda config: config.backbone_config.embed_dim_per_stage[-1],
    "sam3_vision_model": lambda config: config.backbone_config.hidden_size,
    "sam_hq_vision_model": lambda config: config.output_channels,
    "sam_vision_model": lambda config: config.output_channels,
    "swin2sr": lambda config: config.embed_dim,
}


def as_layer_list(vision_feature_layer: int | Iterable[int] | None) -> list[int] | None:
    """Return the layers that `vision_feature_layer` names, one or several."""
    if vision_feature_layer is None:
        return None
    return [vision_feature_layer] if isinstance(vision_feature_layer, int) else list(vision_feature_layer)


def find_width(vision_config: PreTrainedConfig | None, layers: list[int] | None) -> int | None:
    """Find the width of the features of a vision encoder, or of its `layers` together, in its configuration."""
    if layers is not None:
        width = getattr(vision_config, "hidden_size", None)
        has_one_width = isinstance(width, int) and not any(hasattr(vision_config, name) for name in _STAGES)
        return width * len(layers) if has_one_width and layers else None
    if (find := _WIDTH_BY_TYPE.get(getattr(vision_config, "model_type", None))) is not None:
        return find(vision_config)
    for name in _WIDTHS:
        width = getattr(vision_config, name, None)
        if width:
            return width[-1] if isinstance(width, list | tuple) else width
    return None


def _accept_positional_backbones(cls: type) -> type:
    """
    Let `cls(vision_config, text_config)` work.

    transformers generates the `__init__` of every config, which refuses positional arguments, and it loads files through
    `cls(**kwargs)` only. A field declared with `kw_only=False` changes nothing, and an `__init__` in the class would replace
    the one that sets and checks the fields, so it is wrapped.
    """
    keyword_init = cls.__init__

    @functools.wraps(keyword_init)
    def init(self, vision_config=None, text_config=None, **kwargs):
        keyword_init(self, vision_config=vision_config, text_config=text_config, **kwargs)

    cls.__init__ = init
    return cls


@_accept_positional_backbones
@strict
class FlamingoConfig(PreTrainedConfig):
    r"""
    Configuration of a [`FlamingoModel`]: a vision encoder and a causal language model joined by a Perceiver resampler
    and tanh-gated cross-attention (Alayrac et al. 2022, "Flamingo: a Visual Language Model for Few-Shot Learning").

    The defaults of resampler and gated blocks are those of OpenFlamingo; the paper's values are given where they differ.
    The paper's ablations (table 3) are `cross_attention_gating`, `cross_attention_ffn_mult=0`, `resampler_type` and the
    position of the blocks. An unknown keyword raises `TypeError`: a misspelled field would otherwise silently keep its
    default.

    Letters: `D` is the width of the language model, `Dv` that of the vision features, `L` the number of latents.

    Args:
        vision_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of any vision encoder that `AutoModel` knows and that returns a sequence of features (CLIP,
            SigLIP, DINOv2, ViT, ...) or a map of them (ResNet, ConvNeXt, EfficientNet, ...); `docs/vision-encoders.md` lists
            them. A two-tower configuration (`CLIPConfig`) gives its vision tower. Defaults to a CLIP vision tower, or to no
            vision encoder at all if `vision_hidden_size` is set: the model then takes features instead of pixels.
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of any causal language model. Defaults to GPT-2.
        vision_hidden_size (`int`, *optional*):
            Width `Dv` of the vision features, which are channels in a map. Taken from `vision_config` if that tells it, and
            needed otherwise: for timm's models, and for a `vision_feature_layer` of an encoder of stages.
            [`FlamingoModel.from_vision_text_pretrained`] finds it in either case.
        cross_attention_every_n_layers (`int`, *optional*, defaults to 1):
            Interval in decoder layers. A gated cross-attention block comes before decoder layer `i` (from 0) if
            `(i + 1) % cross_attention_every_n_layers == 0`, as in OpenFlamingo. Paper: 1 for 3B, 4 for 9B, 7 for 80B.
        cross_attention_layers (`list[int]`, *optional*):
            Indices, from 0, of the decoder layers with a gated block before them, instead of the interval. A single block
            in the middle is `[num_hidden_layers // 2]`.
        cross_attention_gating (`"tanh"` or `"none"`, *optional*, defaults to `"tanh"`):
            `"tanh"` multiplies the attention and the feed-forward of a block by the tanh of a learned gate. `"none"` adds
            them in full (paper, table 3, row iii), so that the model starts as its language model only with
            `cross_attention_zero_init="projections"`.
        cross_attention_zero_init (`"gates"` or `"projections"`, *optional*, defaults to `"gates"`):
            What is 0 in a new model, so that it starts as its language model. `"gates"` is the paper's start: the sign in which
            a gate opens is that of a random branch, and nothing behind it learns before. With `"projections"` the gates start
            open (1, of which the tanh is .76) and the last projection of each branch is 0, so it has an informative gradient
            from the first step. It also lets a model without gates start as its language model.
        cross_attention_num_heads (`int`, *optional*, defaults to 8):
            Number of attention heads of a gated block. Paper: 16 for 3B, 32 for 9B, 64 for 80B.
        cross_attention_head_dim (`int`, *optional*, defaults to 64): Width of a head of a gated block.
        cross_attention_ffn_mult (`int`, *optional*, defaults to 4):
            Number of hidden units of the feed-forward network of a gated block, as a multiple of `D`. With 0 there is no
            such network. Together with `cross_attention_gating="none"` this is the "vanilla" cross-attention of the
            original Transformer decoder (paper, table 3, row iv), which is between self-attention and feed-forward of a
            layer there. Here it comes before the layer, which is stock.
        cross_attention_activation (`str`, *optional*, defaults to `"gelu"`):
            Name of the activation function of a gated block, of `transformers.activations.ACT2FN`. Paper: squared ReLU,
            `"relu2"`.
        resampler_type (`"perceiver"`, `"transformer"` or `"mlp"`, *optional*, defaults to `"perceiver"`):
            Network that turns features into `L` latents (paper, table 3, row vi); [`FlamingoPerceiverResampler`] describes
            the three. They have the same number of weights, up to layer norms and latents: with `"mlp"`, the fields of the
            heads below only add hidden units.
        resampler_num_layers (`int`, *optional*, defaults to 6): Number of layers of the resampler.
        resampler_num_latents (`int`, *optional*, defaults to 64):
            `L`, the number of vectors that represent one image or one video for the language model.
        resampler_num_heads (`int`, *optional*, defaults to 8): Number of attention heads of the resampler. Paper: 16.
        resampler_head_dim (`int`, *optional*, defaults to 64): Width of a head of the resampler.
        resampler_ffn_mult (`int`, *optional*, defaults to 4):
            Number of hidden units of the feed-forward network of the resampler, as a multiple of `Dv`.
        resampler_activation (`str`, *optional*, defaults to `"gelu"`):
            Name of the activation function of the resampler. Paper: squared ReLU, `"relu2"`.
        resampler_num_frames (`int`, *optional*, defaults to 8):
            Number of learned frame embeddings; longer videos interpolate between them (paper, section 2.1 and
            appendix A.3.2). With 0 there are none, and frames are told apart by their content alone.
        resampler_feature_positions (`int`, *optional*, defaults to 0):
            Number of positions for which the resampler has a mean of the vision features, which it takes away. 0 means that
            features stay as they are. Set by [`FlamingoModel.calibrate_features`].
        resampler_standardizes_latents (`bool`, *optional*, defaults to `False`):
            Whether the resampler has a mean of its latents, which it takes away. Set by [`FlamingoModel.calibrate_features`].
        vision_feature_layer (`int` or `list[int]`, *optional*):
            Layer of the vision encoder whose hidden states are the features, as in Llava: -1 is the last layer, -2 the one
            before it, and 0 the embeddings. Several are concatenated along the channels, so that the resampler and `Dv` are
            as many times as wide. By default the features are the `last_hidden_state` of the encoder, which differs from
            layer -1 where a layer norm follows the last layer (SigLIP, DINOv2, ViT).
        vision_feature_select_strategy (`"default"` or `"full"`, *optional*, defaults to `"default"`):
            `"default"` keeps the patch tokens of the vision encoder, `"full"` its class and register tokens too. An encoder of
            which nothing tells the patches takes `"full"` only.
        image_token_id (`int`, *optional*): Id of `<image>`, which marks one image or one video in the text.
        end_of_chunk_token_id (`int`, *optional*):
            Id of `<|endofchunk|>` (the paper's `<EOC>`), at which generation stops by default. If neither this nor
            `image_token_id` is given, two rows are added to the vocabulary of (a copy of) `text_config` for them.
        image_token_ids (`list[int]`, *optional*):
            For converted flamingo-mini checkpoints only: the ids of ordinary text tokens (`<`, with and without a
            space before it) each of which marks an image if any image is given. `image_token_id` is one of them. They
            may be generated, and [`~FlamingoModel.freeze_backbones`] leaves their embeddings frozen.
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether `forward` returns a cache if its argument `use_cache` is not given.
        pad_token_id, bos_token_id, eos_token_id (`int`, *optional*):
            Written by `Trainer`, which copies them from the tokenizer. [`FlamingoModel.generate`] reads the generation
            config instead.

    Raises:
        TypeError: a keyword is not a field.
        huggingface_hub.errors.StrictDataclassError: a field has a wrong type or an impossible value; the message
            names it.

    Example:

    ```python
    >>> from transformers import CLIPVisionConfig, GPT2Config
    >>> from transformers_flamingo import FlamingoConfig, FlamingoModel

    >>> config = FlamingoConfig.from_vision_text_configs(CLIPVisionConfig(), GPT2Config(), resampler_num_layers=2)
    >>> model = FlamingoModel(config)
    ```
    """

    model_type = "flamingo"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model", optional=True),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="gpt2"),
    }
    # The base class's plan names modules of a plain decoder. The backbones bring their own plans; frozen and trained
    # parameters never share a unit.
    base_model_fsdp_plan: ClassVar[dict] = {
        "gated_cross_attention.*": "free_full_weight",
        "resampler": "free_full_weight",
    }

    # Outputs that `Trainer` need not gather in evaluation.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "image_hidden_states"]

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    vision_hidden_size: int | None = None
    cross_attention_every_n_layers: int = 1
    cross_attention_layers: list[int] | tuple[int, ...] | None = None
    cross_attention_gating: Literal["tanh", "none"] = "tanh"
    cross_attention_zero_init: Literal["gates", "projections"] = "gates"
    cross_attention_num_heads: int = 8
    cross_attention_head_dim: int = 64
    cross_attention_ffn_mult: int = 4
    cross_attention_activation: str = "gelu"
    resampler_type: Literal["perceiver", "transformer", "mlp"] = "perceiver"
    resampler_num_layers: int = 6
    resampler_num_latents: int = 64
    resampler_num_heads: int = 8
    resampler_head_dim: int = 64
    resampler_ffn_mult: int = 4
    resampler_activation: str = "gelu"
    resampler_num_frames: int = 8
    resampler_feature_positions: int = 0
    resampler_standardizes_latents: bool = False
    vision_feature_layer: int | list[int] | tuple[int, ...] | None = None
    vision_feature_select_strategy: Literal["default", "full"] = "default"
    image_token_id: int | None = None
    end_of_chunk_token_id: int | None = None
    image_token_ids: list[int] | tuple[int, ...] | None = None
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        """Complete and check the fields; `kwargs` are the keywords that are not fields."""
        tie_word_embeddings = kwargs.pop("tie_word_embeddings", None)
        unknown = self._unknown_names(kwargs)
        if unknown:
            known = sorted(field.name for field in fields(self))
            raise TypeError(
                f"FlamingoConfig got unknown keywords {unknown}. They would have no effect, so a misspelled field would "
                f"silently keep its default. Known fields are {known}."
            )

        if self.vision_config is None and self.vision_hidden_size is None:
            self.vision_config = {"model_type": "clip_vision_model"}
        # The base class sets the attention implementation of all sub-configs, to None if none is given. The configs of
        # models that exist keep theirs: without one they would not build a causal mask.
        sub_configs = [c for c in (self.vision_config, self.text_config) if isinstance(c, PreTrainedConfig)]
        implementations = [config._attn_implementation for config in sub_configs]
        super().__post_init__(**kwargs)
        if "attn_implementation" not in kwargs:
            for config, implementation in zip(sub_configs, implementations, strict=True):
                config._attn_implementation = implementation

        if self.text_config.get_text_config() is not self.text_config:
            raise ValueError(
                f"`text_config` is a {type(self.text_config).__name__}, which joins a language model and other models. "
                "Give the configuration of the language model alone (`text_config.get_text_config()`), and load the "
                "language model alone."
            )
        if not isinstance(getattr(self.text_config, "num_hidden_layers", None), int):
            raise ValueError(
                f"A language model with a {type(self.text_config).__name__} cannot be conditioned on images: its configuration has "
                "no `num_hidden_layers`, so the gated cross-attention blocks cannot be placed. Use another language model."
            )
        if tie_word_embeddings is not None:
            self.tie_word_embeddings = tie_word_embeddings
        # Of a two-tower model (CLIPConfig, SiglipConfig) only the vision tower is used.
        if getattr(self.vision_config, "vision_config", None) is not None:
            self.vision_config = self.vision_config.vision_config
        if self.vision_hidden_size is None:
            self.vision_hidden_size = find_width(self.vision_config, self.vision_feature_layers)
        if self.image_token_id is None and self.end_of_chunk_token_id is None:
            # In the order in which the processor adds the two tokens. In a copy, because the caller's config may be that of
            # a model.
            self.text_config = copy.deepcopy(self.text_config)
            self.end_of_chunk_token_id = self.text_config.vocab_size
            self.image_token_id = self.text_config.vocab_size + 1
            self.text_config.vocab_size += 2

        # Names the code that `save_pretrained` copies, for loading without this package. It is set each time, because a
        # config that came from the Hub has the name of its repository before each entry.
        self.auto_map = {
            "AutoConfig": "configuration_flamingo.FlamingoConfig",
            "AutoModel": "modeling_flamingo.FlamingoModel",
            "AutoModelForImageTextToText": "modeling_flamingo.FlamingoModel",
            "AutoModelForMultimodalLM": "modeling_flamingo.FlamingoModel",
            "AutoModelForSequenceClassification": "modeling_flamingo.FlamingoForSequenceClassification",
        }

    @classmethod
    def _unknown_names(cls, names: Iterable[str]) -> list[str]:
        """Return the names that are neither a field nor something that transformers itself puts into a config."""
        known = {field.name for field in fields(cls)} | _STOCK_KEYWORDS
        known |= GenerationConfig().to_dict().keys()
        return sorted(name for name in names if name not in known and not name.startswith("_"))

    def to_dict(self) -> dict[str, Any]:
        """
        Return the fields as a dictionary.

        An attribute that some tool put on this config is omitted, because a file with it could not be loaded;
        `save_pretrained` names what it omits. Of a backbone in a local folder the name of this folder is kept, as `./NAME`, which
        no repository on the Hub can have: where it is on this machine does not leak. `tie_word_embeddings` is added, because tools look for it here: peft decides by it whether trained rows of the
        embedding are rows of the head too.
        """
        result = super().to_dict()
        for name in self._unknown_names(result):
            del result[name]
        for name in ("vision_config", "text_config"):
            backbone = (result[name] or {}).get("_name_or_path") or ""
            if os.path.isdir(backbone):
                result[name]["_name_or_path"] = f"./{os.path.basename(os.path.realpath(backbone))}"
        result["tie_word_embeddings"] = self.tie_word_embeddings
        return result

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """Save the fields as the base class does, and log the names of attributes that are omitted."""
        if unknown := self._unknown_names(vars(self)):
            logger.warning(
                f"Not saved with the FlamingoConfig: {unknown}. These attributes are not fields of it and have no effect "
                "on the model; perhaps they belong to its `text_config` or `vision_config`, or to the generation config."
            )
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read the configuration of a folder or repository, as the method of the base class does.

        Raises:
            OSError: there is no `config.json`. The base class would continue with default values.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if not config_dict:
            raise OSError(
                f"{str(pretrained_model_name_or_path)!r} has no config.json, so the shape of its model is unknown. The folder "
                "is not that of a model, or saving it was interrupted: save the model again."
            )
        return config_dict, kwargs

    @classmethod
    def from_vision_text_configs(
        cls, vision_config: PreTrainedConfig | dict | None, text_config: PreTrainedConfig | dict, **kwargs
    ) -> "FlamingoConfig":
        """Join the configurations of two backbones; `kwargs` are the other fields of [`FlamingoConfig`]."""
        return cls(vision_config=vision_config, text_config=text_config, **kwargs)

    @property
    def tie_word_embeddings(self) -> bool:
        """Return whether the language model's input and output embeddings are shared, as `text_config` has it."""
        return getattr(self.text_config, "tie_word_embeddings", False)

    @tie_word_embeddings.setter
    def tie_word_embeddings(self, value: bool) -> None:
        self.text_config.tie_word_embeddings = value

    @property
    def vision_feature_layers(self) -> list[int] | None:
        """Return the layers of the vision encoder whose hidden states are the features; `None` stands for its output."""
        return as_layer_list(self.vision_feature_layer)

    @property
    def cross_attention_layer_indices(self) -> list[int]:
        """Return the indices, from 0, of the decoder layers with a gated cross-attention block before them, in order."""
        if self.cross_attention_layers is not None:
            return sorted(self.cross_attention_layers)
        n = self.cross_attention_every_n_layers
        return [i for i in range(self.text_config.num_hidden_layers) if (i + 1) % n == 0]

    def validate_vision_feature_layer(self):
        """Check that the layers of the vision encoder are some, each at most once, and that there is an encoder."""
        layers = self.vision_feature_layers
        if layers is None:
            return
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(
                f"`vision_feature_layer` is {self.vision_feature_layer}. It must be the number of a layer, or a list of at "
                "least one, each of them once."
            )
        if self.vision_config is None:
            raise ValueError(
                f"`vision_feature_layer` is {self.vision_feature_layer}, but there is no vision encoder (`vision_config` is "
                "None): features are taken as they are given. Omit it, and choose the layers where you compute them."
            )

    def validate_sizes(self):
        """Check that sizes are positive. The numbers of optional parts may be 0."""
        for name in (
            "cross_attention_every_n_layers",
            "cross_attention_num_heads",
            "cross_attention_head_dim",
            "resampler_num_latents",
            "resampler_num_heads",
            "resampler_head_dim",
            "resampler_ffn_mult",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it is a size: it must be at least 1.")
        if self.vision_hidden_size is not None and self.vision_hidden_size < 1:
            raise ValueError(f"`vision_hidden_size` is {self.vision_hidden_size}, but a width is at least 1.")
        for name in (
            "cross_attention_ffn_mult",
            "resampler_num_layers",
            "resampler_num_frames",
            "resampler_feature_positions",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 0, which means none.")

    def validate_activations(self):
        """Check that transformers has the activation functions."""
        for name in ("cross_attention_activation", "resampler_activation"):
            if getattr(self, name) not in ACT2FN:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, but it must be one of {sorted(ACT2FN)}.")

    def validate_cross_attention_layers(self):
        """Check that gated blocks come before decoder layers that exist, at most one before each, at least one in all."""
        if self.cross_attention_every_n_layers < 1:
            return  # `validate_sizes` says so
        num_layers = self.text_config.num_hidden_layers
        layers = self.cross_attention_layer_indices
        wrong = [i for i in layers if not 0 <= i < num_layers]
        if wrong or len(set(layers)) != len(layers):
            raise ValueError(
                f"`cross_attention_layers` is {self.cross_attention_layers}, but the language model has decoder layers "
                f"0 to {num_layers - 1}, and each can have one gated block before it: list each index at most once."
            )
        if not layers:
            raise ValueError(
                f"No decoder layer gets a gated cross-attention block (cross_attention_every_n_layers="
                f"{self.cross_attention_every_n_layers}, cross_attention_layers={self.cross_attention_layers}, "
                f"{num_layers} decoder layers), so no token could see an image. Lower the interval."
            )

    def validate_vision_hidden_size(self):
        """Check that the width of the vision features is known and is that of the vision encoder."""
        layers = self.vision_feature_layers
        if self.vision_hidden_size is None:
            name = type(self.vision_config).__name__
            if layers is None:
                unknown, wanted = f"{name} has none of {', '.join(_WIDTHS)}", "its `last_hidden_state`"
            else:
                unknown, wanted = (
                    f"{name} does not tell that of `vision_feature_layer` {layers}",
                    "these hidden states",
                )
            raise ValueError(
                f"The width of the vision features is unknown: {unknown}. Set `vision_hidden_size` to the width of {wanted}: "
                "the last dimension of a sequence (images, tokens, width), the second of a map (images, width, height, width "
                "of the map). `FlamingoModel.from_vision_text_pretrained` finds it in the encoder itself."
            )
        # The rest is checked with the encoder, when the model is built
        known = None
        if layers is not None or isinstance(getattr(self.vision_config, "hidden_size", None), int):
            known = find_width(self.vision_config, layers)
        if known is not None and known != self.vision_hidden_size:
            raise ValueError(
                f"`vision_hidden_size` is {self.vision_hidden_size}, but the vision encoder's features have width "
                f"{known}. Omit `vision_hidden_size`, because this vision encoder's configuration names it."
            )

    def validate_token_ids(self):
        """Check that both special tokens have ids, which differ."""
        ids = {"image_token_id": self.image_token_id, "end_of_chunk_token_id": self.end_of_chunk_token_id}
        for name, token_id in ids.items():
            if token_id is None:
                raise ValueError(
                    f"`{name}` is missing although the other one is set ({ids}). Take both from the processor: "
                    "`image_token_id=processor.image_token_id, end_of_chunk_token_id=processor.end_of_chunk_token_id`."
                )
            if token_id < 0:
                raise ValueError(f"`{name}` is {token_id}, but a token id is at least 0.")
        if self.image_token_id == self.end_of_chunk_token_id:
            raise ValueError(f"`image_token_id` and `end_of_chunk_token_id` are both {self.image_token_id}.")
        text_ids = self.image_token_ids
        if text_ids is not None and (self.image_token_id not in text_ids or self.end_of_chunk_token_id in text_ids):
            raise ValueError(
                f"`image_token_ids` is {list(text_ids)}. It lists all tokens that mark an image, so `image_token_id` "
                f"({self.image_token_id}) must be among them and `end_of_chunk_token_id` ({self.end_of_chunk_token_id}) "
                "must not."
            )


FlamingoConfig.register_for_auto_class()
# `transformers serve` treats a model as multimodal only if its type is in this table of names.
MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.setdefault("flamingo", "FlamingoModel")

__all__ = ["FlamingoConfig"]
