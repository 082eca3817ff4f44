# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the pretraining of a backbone: its data and its model."""

from dataclasses import dataclass, field, fields
from typing import Any

from datasets import Dataset

from ..data import FORMATS, Chunk, Reader
from ..data.columns import parse_record, require_text
from ..training.arguments import parse_json


@dataclass(frozen=True)
class Texts(Reader):
    """Read text without images: the column `text`."""

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        return [Chunk(require_text(parse_record(row), "text"))]


#: The layouts of files that a backbone is pretrained on: those of a Flamingo, and text without images.
PRETRAINING_FORMATS = {"text": Texts, **FORMATS}


@dataclass(kw_only=True)
class PretrainingArguments:
    """
    Arguments that both backbones share: the data, the language model (or text tower) and its tokenizer.

    See [`VisionPretrainingArguments`] and [`TextPretrainingArguments`].
    """

    data_path: str = field(metadata={"help": "A file, a glob pattern or a folder."})
    data_format: str = field(metadata={"help": "Layout of the files."})
    data_split: str | None = field(default=None, metadata={"help": "Read only files with this word in their name."})
    data_options: dict | str | None = field(default=None, metadata={"help": "Fields of the reader, as JSON."})
    text: str | None = field(default=None, metadata={"help": "Pretrained text model to start from."})
    text_config: dict | str | None = field(
        default=None, metadata={"help": "Instead of `text`: model_type and fields of a new text model, as JSON."}
    )
    tokenizer: str | None = field(default=None, metadata={"help": "Its tokenizer (default: that of `text`)."})
    vocab_size: int = field(
        default=8192, metadata={"help": "Maximum size of a tokenizer trained on the data, if none is given."}
    )

    def __post_init__(self):
        for name in [f.name for f in fields(self) if f.name.endswith(("_options", "_config"))]:
            setattr(self, name, parse_json(name, getattr(self, name)))
        if self.data_format not in PRETRAINING_FORMATS:
            raise ValueError(
                f"`data_format` is {self.data_format!r}. Known formats are {', '.join(PRETRAINING_FORMATS)}."
            )
        self._check_one_of("text")

    def _check_one_of(self, side: str) -> None:
        name, config = getattr(self, side), getattr(self, f"{side}_config")
        if (name is None) == (config is None):
            raise ValueError(
                f"`{side}` is {name!r} and `{side}_config` is {config!r}. Give exactly one of them: a pretrained model to "
                "start from, or the configuration of a model with random weights."
            )
        if config is not None and "model_type" not in config:
            raise ValueError(
                f"`{side}_config` is {config!r}, without `model_type`. Add the type of the model, such as 'gpt2'."
            )

    @property
    def reader(self) -> Reader:
        """Return the reader of `data_format`, with `data_options`."""
        return PRETRAINING_FORMATS[self.data_format](**(self.data_options or {}))

    def load(self) -> Dataset:
        """
        Open the files.

        Raises:
            ValueError: there is no row.
        """
        rows = self.reader.load(self.data_path, split=self.data_split)
        if len(rows) == 0:
            raise ValueError(f"There is no row in {self.data_path!r}. Check `data_path` and `data_split`.")
        return rows


@dataclass(kw_only=True)
class VisionPretrainingArguments(PretrainingArguments):
    """
    Arguments of [`pretrain_vision`]. They combine with `TrainingArguments` in one `HfArgumentParser`.

    Args:
        data_path (`str`): A file, a glob pattern or a folder, as [`~data.Reader.load`] takes it.
        data_format (`str`, *optional*, defaults to `"image_text_pairs"`): A key of `FORMATS`. Each row has one image.
        data_split (`str`, *optional*): Read only files with this word in their name or folder.
        data_options (`dict`, *optional*): Fields of the reader.
        vision, text (`str`, *optional*):
            Names or directories of pretrained encoders to start from. Of a two-tower model, the tower is used. If both
            name the same two-tower model, its projections and temperature are used too.
        vision_config, text_config (`dict`, *optional*):
            Instead of `vision` or `text`: `model_type` and fields of an encoder with random weights, such as
            `clip_vision_model` and `clip_text_model`.
        image_processor (`str`, *optional*):
            Name or directory. Defaults to that of `vision`, or with `vision_config` to CLIP's at its `image_size`.
        tokenizer (`str`, *optional*):
            Name or directory. Defaults to that of `text`, or with `text_config` to one trained on the captions.
        vocab_size (`int`, *optional*, defaults to 8192): Maximum size of a tokenizer trained on the captions.
        max_length (`int`, *optional*, defaults to 64): Maximum number of tokens of a caption.
        projection_dim (`int`, *optional*, defaults to 512): Width `K` of the embeddings that are compared.

    Raises:
        ValueError: arguments contradict each other.
    """

    data_format: str = field(default="image_text_pairs", metadata={"help": "Layout of the files."})
    vision: str | None = field(default=None, metadata={"help": "Pretrained vision encoder to start from."})
    vision_config: dict | str | None = field(
        default=None, metadata={"help": "Instead of `vision`: model_type and fields of a new encoder, as JSON."}
    )
    image_processor: str | None = field(
        default=None, metadata={"help": "Its image processor (default: that of `vision`)."}
    )
    max_length: int = field(default=64, metadata={"help": "Maximum number of tokens of a caption."})
    projection_dim: int = field(
        default=512, metadata={"help": "Width of the embeddings in which images and texts are compared."}
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_one_of("vision")


@dataclass(kw_only=True)
class TextPretrainingArguments(PretrainingArguments):
    """
    Arguments of [`pretrain_text`]. They combine with `TrainingArguments` in one `HfArgumentParser`.

    Args:
        data_path, data_split, data_options: As in [`VisionPretrainingArguments`].
        data_format (`str`, *optional*, defaults to `"text"`):
            `"text"`: the column `text`; or a key of `FORMATS`, whose images are skipped.
        text (`str`, *optional*): Name or directory of a causal language model to start from.
        text_config (`dict`, *optional*): Instead of `text`: `model_type` and fields of a model with random weights.
        tokenizer (`str`, *optional*):
            Name or directory. Defaults to that of `text`, or with `text_config` to one trained on the texts.
        vocab_size (`int`, *optional*, defaults to 8192): Maximum size of a tokenizer trained on the texts.
        block_size (`int`, *optional*, defaults to 512): Tokens of a training row.

    Raises:
        ValueError: arguments contradict each other.
    """

    data_format: str = field(default="text", metadata={"help": "Layout of the files."})
    block_size: int = field(default=512, metadata={"help": "Tokens of a training row."})
