# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Backbones of one's own, for [`FlamingoModel.from_vision_text_pretrained`]: a vision encoder by contrast with captions,
and a causal language model. Both are trained by the stock `Trainer`, from random weights or going on from others'.

```python
pretrain_vision(
    VisionPretrainingArguments(
        data_path="captions/*.tar",
        vision_config={"model_type": "clip_vision_model", "image_size": 64, "patch_size": 8, "hidden_size": 256, ...},
        text_config={"model_type": "clip_text_model", "hidden_size": 256, ...},
    ),
    TrainingArguments("vision", per_device_train_batch_size=256, max_steps=10_000, learning_rate=1e-3),
)
pretrain_text(
    TextPretrainingArguments(data_path="texts/*.jsonl", text_config={"model_type": "gpt2", "n_embd": 256, ...}),
    TrainingArguments("text", max_steps=10_000),
)
FlamingoModel.from_vision_text_pretrained("vision", "text")
```
"""

import copy
import dataclasses
import json
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset, Features, List, Value
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BaseImageProcessor,
    GPT2Tokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    default_data_collator,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.trainer_utils import TrainOutput

from ..data import FORMATS, BadSampleError, Chunk, Reader, decode_image, origin
from ..data.sources import record, rows_of, text_column
from ..saving_flamingo import update_folder, write_folder
from ..training.arguments import SecretFreeTrainingArguments
from ..training.callbacks import StopAtNaNCallback
from ..training.checkpointing import lock_output
from ..training.figures import check_weights_are_finite
from ..training.recipe_file import show, suggest
from ..utils.redaction import explain


@dataclass(frozen=True)
class Texts(Reader):
    """Text alone: the column `text`."""

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        return [Chunk(text_column(record(row), "text"))]


_FORMATS = {"text": Texts, **FORMATS}


@dataclass(kw_only=True)
class _PretrainingArguments:
    data_path: str = field(metadata={"help": "A file, a glob pattern or a folder."})
    data_format: str = field(metadata={"help": "The layout of the files."})
    data_split: str | None = field(default=None, metadata={"help": "Only files with this word in their name."})
    data_options: dict | str | None = field(default=None, metadata={"help": "Fields of the reader, as JSON."})
    text: str | None = field(default=None, metadata={"help": "A pretrained model of text to go on from."})
    text_config: dict | str | None = field(
        default=None, metadata={"help": "In its place, model_type and fields of one from random weights, as JSON."}
    )
    tokenizer: str | None = field(default=None, metadata={"help": "Its tokenizer (default: that of `text`)."})
    vocab_size: int = field(default=8192, metadata={"help": "Of a tokenizer trained on the data, if there is none."})

    def __post_init__(self):
        for name in [f.name for f in fields(self) if f.name.endswith(("_options", "_config"))]:
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    setattr(self, name, json.loads(value))
                except (json.JSONDecodeError, RecursionError) as error:
                    raise ValueError(f"`{name}` is {show(value)}, which is not JSON ({error}). Correct it.") from error
        if self.data_format not in _FORMATS:
            raise ValueError(f"`data_format` is {self.data_format!r}. Known formats are {', '.join(_FORMATS)}.")
        self._check_one_of("text")

    def _check_one_of(self, side: str) -> None:
        name, config = getattr(self, side), getattr(self, f"{side}_config")
        if (name is None) == (config is None):
            raise ValueError(
                f"`{side}` is {name!r} and `{side}_config` is {config!r}. Give one of them: a pretrained model to go on "
                "from, or the configuration of one that starts from random weights."
            )
        if config is not None and "model_type" not in config:
            raise ValueError(
                f"`{side}_config` is {config!r}, without `model_type`, such as 'gpt2': of which kind is it?"
            )

    @property
    def reader(self) -> Reader:
        return _FORMATS[self.data_format](**(self.data_options or {}))

    def load(self) -> Dataset:
        rows = self.reader.load(self.data_path, split=self.data_split)
        if len(rows) == 0:
            raise ValueError(f"There is no row in {self.data_path!r}. Check `data_path` and `data_split`.")
        return rows


@dataclass(kw_only=True)
class VisionPretrainingArguments(_PretrainingArguments):
    """
    What [`pretrain_vision`] trains, on what. They combine with `TrainingArguments` in one `HfArgumentParser`.

    Args:
        data_path (`str`): A file, a glob pattern or a folder, as [`~data.Reader.load`] takes it.
        data_format (`str`, *optional*, defaults to `"image_text_pairs"`): A key of `FORMATS`. Each row has one image.
        data_split (`str`, *optional*): Takes only files with this word in their name or folder.
        data_options (`dict`, *optional*): Fields of the reader.
        vision, text (`str`, *optional*):
            Names or directories of pretrained encoders to go on from. Of a two-tower model, its tower; if both name
            the same two-tower model, its projections and temperature too.
        vision_config, text_config (`dict`, *optional*):
            In their place, `model_type` and fields of an encoder from random weights, such as `clip_vision_model` and
            `clip_text_model`.
        image_processor (`str`, *optional*):
            Name or directory; that of `vision` by default, and for `vision_config` CLIP's at its `image_size`.
        tokenizer (`str`, *optional*): Likewise that of `text`, and for `text_config` one trained on the captions.
        vocab_size (`int`, *optional*, defaults to 8192): Of such a tokenizer, at most.
        max_length (`int`, *optional*, defaults to 64): Tokens of a caption, at most.
        projection_dim (`int`, *optional*, defaults to 512): Width of the space in which images and texts meet.

    Raises:
        ValueError: arguments that contradict each other.
    """

    data_format: str = field(default="image_text_pairs", metadata={"help": "The layout of the files."})
    vision: str | None = field(default=None, metadata={"help": "A pretrained vision encoder to go on from."})
    vision_config: dict | str | None = field(
        default=None, metadata={"help": "In its place, model_type and fields of one from random weights, as JSON."}
    )
    image_processor: str | None = field(
        default=None, metadata={"help": "Its image processor (default: that of `vision`)."}
    )
    max_length: int = field(default=64, metadata={"help": "Tokens of a caption, at most."})
    projection_dim: int = field(default=512, metadata={"help": "Width of the space in which images and texts meet."})

    def __post_init__(self):
        super().__post_init__()
        self._check_one_of("vision")


@dataclass(kw_only=True)
class TextPretrainingArguments(_PretrainingArguments):
    """
    What [`pretrain_text`] trains, on what. They combine with `TrainingArguments` in one `HfArgumentParser`.

    Args:
        data_path, data_split, data_options: As in [`VisionPretrainingArguments`].
        data_format (`str`, *optional*, defaults to `"text"`):
            `"text"`: the column `text`; or a key of `FORMATS`, whose images are left out.
        text (`str`, *optional*): Name or directory of a causal language model to go on from.
        text_config (`dict`, *optional*): In its place, `model_type` and fields of one from random weights.
        tokenizer (`str`, *optional*): Name or directory; that of `text`, or one trained on the texts, by default.
        vocab_size (`int`, *optional*, defaults to 8192): Of such a tokenizer, at most.
        block_size (`int`, *optional*, defaults to 512): Tokens of a training row.

    Raises:
        ValueError: arguments that contradict each other.
    """

    data_format: str = field(default="text", metadata={"help": "The layout of the files."})
    block_size: int = field(default=512, metadata={"help": "Tokens of a training row."})


# The vision encoder.


def contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor | float
) -> torch.Tensor:
    """
    The paper's two-term contrastive loss: to find the image of each text, and the text of each image (Alayrac et al.
    2022, appendix B.1.3). It is the sum of both; CLIP's is their mean.

    Args:
        image_embeds, text_embeds (`torch.Tensor` of shape `(B, K)`): Normalised. Row `i` of one belongs to row `i` of
            the other and to no other, so that a caption that occurs twice counts as wrong for the other image.
        logit_scale (`torch.Tensor` of shape `()`): The inverse temperature.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    # In half precision, logits near 100 would be half a unit apart
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = logit_scale * text_embeds.float() @ image_embeds.float().T  # (B, B): a text in each row
    pairs = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)


class _GatherWithGradient(torch.autograd.Function):
    """
    The rows `(B, K)` of all processes, `(processes * B, K)`.

    Each process computes the same loss of them, so the gradient of its rows is known without another exchange. It is
    given times the number of processes, because gradients of parameters are averaged over processes afterwards.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()


class ContrastiveTrainer(Trainer):
    """
    `Trainer` of a two-tower model such as `CLIPModel` or `VisionTextDualEncoderModel` by [`contrastive_loss`].

    The negatives are all other pairs of the step over **all processes**, and the gradient goes through all of them: two
    processes with batches of 128 compute what one with 256 computes. Micro-batches of gradient accumulation are not
    each other's negatives. The temperature stays above 0.01, as CLIP's.
    """

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        outputs = model(**inputs)
        embeds = outputs.image_embeds, outputs.text_embeds
        if self.args.world_size > 1:
            embeds = map(_GatherWithGradient.apply, embeds)
        logit_scale = self.accelerator.unwrap_model(model).logit_scale
        loss = contrastive_loss(*embeds, logit_scale.exp().clamp(max=100))
        return (loss, outputs) if return_outputs else loss


@dataclass
class ContrastiveCollator:
    """
    Rows of a data set as `pixel_values` `(B, C, H, W)`, `input_ids` and `attention_mask` `(B, T)`.

    Args:
        reader ([`~data.Reader`]): Reads the rows.
        image_processor, tokenizer: Make the tensors.
        max_length (`int`): Tokens of a caption, at most, with the end of the sequence behind it.

    Raises:
        BadSampleError: a row has not one image with a text, or it cannot be read. The message names file and row.
    """

    reader: Reader
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = [self._pair(row) for row in rows]
        images, texts = zip(*pairs, strict=True)
        # A tower may read the caption at its end. Tokenizers of language models put no token there
        input_ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length - 1)["input_ids"]
        special = set(self.tokenizer.all_special_ids)
        input_ids = [ids if ids[-1] in special else [*ids, self.tokenizer.eos_token_id] for ids in input_ids]
        batch = self.tokenizer.pad({"input_ids": input_ids}, padding_side="right", return_tensors="pt")
        pixels = self.image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        return {**batch, "pixel_values": pixels["pixel_values"]}

    def _pair(self, row: dict[str, Any]) -> tuple[Any, str]:
        chunks = [chunk for chunk in self.reader.read(row) if chunk.medium is not None and chunk.text]
        if len(chunks) != 1 or isinstance(chunks[0].medium, list):
            raise BadSampleError(
                f"{origin(row)}: a row with {len(chunks)} images or videos with text. To contrast images with texts, "
                "each row needs one image with its text."
            )
        return decode_image(chunks[0].medium, origin(row)), chunks[0].text


def pretrain_vision(arguments: VisionPretrainingArguments, training: TrainingArguments) -> Trainer:
    """
    Train a vision encoder by contrasting images with their captions, as the paper trains its own (Alayrac et al. 2022,
    appendix B.1.3), by [`ContrastiveTrainer`]. There is no augmentation of images.

    `training.output_dir` then holds the vision tower with its image processor, for
    [`FlamingoModel.from_vision_text_pretrained`]. The text tower is left in the checkpoints alone, as in the paper; a
    tokenizer that was trained for it is in `tokenizer/`.

    Args:
        arguments ([`VisionPretrainingArguments`]): What is trained, on what.
        training (`TrainingArguments`): How. The last rows of an epoch that fill no batch are left out, for batches of
            all processes must be of one size.

    Returns:
        `Trainer`, after its training.

    Raises:
        ValueError: the parts do not fit together, or there are fewer rows than in a batch.
        BadSampleError: a row cannot be trained on. The message names file and row.
    """
    training = _private_copy(training)
    training.remove_unused_columns = False
    training.dataloader_drop_last = True
    with lock_output(training.output_dir) if training.process_index == 0 else nullcontext():
        return _pretrain_vision(arguments, training)


def _pretrain_vision(arguments: VisionPretrainingArguments, training: TrainingArguments) -> Trainer:
    set_seed(training.seed)
    rows = arguments.load()
    batch_size = training.train_batch_size * training.world_size
    if batch_size < 2:
        raise ValueError(
            "`per_device_train_batch_size` is 1, but a caption is told from the others of its batch: of one there is nothing to "
            "learn, and the loss is 0. Give at least 2, as large as fits."
        )
    if len(rows) < batch_size:
        raise ValueError(
            f"There are {len(rows)} rows and {batch_size} in a batch of all processes, so there is no whole batch. "
            "Lower `per_device_train_batch_size`."
        )
    tokenizer = _load_tokenizer(arguments, rows, training, Path(training.output_dir) / "tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # behind the first one, which ends the caption
    model = _two_towers(arguments, tokenizer)
    image_processor = _image_processor(arguments, model)
    trainer = ContrastiveTrainer(
        model,
        training,
        train_dataset=rows,
        data_collator=ContrastiveCollator(arguments.reader, image_processor, tokenizer, arguments.max_length),
        callbacks=[StopAtNaNCallback()],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    check_weights_are_finite(model.parameters(), trainer.accelerator)
    if trainer.is_world_process_zero():
        with update_folder(training.output_dir) as partial:
            model.vision_model.save_pretrained(partial)
            image_processor.save_pretrained(partial)
    trainer.accelerator.wait_for_everyone()
    return trainer


def _two_towers(arguments: VisionPretrainingArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    if arguments.vision is not None and arguments.vision == arguments.text:
        model = AutoModel.from_pretrained(arguments.vision)
    else:
        vision = _tower("vision", arguments.vision, arguments.vision_config)
        text = _tower("text", arguments.text, arguments.text_config, tokenizer)
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            vision.config, text.config, projection_dim=arguments.projection_dim
        )
        model = VisionTextDualEncoderModel(config, vision_model=vision, text_model=text)
    config = model.config.text_config
    _check_vocabulary(config, tokenizer)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and arguments.max_length > positions:
        raise ValueError(
            f"`max_length` is {arguments.max_length}, but the text tower has {positions} positions: lower it."
        )
    # To CLIP's text tower, 2 stands for an old mistake: it then takes the token with the highest id for the end
    end = len(tokenizer) - 1 if config.eos_token_id == 2 else config.eos_token_id
    if config.model_type == "clip_text_model" and end != tokenizer.eos_token_id:
        raise ValueError(
            f"The tokenizer ends captions with token {tokenizer.eos_token_id}, but the text tower reads them at token "
            f"{end} (its `eos_token_id` is {config.eos_token_id}), and would read some other one. Give the tokenizer that "
            "belongs to it, or another text tower."
        )
    return model


def _tower(
    side: str, name: str | None, values: dict[str, Any] | None, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedModel:
    if values is not None:
        return AutoModel.from_config(_new_config(values, tokenizer))
    config = AutoConfig.from_pretrained(name)
    return AutoModel.from_pretrained(name, config=getattr(config, f"{side}_config", config))


def _image_processor(arguments: VisionPretrainingArguments, model: PreTrainedModel) -> BaseImageProcessor:
    name = arguments.image_processor or arguments.vision
    if name is not None:
        return AutoImageProcessor.from_pretrained(name)
    size = model.config.vision_config.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


# The language model.


class TextBackboneTrainer(Trainer):
    """
    `Trainer` of a causal language model on rows of tokens of one length. It stops when a loss or a weight is not finite.

    Args:
        model (`PreTrainedModel`): The language model.
        training (`TrainingArguments`): The settings of the run.
        rows (`torch.utils.data.Dataset` or `datasets.Dataset`):
            `input_ids`, and `labels` where they are not the `input_ids`.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, which is saved with it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingArguments,
        rows: Dataset | torch.utils.data.Dataset,
        tokenizer: PreTrainedTokenizerBase,
    ):
        super().__init__(
            model,
            training,
            train_dataset=rows,
            # DataCollatorForLanguageModeling would ignore padding, which for many tokenizers is the end of the sequence
            data_collator=_collate_rows,
            processing_class=tokenizer,
            callbacks=[StopAtNaNCallback()],
        )

    def train(self, *args, **kwargs) -> TrainOutput:
        """Train as `Trainer.train`, and raise an error if the weights are not finite at the end."""
        result = super().train(*args, **kwargs)
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        return result


def pretrain_text(arguments: TextPretrainingArguments, training: TrainingArguments) -> Trainer:
    """
    Train a causal language model on texts.

    Texts stand one after the other, each with the end of the sequence behind it, cut into rows of `block_size` tokens;
    of each 1000 texts, the last tokens that fill no row are left out. `training.output_dir` then holds the model with
    its tokenizer, for [`FlamingoModel.from_vision_text_pretrained`].

    Args:
        arguments ([`TextPretrainingArguments`]): What is trained, on what.
        training (`TrainingArguments`): How.

    Returns:
        `Trainer`, after its training.

    Raises:
        ValueError: the parts do not fit together, or the texts fill no row.
        BadSampleError: a row cannot be read. The message names file and row.
    """
    training = _private_copy(training)
    with lock_output(training.output_dir) if training.process_index == 0 else nullcontext():
        return _pretrain_text(arguments, training)


def _pretrain_text(arguments: TextPretrainingArguments, training: TrainingArguments) -> Trainer:
    set_seed(training.seed)
    rows = arguments.load()
    tokenizer = _load_tokenizer(arguments, rows, training, Path(training.output_dir) / "tokenizer")
    if arguments.text is not None:
        model = AutoModelForCausalLM.from_pretrained(arguments.text)
    else:
        model = AutoModelForCausalLM.from_config(_new_config(arguments.text_config, tokenizer))
    _check_vocabulary(model.config, tokenizer)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and arguments.block_size > positions:
        raise ValueError(f"`block_size` is {arguments.block_size}, but the model has {positions} positions: lower it.")

    with training.main_process_first(desc="tokenizing"):
        blocks = rows.map(
            _blocks,
            batched=True,
            remove_columns=rows.column_names,
            features=Features({"input_ids": List(Value("int32"))}),
            fn_kwargs={"reader": arguments.reader, "tokenizer": tokenizer, "block_size": arguments.block_size},
            desc="Tokenizing",
        )
    if len(blocks) == 0:
        raise ValueError(
            f"The texts in {arguments.data_path!r} fill no row of {arguments.block_size} tokens: lower `block_size`."
        )
    trainer = TextBackboneTrainer(model, training, blocks, tokenizer)
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    with update_folder(training.output_dir) if training.should_save else nullcontext(training.output_dir) as directory:
        trainer.save_model(str(directory), _internal_call=True)
    if training.push_to_hub:
        trainer.push_to_hub()
    return trainer


def _blocks(
    batch: dict[str, list], reader: Reader, tokenizer: PreTrainedTokenizerBase, block_size: int
) -> dict[str, list[list[int]]]:
    texts = [_text(reader, row) for row in rows_of(batch)]
    # verbose: no warning that a text is longer than the model's context, because it is about to be cut
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = list(chain.from_iterable([*ids, tokenizer.eos_token_id] for ids in encoded))
    ends = range(block_size, len(tokens) + 1, block_size)
    return {"input_ids": [tokens[end - block_size : end] for end in ends]}


def _collate_rows(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return default_data_collator([{"labels": row["input_ids"], **row} for row in rows])


# Both.


def _private_copy(training: TrainingArguments) -> TrainingArguments:
    """Copy arguments: the caller's stay as they are, and what `Trainer` writes to the published folder has no secrets."""
    twin = copy.copy(training)
    if type(twin) is TrainingArguments:
        twin.__class__ = SecretFreeTrainingArguments  # which has the same fields
    return twin


def _text(reader: Reader, row: dict[str, Any]) -> str:
    return " ".join(filter(None, (chunk.prompt + chunk.text for chunk in reader.read(row))))


def _new_config(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedConfig:
    of_tokenizer = {}
    if tokenizer is not None:
        of_tokenizer = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        of_tokenizer["vocab_size"] = len(tokenizer)
    config = AutoConfig.for_model(values["model_type"])
    known = {f.name for f in dataclasses.fields(config)} | {*config.attribute_map, "model_type"}
    for name in values:
        if name not in known:
            raise ValueError(
                f"{type(config).__name__} has no {show(name)}, so it would have no effect.{suggest(name, known)}"
            )
    try:
        return AutoConfig.for_model(**{**of_tokenizer, **values})
    except StrictDataclassError as error:
        raise ValueError(f"{type(config).__name__} cannot be made of {show(values)}: {explain(error)}") from error


def _check_vocabulary(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model embeds {config.vocab_size}. Give the tokenizer "
            "that belongs to it, or leave `vocab_size` out of `text_config`."
        )


def _load_tokenizer(
    arguments: _PretrainingArguments, rows: Dataset, training: TrainingArguments, directory: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer that is named, or byte-level BPE as GPT-2's, learned from the texts and kept in `directory`."""
    name = arguments.tokenizer or arguments.text
    with training.main_process_first(desc="training the tokenizer"):
        if name is None and training.local_process_index == 0:
            reader, blank = arguments.reader, GPT2Tokenizer(pad_token="<pad>")
            texts = (_text(reader, row) for row in rows)
            with write_folder(directory) as partial:
                blank.train_new_from_iterator(texts, arguments.vocab_size).save_pretrained(partial)
        tokenizer = AutoTokenizer.from_pretrained(name or directory)
    if tokenizer.eos_token is None:
        raise ValueError(f"The tokenizer of {name!r} has no `eos_token`, so nothing would end a text. Give another.")
    return tokenizer
