# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run small trainings for the tests, in this process or in separate processes that may be killed."""

import contextlib
import hashlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import torch
from factory import IMAGE_SIZE, tiny_flamingo, tiny_processor
from PIL import Image
from transformers import TrainerCallback, TrainingArguments

from transformers_flamingo import FlamingoModel
from transformers_flamingo.pretraining import VisionPretrainingArguments, pretrain_vision
from transformers_flamingo.training import (
    DataMixture,
    DataSource,
    FlamingoTrainer,
    FlamingoTrainingArguments,
    get_last_checkpoint,
)


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}

_TINY = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TOWERS = {
    "vision_config": {"model_type": "clip_vision_model", "image_size": IMAGE_SIZE, "patch_size": 4, **_TINY},
    "text_config": {"model_type": "clip_text_model", "max_position_embeddings": 16, **_TINY},
    "max_length": 16,
    "projection_dim": 16,
    "vocab_size": 300,
}


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (number * 20 % 256, number % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_pairs(directory: Path, size: int, first: int = 0, broken: tuple[int, ...] = ()) -> str:
    """Write image-text pairs to a folder; the words of pair `i` encode `i`. Return the path of the file."""
    directory.mkdir(parents=True)
    lines = []
    for i in range(first, first + size):
        (directory / f"{i}.png").write_bytes(b"broken" if i in broken else png(i))
        lines.append(json.dumps({"file_name": f"{i}.png", "text": words(i)}))
    (directory / "metadata.jsonl").write_text("\n".join(lines))
    return str(directory / "metadata.jsonl")


def write_shards(directory: Path, num_shards: int, size: int, broken: tuple[int, ...] = ()) -> str:
    """Write WebDataset shards of such pairs, `size` in each. Return a pattern."""
    directory.mkdir(parents=True)
    for shard in range(num_shards):
        with tarfile.open(directory / f"{shard:03}.tar", "w") as tar:
            for i in range(shard * size, (shard + 1) * size):
                image = b"broken" if i in broken else png(i)
                for suffix, data in (("png", image), ("txt", words(i).encode())):
                    info = tarfile.TarInfo(f"{i:05}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return str(directory / "*.tar")


def words(number: int) -> str:
    return f"w{10 + number // 40} w{50 + number % 40}" + " w7" * (number % 3)


def numbers(input_ids: torch.Tensor) -> list[int]:
    """Return the numbers of the pairs in a batch."""
    rows = [[int(token) for token in row if 10 <= token < 90] for row in input_ids]
    return [(high - 10) * 40 + low - 50 for high, low in rows]


def source(name: str, path: str, **kwargs) -> DataSource:
    return DataSource(name=name, format="image_text_pairs", path=path, **{"batch_size": 2, **kwargs})


def model(**kwargs) -> FlamingoModel:
    flamingo = tiny_flamingo(**{"gates": 0.2, **kwargs})
    flamingo.freeze_backbones()
    return flamingo


def digest(flamingo: FlamingoModel) -> str:
    sums = hashlib.sha256()
    for name, tensor in sorted(flamingo.state_dict().items()):
        sums.update(name.encode() + tensor.numpy().tobytes())
    return sums.hexdigest()


def trainer(output_dir: str | Path, sources: list[DataSource], *, flamingo=None, cls=FlamingoTrainer, **kwargs):
    callbacks = kwargs.pop("callbacks", [])
    eval_dataset = kwargs.pop("eval_dataset", None)
    arguments = {
        "output_dir": str(output_dir),
        "max_steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    processor = tiny_processor()
    return cls(
        model() if flamingo is None else flamingo,
        FlamingoTrainingArguments(**{**arguments, **kwargs}),
        train_dataset=DataMixture(sources, processor),
        eval_dataset=eval_dataset,
        processing_class=processor,
        callbacks=callbacks,
    )


class _Kill(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class _KillWhileSaving(FlamingoTrainer):
    """A trainer that is killed at `step`, in the middle of a file (`"optimizer"`), or when only the manifest is missing."""

    moment, step = "optimizer", 4

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.moment == "optimizer" and self.state.global_step == self.step and self.args.should_save:
            file = Path(output_dir) / "optimizer.pt"
            file.write_bytes(file.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

    def _save_run_state(self, directory: Path) -> None:
        super()._save_run_state(directory)
        if self.moment == "manifest" and self.state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(result: str | Path, output_dir: str | Path, sources: list[DataSource], kill: str | None = None, **kwargs):
    """Start or resume a run, and write losses and weights to a file; `kill` is a step or a moment in step 4."""
    kwargs["flamingo"] = model(**kwargs.pop("model", {}))  # a model passed to a process would share its memory
    if kill is not None and kill.isdigit():
        kwargs["callbacks"] = [_Kill(int(kill))]
    elif kill is not None:
        kwargs["cls"] = type("_Killed", (_KillWhileSaving,), {"moment": kill})
    run = trainer(output_dir, sources, **kwargs)
    last = get_last_checkpoint(output_dir)
    with contextlib.redirect_stdout(io.StringIO()):
        run.train(resume_from_checkpoint=last)
    if run.is_world_process_zero():
        record = {
            "begun_at": 0 if last is None else int(last.rpartition("-")[2]),
            "world_size": run.args.world_size,
            "logs": run.state.log_history,
            "digest": digest(run.accelerator.unwrap_model(run.model)),
        }
        Path(result).write_text(json.dumps(record))


def train_on_features(directory: str, path: str, **kwargs) -> None:
    """Train on sources that cache features in `directory`; each process writes its losses and how many images it encoded."""
    datasets.config.HF_DATASETS_CACHE = Path(directory) / "cache"
    flamingo = model(text_kwargs=NO_DROPOUT)
    with counted_images(flamingo) as seen:
        run = trainer(directory, [source("a", path, cache_features=True, **kwargs)], flamingo=flamingo, max_steps=3)
        with contextlib.redirect_stdout(io.StringIO()):
            run.train()
    record = {"world_size": run.args.world_size, "images": sum(seen), "losses": losses(run.state.log_history)}
    Path(directory, f"{run.args.process_index}.json").write_text(json.dumps(record))


def contrast(directory: str, path: str, batch_size: int) -> None:
    """Pretrain a vision encoder; the first process writes its losses."""
    datasets.config.HF_DATASETS_CACHE = Path(directory) / "cache"
    arguments = VisionPretrainingArguments(data_path=path, **TOWERS)
    training = TrainingArguments(
        directory,
        max_steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=batch_size,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to="none",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        run = pretrain_vision(arguments, training)
    logs = [{key: entry[key] for key in ("loss", "grad_norm")} for entry in run.state.log_history if "loss" in entry]
    if run.is_world_process_zero():
        Path(directory, "record.json").write_text(json.dumps({"world_size": run.args.world_size, "logs": logs}))


@contextlib.contextmanager
def counted_images(flamingo: FlamingoModel) -> Iterator[list[int]]:
    """Count the images that each call of the vision encoder gets."""
    seen = []

    def count(module, args, kwargs):
        seen.append(len(kwargs["pixel_values"]))

    handle = flamingo.vision_model.register_forward_pre_hook(count, with_kwargs=True)
    yield seen
    handle.remove()


def losses(logs: list[dict]) -> list[dict]:
    """Return all losses and gates of the log, which must not differ by a bit."""
    names = ("loss", "gate", "step", "grad_norm", "skipped")
    kept = [{key: value for key, value in entry.items() if key.startswith(names)} for entry in logs]
    return [entry for entry in kept if "loss" in entry]


def gradients_of_two(directory: str, *, checkpointing: bool | None = None) -> None:
    """Write the gradients of two processes in DDP, as the stock `Trainer` uses it, only one of which has an image."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    flamingo = model(text_kwargs=NO_DROPOUT).train()
    if checkpointing is not None:
        flamingo.activation_checkpointing_enable({"use_reentrant": checkpointing})
    wrapped = torch.nn.parallel.DistributedDataParallel(flamingo)
    for step in range(2):
        for inputs in (with_image(step), without_image(step))[rank::2]:
            wrapped(**inputs).loss.backward()
    record = {name: p.grad for name, p in flamingo.named_parameters() if p.requires_grad}
    torch.save(record, Path(directory, f"{rank}.pt"))
    # The group is not destroyed: with gloo, the end of `wrapped` after that can wait forever for a thread that needs the
    # interpreter's lock.
    torch.distributed.barrier()


def with_image(step: int) -> dict:
    input_ids = torch.tensor([[98, 5 + step, 6, 7]])
    images = torch.randn(1, 1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(step))
    return {"input_ids": input_ids, "labels": input_ids, "pixel_values": images}


def without_image(step: int) -> dict:
    input_ids = torch.tensor([[8, 9 + step, 10]])
    return {"input_ids": input_ids, "labels": input_ids}
