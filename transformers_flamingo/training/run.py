# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Runs a recipe: `flamingo train`."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, AutoProcessor, BitsAndBytesConfig, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_json, write_text
from ..utils.loading import check_name, check_weights
from ..utils.plugins import TEXT_BACKBONES, VISION_BACKBONES, plugin_path
from ..utils.redaction import explain
from .adapters import lora_config
from .arguments import DataSource
from .checkpointing import TRAINABLE_NAME, agree, get_last_checkpoint, lock_output
from .held_out import HeldOut
from .held_out_evaluation import SAMPLES_NAME
from .mixture import DataMixture
from .recipe import ModelArguments, Recipe
from .trainer import FlamingoTrainer


logger = logging.get_logger(__name__)

RECIPE_NAME = "recipe.yaml"
REPORT_NAME = "report"


def build_model(arguments: ModelArguments) -> tuple[torch.nn.Module, FlamingoProcessor]:
    """
    The model of a recipe, frozen as it says, and its processor.

    Args:
        arguments ([`ModelArguments`]): See there.

    Returns:
        [`FlamingoModel`], or a `PeftModel` around it with `lora_rank`, and [`FlamingoProcessor`].
    """
    quantization = _quantization(arguments.quantization)
    vision = plugin_path(VISION_BACKBONES, arguments.vision)
    text = plugin_path(TEXT_BACKBONES, arguments.text)
    for name in (arguments.model, vision, text):
        if name is not None:
            check_name(name)
    if arguments.model is not None:
        for name, way in (
            ("adapter_config.json", "adapters alone: load them by `peft.PeftModel.from_pretrained` and merge them"),
            (TRAINABLE_NAME, "the trained parameters alone: load them by `load_trainable`, and save the model"),
        ):
            if (Path(arguments.model) / name).is_file():
                raise ValueError(f"{arguments.model!r} holds {way} before you go on with it.")
        processor = AutoProcessor.from_pretrained(arguments.model)
        options = {} if quantization is None else {"quantization_config": quantization}
        model, info = FlamingoModel.from_pretrained(
            arguments.model, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        check_weights(arguments.model, info)
    else:
        processor = FlamingoProcessor.from_vision_text_pretrained(vision, text)
        options = {} if quantization is None else {"text_quantization_config": quantization}
        options |= {
            "image_token_id": processor.image_token_id,
            "end_of_chunk_token_id": processor.end_of_chunk_token_id,
        }
        try:
            model = FlamingoModel.from_vision_text_pretrained(
                vision, text, **options, **(arguments.model_config or {})
            )
        except StrictDataclassError as error:
            raise ValueError(f"`model_config` has a value that does not fit: {explain(error)}") from error
        except (AttributeError, TypeError) as error:  # of a field that transformers passes on as it is
            given = [name for name in arguments.model_config or {} if name.startswith(("vision_", "text_"))]
            if not given:
                raise
            raise ValueError(
                f"`model_config` has {', '.join(given)}, and the backbone does not take them: {explain(error)}"
            ) from error
    if arguments.text_from_scratch:
        # Of the configuration that has the new rows already
        fresh = AutoModelForCausalLM.from_config(model.config.text_config)
        model.language_model.load_state_dict(fresh.state_dict())
    if arguments.lora_rank is not None:
        from peft import get_peft_model

        alpha = 2 * arguments.lora_rank if arguments.lora_alpha is None else arguments.lora_alpha
        model = get_peft_model(model, lora_config(model, r=arguments.lora_rank, lora_alpha=alpha))
    else:
        model.freeze_backbones()
        model.unfreeze_backbones(
            vision_model=arguments.train_vision,
            language_model=arguments.train_text or arguments.text_from_scratch,
        )
    return model, processor


def _quantization(name: str | None) -> BitsAndBytesConfig | None:
    if name is None:
        return None
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """
    Train as a recipe says, evaluate, and save into its `output_dir`

    - the model with its processor and a generated card (adapters with `lora_rank`, and the trained parameters alone
      with `save_trainable_only`), and `checkpoint-*` folders as its `save_strategy` says;
    - `recipe.yaml`, by which it can be run again;
    - `samples.jsonl`, some texts of each evaluation;
    - `report/`: `metrics.json` and, with matplotlib installed, curves of losses, gates and scores.

    `resume_from_checkpoint` is a checkpoint, `true` for the last whole one, or `auto` for that one if there is any.

    Args:
        recipe ([`Recipe`]): What to run.

    Returns:
        What is written to `metrics.json`: the last evaluation, and the log.

    Raises:
        ValueError: the output directory has checkpoints, and nothing says whether to resume from them; or the training has
            failed, with a loss or weights that are NaN. Nothing is saved or published then, and checkpoints stay.
        OSError: another training writes to the output directory, the disk is full, or the Hub cannot be reached. In the
            last case the model is saved.
    """
    # One process of the run stands for all: the others wait for it
    with lock_output(recipe.training.output_dir) if recipe.training.process_index == 0 else nullcontext():
        return _run(recipe)


def _run(recipe: Recipe) -> dict[str, Any]:
    args = recipe.training
    checkpoint = _checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)
    set_seed(args.seed)
    model, processor = build_model(recipe.model)
    # No text may be longer than the positions of the language model
    positions = getattr(model.config.text_config, "max_position_embeddings", None)
    data, evaluation = ([_cut(source, positions) for source in kind] for kind in (recipe.data, recipe.evaluation))
    mixture = DataMixture(data, processor)
    held_out = {
        source.name: HeldOut(
            source, processor, max_rows=args.evaluation_max_rows, skip_bad_samples=args.skip_bad_samples
        )
        for source in evaluation
    }
    try:
        trainer = FlamingoTrainer(
            model, args, train_dataset=mixture, eval_dataset=held_out or None, processing_class=processor
        )
    except RuntimeError as error:
        if "to be installed" not in str(error):
            raise
        raise ValueError(
            f"`report_to` is {args.report_to}: {explain(error)} Install it, or set `report_to: none`."
        ) from error
    directory = Path(args.output_dir)
    if trainer.is_world_process_zero():
        write_text(directory / RECIPE_NAME, recipe.text)
        if checkpoint is None:
            (directory / SAMPLES_NAME).unlink(missing_ok=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    scores = _last_scores(trainer) if held_out else {}
    trainer.save_model(_internal_call=True)  # published at the end, with its card and report
    trainer.save_state()
    metrics = {"scores": scores, "log": trainer.state.log_history}
    if trainer.is_world_process_zero():
        trainer.create_model_card()
        _write_report(directory / REPORT_NAME, metrics)
    if args.push_to_hub:
        trainer.push_to_hub()
    return metrics


def _cut(source: DataSource, positions: int | None) -> DataSource:
    limits = [limit for limit in (source.max_length, positions) if limit is not None]
    return replace(source, max_length=min(limits)) if limits else source


def _last_scores(trainer: FlamingoTrainer) -> dict[str, float]:
    """Those of the last step, measured now if they were not."""
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    scores = {name: value for entry in last for name, value in entry.items() if name.startswith("eval_")}
    return scores or trainer.evaluate()


def _checkpoint_to_resume(asked: str | bool | None, output_dir: str) -> str | bool | None:
    asked = {"true": True, "false": None, "": None}.get(str(asked).lower(), asked)
    if asked == "auto":
        return agree(lambda: get_last_checkpoint(output_dir))
    if asked is None and any(Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise ValueError(
            f"{output_dir!r} has checkpoints of another run, which would be overwritten. Go on with it by "
            "`--resume_from_checkpoint auto`, give another `--output_dir`, or delete them."
        )
    return asked


def _write_report(directory: Path, metrics: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "metrics.json", metrics)
    try:
        from .report import plot_run
    except ImportError:
        logger.warning("The report has no curves, as matplotlib is not installed: pip install matplotlib.")
        return
    plot_run(directory, metrics["log"])
