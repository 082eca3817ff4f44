# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A task of colored squares and words, for the tests of the protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

from factory import IMAGE_SIZE, tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo.evaluation.config import EvaluationConfig
from transformers_flamingo.evaluation.evaluate import evaluate
from transformers_flamingo.evaluation.task import Prediction, Task
from transformers_flamingo.few_shot.examples import Example, GenerationSettings


def draw_image(number: int) -> Image.Image:
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (number * 37 % 256, number * 91 % 256, number * 5 % 256))


def example(number: int, **kwargs) -> Example:
    values = {
        "prompt": f"w4 w{5 + number % 3}",
        "answer": f"w{10 + number % 4} w{20 + number % 7}",
        "references": number % 4,
        "candidates": ["w10 w20", "w11", "w12 w5 w6", "w13"],
        "group": f"g{number % 3}",
    }
    return Example(id=str(number), media=[draw_image(number)], **{**values, **kwargs})


@dataclass(frozen=True)
class Words(Task):
    """`is_ranked` by candidates or generated; the score says how often the reference is met."""

    num_queries: int = 7
    num_support: int = 12

    name = "words"
    metric = "accuracy"
    demonstration_separator = " "
    generation = GenerationSettings(max_new_tokens=3, num_beams=2)

    def queries(self) -> Sequence[Example]:
        return [example(i) for i in range(self.num_queries)]

    def support(self) -> Sequence[Example]:
        return [example(i) for i in range(100, 100 + self.num_support)]

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [float(len(p.text) % 4 == p.example.references) for p in predictions]


class RankedWords(Words):
    name = "ranked-words"
    generation = None
    demonstration_separator = ""

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [float(p.text == p.example.candidates[p.example.references]) for p in predictions]


def run_words(directory, task: Task | None = None, *, batch_size: int = 3, **kwargs) -> dict:
    """Evaluate a tiny model, in as many processes as there are."""
    protocol = EvaluationConfig(**{"shots": (0, 2), "seeds": (0, 1), "support_size": 10, **kwargs})
    task = Words() if task is None else task
    return evaluate(tiny_flamingo(gates=0.7), tiny_processor(), task, directory, protocol, batch_size=batch_size)


def evaluate_together(directory, stop_after: int | None = None, **kwargs) -> None:
    """In each of several processes; `stop_after` kills the first when it has answered so many batches."""
    import os
    import signal

    task = Words()
    if stop_after is not None:
        count = 0
        ask = Words.postprocess

        def postprocess(self, text):
            nonlocal count
            count += 1
            if count > stop_after and os.environ["RANK"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            return ask(self, text)

        Words.postprocess = postprocess
    run_words(directory, task, **kwargs)


def evaluate_on_machines(folder: str, output: str, *arguments: str) -> None:
    """Run `flamingo evaluate` in the only process of a machine, each with a current folder and a log of its own."""
    import contextlib
    import os
    from pathlib import Path

    from transformers_flamingo_cli import main

    os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    machine = Path(folder) / f"machine-{os.environ['RANK']}"
    machine.mkdir()
    os.chdir(machine)
    with open("log", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        code = main(["evaluate", *arguments, "--output-dir", output])
    raise SystemExit(code)
