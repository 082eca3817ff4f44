# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Evaluate held-out rows in `FlamingoTrainer`: loss and generated texts, with images and with blank images."""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..saving_flamingo import disk_errors
from .held_out import SCORES, EvalPrompt, GenerationEvalDataset


logger = logging.get_logger(__name__)

# Each evaluation writes this many generated texts to this file in the output directory
NUM_SAMPLES = 8
SAMPLES_NAME = "samples.jsonl"


class GenerationEvalMixin:
    """Mixin of `Trainer` that evaluates in [`FlamingoTrainer`]."""

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args, **kwargs):
        """Predict as `Trainer.prediction_step` does, without keeping logits if only the loss is needed."""
        if prediction_loss_only and "labels" in inputs:
            inputs = {**inputs, "skip_logits": True}
        return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)

    def evaluation_loop(self, dataloader: DataLoader, *args, **kwargs) -> EvalLoopOutput:
        """
        Evaluate as `Trainer.evaluation_loop` does.

        For a [`GenerationEvalDataset`], add the loss with blank images, and the scores of generated texts with the images and
        with blank images.
        """
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        rows = dataloader.dataset
        if not isinstance(rows, GenerationEvalDataset):
            return output
        prefix = kwargs.get("metric_key_prefix", "eval")
        blind = super().evaluation_loop(self.get_eval_dataloader(rows.blind()), *args, **kwargs)
        output.metrics[f"{prefix}_blind_loss"] = blind.metrics[f"{prefix}_loss"]
        prompts = [rows.eval_prompt(index) for index in range(len(rows))]
        texts = {"": self._generate(rows), "blind_": self._generate(rows.blind())}
        for condition, answers in texts.items():
            for name, score in SCORES.items():
                values = [score(answer, prompt.reference) for answer, prompt in zip(answers, prompts, strict=True)]
                output.metrics[f"{prefix}_{condition}{name}"] = sum(values) / len(values)
        self._log_samples(rows.source.name, prompts, texts[""], texts["blind_"])
        return output

    @torch.no_grad()
    def _generate(self, rows: GenerationEvalDataset) -> list[str]:
        """Generate a continuation of each prompt. The processes share the work and all return all texts."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).eval()
        world_size, batch_size = self.args.world_size, self.args.per_device_eval_batch_size
        # Every process has the same number of batches, because the processes gather sharded weights together
        indices = [(i * world_size + self.args.process_index) % len(rows) for i in range(-(-len(rows) // world_size))]
        texts = []
        for start in range(0, len(indices), batch_size):
            prompts = [rows.eval_prompt(index) for index in indices[start : start + batch_size]]
            inputs = rows.processor(
                images=[p.images for p in prompts] if any(p.images for p in prompts) else None,
                text=[p.prompt for p in prompts],
                padding=True,
                padding_side="left",
                add_special_tokens=prompts[0].add_special_tokens,
                return_tensors="pt",
            ).to(self.args.device)
            with self.compute_loss_context_manager():
                generated = model.generate(
                    **inputs,
                    max_new_tokens=self.args.generation_max_new_tokens,
                    num_beams=self.args.generation_num_beams,
                    do_sample=False,
                )
            new = generated[:, inputs["input_ids"].shape[1] :]
            texts += [text.strip() for text in rows.processor.batch_decode(new, skip_special_tokens=True)]
        # (process, i) -> i * world_size + process
        by_process = [texts] if world_size == 1 else gather_object([texts])
        return [text for group in zip(*by_process, strict=True) for text in group][: len(rows)]

    def _log_samples(self, name: str, prompts: list[EvalPrompt], texts: list[str], blind_texts: list[str]) -> None:
        """Write some generated texts to a file, to the log and to TensorBoard."""
        if not self.is_world_process_zero():
            return
        samples = [
            {
                "step": self.state.global_step,
                "source": name,
                "prompt": prompt.prompt,
                "text": text,
                "blind": blind_text,
                "reference": prompt.reference,
            }
            for prompt, text, blind_text in zip(prompts[:NUM_SAMPLES], texts, blind_texts, strict=False)
        ]
        directory = Path(self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with disk_errors(directory), open(directory / SAMPLES_NAME, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        lines = [f"{s['prompt']}[{s['text']}], blind [{s['blind']}], reference [{s['reference']}]" for s in samples]
        logger.info("\n".join([f"Step {self.state.global_step}, {name}:", *lines]))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(f"samples/{name}", "\n\n".join(lines), self.state.global_step)
