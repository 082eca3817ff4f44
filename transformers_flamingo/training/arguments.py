# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training arguments: the model, and the arguments of the trainer."""

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from transformers import TrainingArguments

from ..chat_templates_flamingo import CHAT_TEMPLATES
from ..configuration_flamingo import FlamingoConfig
from ..images_flamingo import check_bit_depth
from ..utils.redaction import redact_values
from .recipe_file import raise_together, show, suggest
from .stock_checks import find_stock_errors


MixtureStrategy = Literal["accumulate", "round_robin"]


def parse_json(name: str, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """
    Return the value of a field that is a dictionary, or JSON when it comes from a command line.

    Raises:
        ValueError: it is not JSON. The message names the field.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`{name}` is {show(value)}, which is not JSON ({error}). Correct it.") from error


@dataclass
class ModelArguments:
    """
    The model that a recipe trains: a saved Flamingo, or a new one made of two backbones.

    Args:
        model (`str`, *optional*): Name or directory of a saved Flamingo to train further.
        vision, text (`str`, *optional*):
            Instead of `model`: names or directories of the backbones, or names that a package registers, such as `miniature`.
        model_config (`dict`, *optional*): Fields of [`FlamingoConfig`] for a new model.
        train_vision, train_text (`bool`, *optional*, defaults to `False`): Whether to train that backbone too.
        train_token_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the embeddings of `<image>` and `<|endofchunk|>` are trained as inputs: see [`~FlamingoModel.freeze_backbones`].
        text_from_scratch (`bool`, *optional*, defaults to `False`):
            Whether to start from a language model with random weights, and train it.
        lora_rank (`int`, *optional*): Rank of LoRA adapters that are trained on the language model ([`lora_config`]).
        lora_alpha (`int`, *optional*): Scale of the adapters. Defaults to twice the rank.
        lora_dropout (`float`, *optional*, defaults to 0): Dropout of what goes into the adapters.
        lora_target_modules (`list[str]`, *optional*):
            Names of the layers of the language model that get adapters, such as `["q_proj", "v_proj"]`. By default all linear
            layers except the head.
        quantization (`str`, *optional*): Keep the frozen language model in `"4bit"` or `"8bit"` (bitsandbytes).
        chat_template (`str`, *optional*):
            The chat template that conversations are trained and saved with: `"text"`, the language model's own, or
            `"few_shot"`, Flamingo's ([`FlamingoProcessor`]). By default that of `model`, or the language model's if its
            tokenizer has one.
        bit_depth (`int`, *optional*):
            Bits of a pixel value in images of more than 8 bits ([`FlamingoProcessor`]), saved with the processor. By default
            that of `model`, or found for each image.

    Raises:
        ValueError: the arguments contradict each other.
    """

    _argument_group_name = "model"  # the heading in the help of `HfArgumentParser`

    model: str | None = field(
        default=None, metadata={"help": "Name or directory of a saved Flamingo to train further."}
    )
    vision: str | None = field(default=None, metadata={"help": "Name or directory of the vision encoder."})
    text: str | None = field(default=None, metadata={"help": "Name or directory of the language model."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of FlamingoConfig for a new model, as JSON, or --model_config.FIELD."}
    )
    train_vision: bool = field(default=False, metadata={"help": "Train the vision encoder too."})
    train_text: bool = field(default=False, metadata={"help": "Train the language model too."})
    train_token_embeddings: bool = field(
        default=True,
        metadata={
            "help": "Train the embeddings of <image> and <|endofchunk|> as inputs. Without, no gradient runs below the first gated block, "
            "so a step does less work."
        },
    )
    text_from_scratch: bool = field(
        default=False, metadata={"help": "Start from a language model with random weights, and train it."}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "Rank of LoRA adapters that are trained on the language model."}
    )
    lora_alpha: int | None = field(
        default=None, metadata={"help": "Scale of the adapters (twice the rank if not given)."}
    )
    lora_dropout: float | None = field(
        default=None, metadata={"help": "Dropout of what goes into the adapters (0 if not given)."}
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Layers of the language model that get adapters, such as q_proj v_proj (all linear ones if not given)."
        },
    )
    quantization: Literal["4bit", "8bit"] | None = field(
        default=None, metadata={"help": "Keep the frozen language model in 4 or 8 bits (bitsandbytes)."}
    )
    chat_template: Literal["text", "few_shot"] | None = field(
        default=None, metadata={"help": "Chat template of the language model, or that of few-shot prompts."}
    )
    bit_depth: int | None = field(
        default=None,
        metadata={
            "help": "Bits of a pixel value in images of more than 8 bits, such as 12 (found for each image if not given)."
        },
    )

    def __post_init__(self):
        self.model_config = parse_json("model_config", self.model_config)
        check_bit_depth(self.bit_depth)
        self._check_model_config()
        new = self.vision or self.text or self.model_config or self.text_from_scratch
        rules = (
            (
                self.model is None and (self.vision is None or self.text is None),
                f"`model` is not given, `vision` is {self.vision!r} and `text` {self.text!r}. Give `model`, a saved Flamingo to "
                "train further, or both backbones of a new one.",
            ),
            (
                self.model is not None and new,
                f"`model` is {self.model!r}, which has its backbones and its configuration already. Remove `vision`, `text`, "
                "`model_config` and `text_from_scratch`.",
            ),
            *(
                (
                    getattr(self, name) is not None and self.lora_rank is None,
                    f"`{name}` is {getattr(self, name)}, which has no effect without `lora_rank`: no adapters would be trained. "
                    "Give `lora_rank`, or remove it.",
                )
                for name in ("lora_alpha", "lora_dropout", "lora_target_modules")
            ),
            (
                self.lora_rank is not None and self.lora_rank < 1,
                f"`lora_rank` is {self.lora_rank}, but it must be at least 1. Remove it to train without adapters.",
            ),
            (
                self.lora_dropout is not None and not 0 <= self.lora_dropout < 1,
                f"`lora_dropout` is {self.lora_dropout}. It is a probability: give a number from 0 to below 1.",
            ),
            (
                self.lora_target_modules == [],
                "`lora_target_modules` is empty, so nothing would get adapters. Name layers, or remove it for all linear ones.",
            ),
            (
                self.lora_rank is not None and (self.train_text or self.train_vision or self.text_from_scratch),
                f"`lora_rank` is {self.lora_rank}: adapters are trained instead of the language model, and the vision encoder "
                "stays frozen. Remove `train_text`, `train_vision` and `text_from_scratch`.",
            ),
            (
                not self.train_token_embeddings
                and (self.train_text or self.text_from_scratch or self.lora_rank is not None),
                "`train_token_embeddings` is false, but the language model or its adapters are trained, whose gradient runs through all "
                "layers anyway. Remove it, or `train_text`, `text_from_scratch` and `lora_rank`.",
            ),
            (
                self.quantization not in (None, "4bit", "8bit"),
                f"`quantization` is {self.quantization!r}. It can be '4bit' or '8bit'.",
            ),
            (
                self.chat_template not in (None, *CHAT_TEMPLATES),
                f"`chat_template` is {self.chat_template!r}. It can be 'text', the language model's own, or 'few_shot'.",
            ),
            (
                self.quantization is not None and (self.train_text or self.text_from_scratch),
                f"`quantization` is {self.quantization!r}, and quantized weights cannot be trained. Remove `train_text` and "
                "`text_from_scratch`, or train adapters with `lora_rank`.",
            ),
        )
        raise_together([ValueError(message) for is_broken, message in rules if is_broken])

    def _check_model_config(self) -> None:
        for name in FlamingoConfig._unknown_names(self.model_config or {}):
            if name not in ("dtype", "torch_dtype") and not name.startswith(("vision_", "text_")):
                known = [f.name for f in fields(FlamingoConfig)]
                raise ValueError(
                    f"`model_config` has {show(name)}, which FlamingoConfig does not have.{suggest(name, known)}"
                )
        for name in ("vision_config", "text_config", "image_token_id", "end_of_chunk_token_id"):
            if name in (self.model_config or {}):
                raise ValueError(
                    f"`model_config` has `{name}`, which comes from the backbones and the processor. Remove it. To set a field of a "
                    "backbone, use `vision_FIELD` or `text_FIELD`."
                )


@dataclass
class DataArguments:
    """
    Arguments that all data sources share.

    Args:
        data_root (`str`, *optional*): Directory of the relative paths of the sources. Defaults to the working directory.
    """

    _argument_group_name = "data"

    data_root: str | None = field(default=None, metadata={"help": "Directory of the relative paths of the sources."})


class DefaultSize(int):
    """The default of a field, which can be told from the same number given by the user."""


@dataclass(repr=False)  # the generated one would show all fields
class SecretFreeTrainingArguments(TrainingArguments):
    """
    `TrainingArguments` whose secrets are not saved or logged.

    `Trainer` pickles its arguments into the output folder, which is published, and trackers log them as JSON. Both are written
    without `hub_token` and without anything else that looks like a secret ([`redact_values`]).
    """

    _argument_group_name = "training"

    def __getstate__(self) -> dict[str, Any]:
        state = redact_values(self.__dict__)
        # These hold the whole configuration of DeepSpeed, where a secret may have any name
        return {**state, **dict.fromkeys(state.keys() & {"hf_deepspeed_config", "deepspeed_plugin"})}

    def __copy__(self) -> "SecretFreeTrainingArguments":
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> "SecretFreeTrainingArguments":
        twin = copy.copy(self)
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def to_dict(self) -> dict[str, Any]:
        """Return the dictionary of `TrainingArguments.to_dict`, without secrets."""
        return redact_values(super().to_dict())

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    __repr__ = __str__


@dataclass(repr=False)
class FlamingoTrainingArguments(SecretFreeTrainingArguments):
    """
    `TrainingArguments` with the additional fields of a Flamingo.

    Args:
        mixture_strategy (`str`, *optional*, defaults to `"accumulate"`):
            `"accumulate"`: each optimizer step adds the weighted gradients of one micro-batch of each source (times
            `gradient_accumulation_steps`), as in the paper. `"round_robin"`: each step takes its micro-batches from one
            source, and the steps take turns.
        gate_learning_rate_multiplier (`float`, *optional*, defaults to 1): Learning rate multiplier for the gates.
        resampler_learning_rate_multiplier (`float`, *optional*, defaults to 1):
            Learning rate multiplier for the resampler. .1 makes a new model look at its images much sooner.
        calibrate_features (`bool`, *optional*):
            Whether to standardize the vision features by statistics of the training images, estimated before the first step.
            By default a model that ignores its images does so, because it is new. A trained one keeps its features.
        save_trainable_only (`bool`, *optional*, defaults to `False`):
            Whether to save only the trained parameters in checkpoints. [`load_trainable`] loads them into a model that has
            its backbones already.
        skip_bad_samples (`bool`, *optional*, defaults to `False`):
            Whether to skip invalid rows: they are counted, logged and replaced by another row of the same source.
            Otherwise an invalid row is an error.
        packing (`bool`, *optional*, defaults to `False`):
            Whether to pack the rows of a micro-batch as documents into fewer rows, of at most `max_length` tokens of their
            source ([`FlamingoDataCollator`]). The loss stays the same.
        max_non_finite_steps (`int`, *optional*, defaults to 3):
            Stop with an error when the training logs after this many consecutive optimizer steps whose loss is NaN or
            infinite. A model that has NaN or infinite weights is never saved or published, whatever this number is.
        image_use_steps (`int`, *optional*):
            Every how many optimizer steps to measure on a training batch whether the model uses its images
            ([`measure_image_use`]). By default 20 times in a run, but not more often than every 5th and at least every 50th
            step. A measurement takes less time than a training step of the same micro-batch. 0 turns it off.
        early_stopping_patience (`int`, *optional*):
            Stop the training after this many consecutive evaluations in which `metric_for_best_model` did not get better. By
            default the metric is the loss of the only held-out data. With `load_best_model_at_end` the best model is kept.
        early_stopping_threshold (`float`, *optional*, defaults to 0): By how much the metric must get better to count.
        evaluation_max_rows (`int`, *optional*, defaults to 200): Maximum number of held-out rows of each evaluated source.
        generation_max_new_tokens (`int`, *optional*, defaults to 20):
            Maximum number of tokens generated for a prompt during evaluation.
        generation_num_beams (`int`, *optional*, defaults to 1): Number of beams for generation during evaluation.

    `enable_jit_checkpoint` ends a training on Ctrl-C or SIGTERM after its step, with a checkpoint ([`TrainingInterrupted`]).
    `flamingo train` always does.

    Defaults that differ from `TrainingArguments`: `learning_rate=1e-4`, `lr_scheduler_type="constant_with_warmup"`,
    `weight_decay=0.1` (it applies only to the matrices of the gated blocks), `logging_steps=10`,
    `remove_unused_columns=False` (columns of images and text are not arguments of the model),
    `logging_nan_inf_filter=False` (a loss of NaN is shown), and `ddp_find_unused_parameters=True` (a batch without
    images leaves the resampler unused).

    With a [`DataMixture`], whose sources have their own batch sizes and whose batches depend only on their position,
    [`FlamingoTrainer`] refuses the fields that would have no effect: see [`check_arguments_for_mixture`].
    """

    mixture_strategy: MixtureStrategy = field(
        default="accumulate",
        metadata={"help": "Accumulate the gradients of all sources in each step, or let the sources take turns."},
    )
    gate_learning_rate_multiplier: float = field(
        default=1.0, metadata={"help": "Learning rate multiplier for the gates."}
    )
    resampler_learning_rate_multiplier: float = field(
        default=1.0, metadata={"help": "Learning rate multiplier for the resampler (0.1: a new model looks sooner)."}
    )
    calibrate_features: bool | None = field(
        default=None,
        metadata={
            "help": "Standardize vision features by statistics of the training images (default: in a new model)."
        },
    )
    save_trainable_only: bool = field(
        default=False, metadata={"help": "Save only the trained parameters in checkpoints."}
    )
    skip_bad_samples: bool = field(default=False, metadata={"help": "Skip, count and replace invalid rows."})
    packing: bool = field(default=False, metadata={"help": "Pack short documents into shared rows of a micro-batch."})

    max_non_finite_steps: int = field(
        default=3, metadata={"help": "Stop after this many consecutive steps whose loss is NaN or infinite."}
    )
    image_use_steps: int | None = field(
        default=None, metadata={"help": "Steps between two measurements of whether the images are used; 0 for none."}
    )

    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many consecutive evaluations without a better metric_for_best_model."},
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "By how much the metric must get better to count for early stopping."}
    )
    evaluation_max_rows: int = field(
        default=200, metadata={"help": "Maximum number of held-out rows of each evaluated source."}
    )
    generation_max_new_tokens: int = field(
        default=20, metadata={"help": "Maximum number of tokens generated for a prompt during evaluation."}
    )
    generation_num_beams: int = field(
        default=1, metadata={"help": "Number of beams for generation during evaluation."}
    )

    per_device_train_batch_size: int = field(
        default=DefaultSize(8), metadata={"help": "Rows per micro-batch, if `train_dataset` is not a mixture."}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "Learning rate schedule."})
    weight_decay: float = field(default=0.1, metadata={"help": "Weight decay of the matrices of the gated blocks."})
    logging_steps: float = field(default=10, metadata={"help": "Number of steps between two logs."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Remove columns that are not arguments of the model."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses of NaN in the log."})
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Let DDP look for parameters that a batch left unused."}
    )

    def __post_init__(self):
        errors = []
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                errors.append(ValueError(f"`{f.name}` is {value}, so nothing can be trained. Give a finite number."))
        # Before the stock checks, the first of which hides the others
        errors += [ValueError(message) for message in self._find_errors()]
        errors += [ValueError(message) for message in find_stock_errors(self)]
        raise_together([*errors, *self._find_stock_errors()])

    def _find_errors(self) -> Iterator[str]:
        """Yield a message for each field of a Flamingo that cannot have its value."""
        if self.mixture_strategy not in get_args(MixtureStrategy):
            yield (
                f"`mixture_strategy` is {self.mixture_strategy!r}. Known strategies are "
                f"{', '.join(get_args(MixtureStrategy))}."
            )
        counts = (
            "gradient_accumulation_steps",
            "max_non_finite_steps",
            "early_stopping_patience",
            "evaluation_max_rows",
        )
        for name in (*counts, "generation_max_new_tokens", "generation_num_beams"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"`{name}` is {value}, but it must be at least 1."
        if self.early_stopping_patience is None and self.early_stopping_threshold:
            yield (
                f"`early_stopping_threshold` is {self.early_stopping_threshold:g}, which has no effect without "
                "`early_stopping_patience`. Give both, or remove it."
            )
        if self.image_use_steps is not None and self.image_use_steps < 0:
            yield f"`image_use_steps` is {self.image_use_steps}, but it must be at least 1, or 0 for no measurements."
        if not 0 < self.gate_learning_rate_multiplier < math.inf:
            yield (
                f"`gate_learning_rate_multiplier` is {self.gate_learning_rate_multiplier}. At 0 or below, gates "
                "that start closed stay closed, and the images are never used. Give a number above 0."
            )
        if not 0 < self.resampler_learning_rate_multiplier < math.inf:
            yield (
                f"`resampler_learning_rate_multiplier` is {self.resampler_learning_rate_multiplier}, but it must be a number above 0. To "
                "keep the resampler as it is, freeze it (`model.resampler.requires_grad_(False)`)."
            )

    def _find_stock_errors(self) -> Iterator[Exception]:
        """Run the checks of `TrainingArguments`. What this machine cannot compute in hides no other error."""
        while True:
            try:
                super().__post_init__()
                return
            except ValueError as error:
                precisions = [name for name in ("bf16", "bf16_full_eval", "tf32") if getattr(self, name)]
                if not precisions or not re.search("support bf16|Ampere", str(error)):
                    yield error
                    return
                yield ValueError(
                    f"{' and '.join(f'`{name}`' for name in precisions)}: there is no accelerator here that computes in this "
                    f"precision ({str(error).partition('. ')[0].rstrip('.')}). Remove it (`--{precisions[0]} false`); without any "
                    "accelerator, give `--use_cpu true`, with which bf16 works, but slowly."
                )
                for name in precisions:
                    setattr(self, name, False if name != "tf32" else None)

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return what `TrainingArguments.get_warmup_steps` does, but a share of the run is never all of it."""
        steps = super().get_warmup_steps(num_training_steps)
        return steps if self.warmup_steps >= 1 else min(steps, max(num_training_steps - 1, 0))
