# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo predict`: label many images after a few examples."""

import argparse
from dataclasses import dataclass, field
from typing import Any, Literal

from .parsing import add_fields, check_range, read_fields


HELP = "Label images after a few examples: captions, answers or classes, in a file."


@dataclass(kw_only=True)
class PredictArguments:
    """
    Arguments of `flamingo predict`.

    Args:
        images (`str`): Folder, file or pattern.
        model (`str`): Folder or Hub name.
        out (`str`): File of the predictions.
        demonstrations (`str`, *optional*): Folder, file or pattern.
        task (`str`, *optional*): `"caption"`, `"answer"` or `"classify"`.
        candidates (`list[str]`, *optional*): The possible texts.
        candidates_file (`str`, *optional*): A file with a candidate in each line.
        question (`str`, *optional*): The question about all images.
        selection (`str`, *optional*, defaults to `"fixed"`): How demonstrations are chosen.
        shots (`int`, *optional*): Number of demonstrations of a query.
        prompt (`str`, *optional*): Text between an image and its answer.
        max_new_tokens (`int`, *optional*): Maximum number of tokens of a text.
        num_beams (`int`, *optional*): Number of beams.
        top_candidates (`int`, *optional*): Number of candidates whose probabilities are written.
        index_dir (`str`, *optional*), clip (`str`, *optional*), faiss (`str`, *optional*): As of [`FewShotPredictor`].
        split, demonstrations_split (`str`, *optional*): Words in names of files.
        format, demonstrations_format (`str`, *optional*): Names of layouts.
        media_root (`str`, *optional*): Folder that paths in tables start from.
        batch_size (`int`, *optional*, defaults to 8): Images computed together.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights; `"auto"` is as saved.
        seed (`int`, *optional*, defaults to 0): Seed of random demonstrations.

    Raises:
        ValueError: a number is out of its range, or candidates are given twice.
    """

    images: str
    model: str = field(metadata={"help": "Directory or Hub name of the model."})
    out: str = field(
        metadata={"help": "File to write, .parquet or .jsonl. The same command resumes it after an interruption."}
    )
    demonstrations: str | None = field(
        default=None,
        metadata={
            "help": "Folder, file or pattern of images with texts, in any layout that training reads. Without it there are no shots."
        },
    )
    task: Literal["caption", "answer", "classify"] | None = field(
        default=None,
        metadata={
            "help": "By default answer, if the demonstrations have questions; classify of class folders; else caption."
        },
    )
    candidates: list[str] | None = field(
        default=None,
        metadata={"help": "The possible texts, which are ranked. Default of classify: those of the demonstrations."},
    )
    candidates_file: str | None = field(default=None, metadata={"help": "File with a candidate in each line."})
    question: str | None = field(
        default=None, metadata={"help": "The question about all images. By default each row has its own."}
    )
    selection: Literal["fixed", "random", "rices"] = field(
        default="fixed",
        metadata={
            "help": "Demonstrations of an image: the same for all, random ones, or those with the most similar images."
        },
    )
    shots: int | None = field(
        default=None,
        metadata={"help": "Number of demonstrations of an image (default: all if fixed, else at most 8)."},
    )
    prompt: str | None = field(
        default=None,
        metadata={"help": "Text between image and answer (default: OpenFlamingo's; {question} is the question)."},
    )
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Maximum number of tokens of a text (default: 20; of an answer 5)."}
    )
    num_beams: int | None = field(default=None, metadata={"help": "Number of beams of a text (default: 3)."})
    top_candidates: int | None = field(
        default=None, metadata={"help": "Number of candidates whose probabilities are written (default: all)."}
    )
    index_dir: str | None = field(
        default=None, metadata={"help": "Folder that keeps the embeddings that rices compares with, for later runs."}
    )
    clip: str | None = field(
        default=None, metadata={"help": "CLIP or SigLIP that compares images (default: the model's own encoder)."}
    )
    faiss: str | None = field(
        default=None, metadata={"help": "Index of faiss for rices, such as HNSW32 (default: exact)."}
    )
    split: str | None = field(
        default=None, metadata={"help": "Take only files of the images with this word in their name."}
    )
    format: str | None = field(default=None, metadata={"help": "Layout of the images (default: found out)."})
    demonstrations_split: str | None = field(default=None, metadata={"help": "The same of the demonstrations."})
    demonstrations_format: str | None = field(default=None, metadata={"help": "The same of the demonstrations."})
    media_root: str | None = field(
        default=None, metadata={"help": "Folder that paths in tables start from (default: that of the table)."}
    )
    batch_size: int = field(default=8, metadata={"help": "Number of images computed together."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto is as saved."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of random demonstrations."})

    def __post_init__(self):
        for name in ("batch_size", "max_new_tokens", "num_beams", "top_candidates"):
            check_range(self, name, 1)
        check_range(self, "shots", 0)
        if self.question is not None and self.task not in (None, "answer"):
            raise ValueError(
                f"`--question` is {self.question!r}, but the task is {self.task!r}. Use `--task answer`, or omit it."
            )
        if self.candidates is not None and self.candidates_file is not None:
            raise ValueError("`--candidates` and `--candidates_file` are both given. Give one of them.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images and the options."""
    parser.add_argument(
        "images",
        metavar="IMAGES",
        help="Folder of images, or a file, folder or pattern of a dataset in any layout that training reads.",
    )
    add_fields(parser, PredictArguments, exclude=["images"])


def run(arguments: argparse.Namespace) -> None:
    """Predict all images, and write the file."""
    options = read_fields(PredictArguments, arguments)

    import torch
    from accelerate import PartialState

    from transformers_flamingo.evaluation.checks import check_model
    from transformers_flamingo.few_shot.prediction_files import check_output, predict_files
    from transformers_flamingo.few_shot.sources import QueryFiles
    from transformers_flamingo.few_shot.templates import TEMPLATES, check_prompt
    from transformers_flamingo.utils.loading import load_flamingo

    # On a CPU it would not see the other processes of `torchrun` by itself
    state = PartialState(cpu=not torch.accelerator.is_available())
    out = check_output(options.out)
    candidates = _read_candidates(options)
    task, shots, ids = _read_shots(options, state.is_main_process)
    prompt = TEMPLATES[task].prompt if options.prompt is None else options.prompt
    check_prompt(prompt, has_question=task == "answer")
    source = QueryFiles(
        options.images,
        task,
        prompt,
        question=options.question,
        split=options.split,
        format=options.format,
        media_root=options.media_root,
    )
    if state.is_main_process:
        print(source.reason, flush=True)
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    model, processor = load_flamingo(options.model, dtype, state.device)
    check_model(model)
    predictor = _make_predictor(options, model, processor, shots, task, candidates)
    # By the names of the options, which a message names if they differ
    made_with = {"shots" if name == "top_k" else name: value for name, value in predictor.settings().items()}
    settings = {
        **made_with,
        "images": source.fingerprint(),
        "question": options.question,
        "top_candidates": options.top_candidates,
    }
    summary = predict_files(
        predictor,
        source,
        out,
        demonstration_ids=ids,
        settings=settings,
        state=state,
        top_candidates=options.top_candidates,
    )
    if state.is_main_process:
        _report(options.out, summary)


def _make_predictor(
    options: PredictArguments, model: Any, processor: Any, shots: list[tuple], task: str, candidates: list[str] | None
) -> Any:
    from transformers_flamingo.few_shot.predictor import FewShotPredictor

    return FewShotPredictor(
        model,
        processor,
        shots,
        task,
        candidates=candidates,
        selection=options.selection,
        top_k=options.shots,
        prompt=options.prompt,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        num_beams=options.num_beams,
        clip=options.clip,
        index_dir=options.index_dir,
        faiss=options.faiss,
        seed=options.seed,
        on_error="skip",
    )


def _read_candidates(options: PredictArguments) -> list[str] | None:
    if options.candidates_file is None:
        return options.candidates
    with open(options.candidates_file, encoding="utf-8-sig") as file:
        return [line.strip() for line in file if line.strip()]


def _read_shots(options: PredictArguments, is_main: bool) -> tuple[str, list[tuple], list[str]]:
    """Return the task, and the demonstrations with their names."""
    from transformers_flamingo.few_shot.sources import check_images, read_demonstrations

    if options.demonstrations is None:
        if options.shots:
            raise ValueError(
                f"`--shots` is {options.shots}, but there are no demonstrations to show. Give some with `--demonstrations`, or omit it."
            )
        return options.task or ("caption" if options.question is None else "answer"), [], []
    read = read_demonstrations(
        options.demonstrations,
        options.task,
        question=options.question,
        split=options.demonstrations_split,
        format=options.demonstrations_format,
        media_root=options.media_root,
    )
    if options.shots is not None and options.shots > len(read.shots):
        raise ValueError(
            f"`--shots` is {options.shots}, but {options.demonstrations!r} has {len(read.shots)} demonstrations. Lower it, or add some."
        )
    if is_main:
        print(f"{read.reason}\n{len(read.shots):,} demonstrations, task: {read.task}", flush=True)
    check_images(read)
    return read.task, read.shots, read.ids


def _report(out: str, summary: dict[str, Any]) -> None:
    from transformers_flamingo.utils.names import count_of

    rows, errors = summary["rows"], summary["errors"]
    if summary["resumed"] == rows and rows:
        print(f"{out}: all {rows:,} rows were there already.", flush=True)
    else:
        resumed = f", {summary['resumed']:,} of them by earlier runs" if summary["resumed"] else ""
        print(
            f"{out}: {count_of(rows, 'row')}{resumed}; {summary['seconds']:.0f} s, {summary['images_per_second'] or 0:.1f} images/s",
            flush=True,
        )
    if errors:
        has = "row has" if errors == 1 else "rows have"
        print(f"{errors:,} {has} no prediction: see the column `error`, such as: {summary['first_error']}", flush=True)
    if rows and errors == rows:
        raise ValueError("No row could be predicted.")
