# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a vision encoder."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..saving_flamingo import update_folder
from ..training.callbacks import StopAtNaNCallback
from ..training.interruption import stopping_on_signals
from ..training.statistics import check_weights_are_finite
from .arguments import VisionPretrainingArguments
from .contrastive import ContrastiveCollator, ContrastiveTrainer
from .parts import check_vocabulary, find_checkpoint, load_tokenizer, make_config, prepare_run


def pretrain_vision(
    arguments: VisionPretrainingArguments, training: TrainingArguments, *, stops_on_signals: bool = False
) -> Trainer:
    """
    Train a vision encoder by contrasting images with their captions, as the paper trains its own (Alayrac et al. 2022,
    appendix B.1.3), with [`ContrastiveTrainer`]. Images are not augmented.

    Afterwards `training.output_dir` holds the vision tower with its image processor, for
    [`FlamingoModel.from_vision_text_pretrained`]. The text tower is saved only in the checkpoints, since a Flamingo does not
    need it. A tokenizer that was trained for it is in `tokenizer/`.

    Args:
        arguments ([`VisionPretrainingArguments`]): The data and the two towers.
        training (`TrainingArguments`):
            Arguments of the trainer. The last rows of an epoch that do not fill a batch are dropped, because the batches of
            all processes must have one size.
        stops_on_signals (`bool`, *optional*, defaults to `False`):
            Whether Ctrl-C and SIGTERM end the training after the step, with a checkpoint.

    Returns:
        `Trainer`, after its training.

    Raises:
        TrainingInterrupted: a signal ended the training.
        ValueError: the parts do not fit together, or there are fewer rows than in a batch.
        BadSampleError: a row cannot be trained on. The message names file and row.
    """
    with prepare_run(training) as training:
        training.remove_unused_columns = False
        training.dataloader_drop_last = True
        set_seed(training.seed)
        rows = arguments.load()
        _check_batch_size(len(rows), training.train_batch_size * training.world_size)
        tokenizer = load_tokenizer(arguments, rows, training)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # padding comes after the first one, which ends the caption
        model = _join_towers(arguments, tokenizer)
        image_processor = _load_image_processor(arguments, model)
        trainer = ContrastiveTrainer(
            model,
            training,
            train_dataset=rows,
            data_collator=ContrastiveCollator(arguments.reader, image_processor, tokenizer, arguments.max_length),
            callbacks=[StopAtNaNCallback()],
        )
        with stopping_on_signals(trainer, stops_on_signals):
            trainer.train(resume_from_checkpoint=find_checkpoint(training))
        check_weights_are_finite(model.parameters(), trainer.accelerator)
        if trainer.is_world_process_zero():
            with update_folder(training.output_dir) as partial:
                model.vision_model.save_pretrained(partial)
                image_processor.save_pretrained(partial)
        trainer.accelerator.wait_for_everyone()
        return trainer


def _check_batch_size(num_rows: int, batch_size: int) -> None:
    if batch_size < 2:
        raise ValueError(
            "`per_device_train_batch_size` is 1, but a caption is contrasted with the others of its batch: with only one, the loss "
            "is 0 and nothing is learned. Give at least 2, and as many as fit."
        )
    if num_rows < batch_size:
        raise ValueError(
            f"There are {num_rows} rows and {batch_size} in a batch of all processes, so no batch is complete. "
            "Lower `per_device_train_batch_size`."
        )


def _join_towers(arguments: VisionPretrainingArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    if arguments.vision is not None and arguments.vision == arguments.text:
        model = AutoModel.from_pretrained(arguments.vision)
    else:
        vision = _load_tower("vision", arguments.vision, arguments.vision_config)
        if getattr(vision.config, "hidden_size", None) is None:
            raise ValueError(
                f"The vision tower is a {vision.config.model_type}, whose configuration has no `hidden_size`. "
                "`VisionTextDualEncoderModel`, which projects both towers, needs one, so a convolutional network cannot be "
                "pretrained here. Choose a transformer such as `clip_vision_model` or `vit`."
            )
        text = _load_tower("text", arguments.text, arguments.text_config, tokenizer)
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            vision.config, text.config, projection_dim=arguments.projection_dim
        )
        model = VisionTextDualEncoderModel(config, vision_model=vision, text_model=text)
    config = model.config.text_config
    check_vocabulary(config, tokenizer)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and arguments.max_length > positions:
        raise ValueError(
            f"`max_length` is {arguments.max_length}, but the text tower has {positions} positions. Lower `max_length`."
        )
    # An `eos_token_id` of 2 makes CLIP's text tower reproduce an old mistake: it reads captions at the token with the highest id
    end = len(tokenizer) - 1 if config.eos_token_id == 2 else config.eos_token_id
    if config.model_type == "clip_text_model" and end != tokenizer.eos_token_id:
        raise ValueError(
            f"The tokenizer ends captions with token {tokenizer.eos_token_id}, but the text tower reads them at token {end} "
            f"(its `eos_token_id` is {config.eos_token_id}), so it would read the wrong token. Give the tokenizer of this text "
            "tower, or another text tower."
        )
    return model


def _load_tower(
    side: str, name: str | None, values: dict[str, Any] | None, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedModel:
    if values is not None:
        return AutoModel.from_config(make_config(values, tokenizer))
    config = AutoConfig.from_pretrained(name)
    return AutoModel.from_pretrained(name, config=getattr(config, f"{side}_config", config))


def _load_image_processor(arguments: VisionPretrainingArguments, model: PreTrainedModel) -> BaseImageProcessor:
    name = arguments.image_processor or arguments.vision
    if name is not None:
        return AutoImageProcessor.from_pretrained(name)
    size = model.config.vision_config.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
