# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run a recipe: `flamingo train`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..saving_flamingo import write_json, write_text
from ..utils.folders import call_on_main_process
from ..utils.redaction import explain
from .build import build_model
from .checkpointing import get_last_checkpoint, lock_output
from .checks import check_arguments_for_mixture, choose_best_metric, find_idle_workers
from .held_out import GenerationEvalDataset
from .held_out_evaluation import SAMPLES_NAME
from .mixture import DataMixture
from .recipe import Recipe
from .trainer import FlamingoTrainer


logger = logging.get_logger(__name__)

RECIPE_NAME = "recipe.yaml"
REPORT_NAME = "report"


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """
    Train a model from a recipe, evaluate it, and save into the recipe's `output_dir`:

    - the model with its processor and a generated card (only adapters with `lora_rank`, only the trained parameters with
      `save_trainable_only`), and `checkpoint-*` folders according to `save_strategy`;
    - `recipe.yaml`, to run the recipe again;
    - `samples.jsonl`, some generated texts of each evaluation, if there is any;
    - `report/`: `metrics.json` and, if matplotlib is installed, curves of losses, of the loss with other images, of gates and
      branches, and of scores.

    `resume_from_checkpoint` is a checkpoint, `true` for the last complete one, or `auto` for the last complete one if there is
    any.

    Args:
        recipe ([`Recipe`]): The recipe.

    Returns:
        `dict`: the content of `metrics.json`: the scores of the last evaluation, whether the images are used, and the log.

    Raises:
        ValueError: the output directory has checkpoints, but the recipe does not say whether to resume from them; or the
            training failed, with a loss or weights of NaN. In that case nothing is saved or published, and checkpoints stay.
        TrainingInterrupted: Ctrl-C or SIGTERM stopped the training. It has saved a checkpoint.
        OSError: another training writes to the output directory, the disk is full or has too little space for what will be
            saved, or the Hub cannot be reached. In the last case the model is saved.
    """
    # The first process locks for all: the others wait for it
    with lock_output(recipe.training.output_dir) if recipe.training.process_index == 0 else nullcontext():
        return _run(recipe)


def _run(recipe: Recipe) -> dict[str, Any]:
    args = recipe.training
    # Before the weights are read. `check_recipe` lists what these find next to all else
    check_arguments_for_mixture(args, recipe.data)
    choose_best_metric(args, {source.name: source for source in recipe.evaluation} or None)
    checkpoint = _find_checkpoint(args.resume_from_checkpoint, args.output_dir)
    if (doubt := find_idle_workers(args.dataloader_num_workers)) is not None and args.process_index == 0:
        logger.warning(doubt)
    set_seed(args.seed)
    model, processor = build_model(recipe.model)
    positions = getattr(model.config.text_config, "max_position_embeddings", None)
    mixture = DataMixture([source.limit_length(positions) for source in recipe.data], processor)
    held_out = {
        source.name: GenerationEvalDataset(
            source.limit_length(positions),
            processor,
            max_rows=args.evaluation_max_rows,
            skip_bad_samples=args.skip_bad_samples,
        )
        for source in recipe.evaluation
    }
    try:
        trainer = FlamingoTrainer(
            model, args, train_dataset=mixture, eval_dataset=held_out or None, processing_class=processor
        )
    except RuntimeError as error:
        if "to be installed" not in str(error):
            raise
        extra = ' (pip install "transformers-flamingo[tensorboard]")' if "tensorboard" in args.report_to else ""
        raise ValueError(
            f"`report_to` is {args.report_to}: {explain(error)} Install it{extra}, or set `report_to: none`."
        ) from error
    trainer.stop_on_signals()
    directory = Path(args.output_dir)
    if trainer.is_world_process_zero():
        write_text(directory / RECIPE_NAME, recipe.text)
        if checkpoint is None:
            (directory / SAMPLES_NAME).unlink(missing_ok=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    scores = _last_scores(trainer) if held_out else {}
    trainer.save_model(_internal_call=True)  # does not publish yet: that comes last, with the card and the report
    trainer.save_state()
    metrics = {"scores": scores, "image_use": trainer.image_use_summary(), "log": trainer.state.log_history}
    if trainer.is_world_process_zero():
        trainer.create_model_card()
        _write_report(directory / REPORT_NAME, metrics)
    if args.push_to_hub:
        trainer.push_to_hub()
    return metrics


def _last_scores(trainer: FlamingoTrainer) -> dict[str, float]:
    """Return the scores of the model that is saved."""
    state = trainer.state
    if trainer.args.load_best_model_at_end and state.best_global_step not in (None, state.global_step):
        return trainer.evaluate()  # the last evaluation was that of another model
    # The last step was not evaluated if `eval_steps` does not divide `max_steps`
    last = [entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.global_step]
    scores = {name: value for entry in last for name, value in entry.items() if name.startswith("eval_")}
    return scores or trainer.evaluate()


def _find_checkpoint(resume: str | bool | None, output_dir: str) -> str | bool | None:
    resume = {"true": True, "false": None, "": None}.get(str(resume).lower(), resume)
    if resume == "auto":
        return call_on_main_process(lambda: _find_last_checkpoint(output_dir))
    if resume is None and any(Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise ValueError(
            f"{output_dir!r} has checkpoints of another run, which would be overwritten. To resume that run, give "
            "`--resume_from_checkpoint auto`. Otherwise give another `--output_dir`, or delete them."
        )
    return resume


def _find_last_checkpoint(output_dir: str) -> str | None:
    checkpoint = get_last_checkpoint(output_dir)
    if checkpoint is None:
        logger.warning(
            f"`resume_from_checkpoint` is auto, and {output_dir!r} has no complete checkpoint: the training starts at step 0."
        )
    else:
        logger.warning(f"The training resumes from {checkpoint}.")
    return checkpoint


def _write_report(directory: Path, metrics: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "metrics.json", metrics)
    try:
        from .report import plot_run
    except ImportError:
        logger.warning("The report has no curves, because matplotlib is not installed: pip install matplotlib.")
        return
    plot_run(directory, metrics["log"])
