# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What a training run can be told: the sources of its data, and the arguments of its trainer."""

import copy
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from datasets import Dataset, IterableDataset
from transformers import TrainingArguments

from ..data import FORMATS, Reader
from ..utils.redaction import redact, redact_values
from .recipe_file import show


MixtureStrategy = Literal["accumulate", "round_robin"]


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """
    One entry of a data mixture.

    Args:
        name (`str`): Names the source in logs and errors.
        format (`str`): The layout of its files, a key of `transformers_flamingo.data.FORMATS`.
        path (`str`): A file, a glob pattern or a folder, as [`~data.Reader.load`] takes it.
        weight (`float`, *optional*, defaults to 1):
            The factor of its loss, the paper's lambda (Alayrac et al. 2022, section 2.4, equation 2).
        batch_size (`int`, *optional*, defaults to 8): Rows per micro-batch and process.
        max_length (`int`, *optional*):
            Token budget of a row; with `packing`, of a document and of the row that it shares, and needed.
        max_images (`int`, *optional*): Budget of images and videos of a row.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether rows are read when they are needed, in the order of the files. A source that is not streamed is
            opened as a whole and shuffled anew in each of its epochs.
        cache_features (`bool`, *optional*, defaults to `False`):
            Whether the frozen vision encoder looks at the images once, before the training, and its features are kept
            for this and later runs ([`DataMixture.cache_features`]).
        split (`str`, *optional*): Takes only files with this word in their name or folder.
        options (`dict`, *optional*): Fields of the reader, such as `{"min_similarity": 0.24}` for `"mmc4"`.
        leading_space_probability (`float`, *optional*, defaults to 0.5): See [`~data.document_to_sample`].
        next_image_probability (`float`, *optional*, defaults to 0): See [`~data.document_to_sample`].
        append_eos (`bool`, *optional*, defaults to `False`): See [`~data.document_to_sample`].

    Raises:
        ValueError: a value is out of its range. The message names the source.
    """

    name: str
    format: str
    path: str
    weight: float = 1.0
    batch_size: int = 8
    max_length: int | None = None
    max_images: int | None = None
    streaming: bool = False
    cache_features: bool = False
    split: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    leading_space_probability: float = 0.5
    next_image_probability: float = 0.0
    append_eos: bool = False

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"A data source has the name {self.name!r}: give it one, its losses are logged under it.")
        if not isinstance(self.format, str) or self.format not in FORMATS:
            self._refuse("format", f"Known formats are {', '.join(FORMATS)}.")
        for name in ("weight", "leading_space_probability", "next_image_probability"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                self._refuse(name, "Give a finite number.")
        for name in ("streaming", "cache_features", "append_eos"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "Give true or false.")
        for name in ("path", "split"):
            if not isinstance(getattr(self, name), str) and (name == "path" or self.split is not None):
                self._refuse(name, "Give a text.")
        if not isinstance(self.options, dict):
            self._refuse("options", "It maps names to values.")
        if not self.weight > 0:
            self._refuse("weight", "It multiplies the loss, so it must be above 0: leave the source out instead.")
        for name in ("batch_size", "max_length", "max_images"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                self._refuse(name, "It counts rows, tokens or images: give a whole number of at least 1.")
        if self.cache_features and self.streaming:
            self._refuse("cache_features", "The rows of a stream are not kept: set `streaming` to false.")
        for name in ("leading_space_probability", "next_image_probability"):
            if not 0 <= getattr(self, name) <= 1:
                self._refuse(name, "It is a probability: give a number from 0 to 1.")
        known = [f.name for f in fields(FORMATS[self.format])]
        unknown = [name for name in self.options if name not in known]
        if unknown:
            self._refuse("options", f"Of these, {self.format!r} has no {unknown}. Its options are {known}.")

    def _refuse(self, name: str, why: str) -> None:
        value = show(redact_values(getattr(self, name)))
        raise ValueError(f"Data source {show(self.name)}: `{name}` is {value}. {why}")

    @property
    def reader(self) -> Reader:
        return FORMATS[self.format](**self.options)

    def load(self) -> Dataset | IterableDataset:
        """
        Open the files.

        Raises:
            ValueError: it fails, or there is no row. The message names the source.
        """
        try:
            rows = self.reader.load(self.path, split=self.split, streaming=self.streaming)
            is_empty = next(iter(rows), None) is None if self.streaming else len(rows) == 0
        except Exception as error:  # each file format has its own
            cause = "" if error.__cause__ is None else f" {type(error.__cause__).__name__}: {error.__cause__}"
            raise ValueError(
                f"Data source {self.name!r} cannot be opened ({type(error).__name__}: {redact(f'{error}{cause}')}). Without it the mixture "
                "would be another one, so the run stops. Check `path`, `format` and `split`, or remove the source."
            ) from error
        if is_empty:
            raise ValueError(
                f"Data source {self.name!r}: there is no row in {redact(self.path)!r}. Without it the mixture would be another "
                "one, so the run stops. Check `path` and `split`, or remove the source."
            )
        return rows


class DefaultSize(int):
    """Mark the default of a field, to be told from the same number given by the user."""


@dataclass(repr=False)  # the generated one would show all fields
class SecretFreeTrainingArguments(TrainingArguments):
    """
    `TrainingArguments` that keep their secrets to themselves.

    `Trainer` pickles its arguments into the output folder, which is published, and trackers log them as JSON. Neither has
    `hub_token`, nor what looks like a secret anywhere else in them ([`redact_values`]).
    """

    def __getstate__(self) -> dict[str, Any]:
        state = redact_values(self.__dict__)
        # They hold the configuration of DeepSpeed, with whatever is in it
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
        """Return what `TrainingArguments.to_dict` does, without secrets."""
        return redact_values(super().to_dict())

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    __repr__ = __str__


@dataclass(repr=False)
class FlamingoTrainingArguments(SecretFreeTrainingArguments):
    """
    `TrainingArguments` with what a Flamingo needs in addition.

    Args:
        mixture_strategy (`str`, *optional*, defaults to `"accumulate"`):
            `"accumulate"`: each optimizer step adds up the gradients of one micro-batch of each source (times
            `gradient_accumulation_steps`), weighted, as in the paper. `"round_robin"`: each step takes its
            micro-batches from one source, and the next step from the next.
        gate_learning_rate_multiplier (`float`, *optional*, defaults to 1): The gates learn so many times faster.
        save_trainable_only (`bool`, *optional*, defaults to `False`):
            Whether checkpoints hold the trained parameters alone. They are loaded by [`load_trainable`] into a model
            that has its backbones already.
        skip_bad_samples (`bool`, *optional*, defaults to `False`):
            Whether a row that cannot be trained on is counted, reported and replaced by another one of its source.
            It is an error otherwise.
        packing (`bool`, *optional*, defaults to `False`):
            Whether the rows of a micro-batch are packed as documents into fewer rows, of at most `max_length` tokens of
            their source ([`FlamingoDataCollator`]). The loss stays the same.
        max_non_finite_steps (`int`, *optional*, defaults to 3):
            The training stops with an error when it logs after this many optimizer steps in a row whose loss is NaN or
            infinite. Whatever the number, a model that has NaN or infinite weights is not saved and not published.

        evaluation_max_rows (`int`, *optional*, defaults to 200): Held-out rows of each source that a recipe evaluates.
        generation_max_new_tokens (`int`, *optional*, defaults to 20): Length of generated texts in an evaluation.
        generation_num_beams (`int`, *optional*, defaults to 1): Their beams.

    Defaults that differ from `TrainingArguments`: `learning_rate=1e-4`, `lr_scheduler_type="constant_with_warmup"`,
    `weight_decay=0.1` (it acts on the matrices of the gated blocks alone), `logging_steps=10`,
    `remove_unused_columns=False` (columns of images and text are no arguments of the model),
    `logging_nan_inf_filter=False` (a loss of NaN is shown), and `ddp_find_unused_parameters=True` (a batch without
    images leaves the resampler unused).

    With a [`DataMixture`], whose sources have their own batch sizes and whose batches depend on their place alone,
    [`FlamingoTrainer`] refuses the fields that would have no effect: see [`check_arguments_for_mixture`].
    """

    mixture_strategy: MixtureStrategy = field(
        default="accumulate", metadata={"help": "Accumulate all sources in each step, or take them in turn."}
    )
    gate_learning_rate_multiplier: float = field(
        default=1.0, metadata={"help": "The gates learn so many times faster than the rest."}
    )
    save_trainable_only: bool = field(
        default=False, metadata={"help": "Whether checkpoints hold the trained parameters alone."}
    )
    skip_bad_samples: bool = field(
        default=False, metadata={"help": "Whether rows that cannot be trained on are counted and replaced."}
    )
    packing: bool = field(default=False, metadata={"help": "Whether short documents share a row of a micro-batch."})

    max_non_finite_steps: int = field(
        default=3, metadata={"help": "Stop after this many steps in a row whose loss is NaN or infinite."}
    )

    evaluation_max_rows: int = field(default=200, metadata={"help": "Held-out rows of each source, at most."})
    generation_max_new_tokens: int = field(default=20, metadata={"help": "Length of texts generated in evaluation."})
    generation_num_beams: int = field(default=1, metadata={"help": "Beams of texts generated in evaluation."})

    per_device_train_batch_size: int = field(
        default=DefaultSize(8), metadata={"help": "Rows per micro-batch, where `train_dataset` is not a mixture."}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "The peak learning rate."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "The schedule."})
    weight_decay: float = field(default=0.1, metadata={"help": "Of the matrices of the gated blocks."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Whether to remove columns that are no arguments of the model."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Whether to hide losses of NaN."})
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Whether DDP looks for parameters that a batch left unused."}
    )

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"`{f.name}` is {value}, with which nothing can be trained. Give a finite number.")
        super().__post_init__()
        if self.mixture_strategy not in get_args(MixtureStrategy):
            raise ValueError(
                f"`mixture_strategy` is {self.mixture_strategy!r}. Known strategies are "
                f"{', '.join(get_args(MixtureStrategy))}."
            )
        for name in (
            "gradient_accumulation_steps",
            "max_non_finite_steps",
            "evaluation_max_rows",
            "generation_max_new_tokens",
            "generation_num_beams",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1.")
        if not 0 < self.gate_learning_rate_multiplier < math.inf:
            raise ValueError(
                f"`gate_learning_rate_multiplier` is {self.gate_learning_rate_multiplier}. At 0 or below, gates that "
                "start closed stay closed and the images are never used: give a number above 0."
            )
