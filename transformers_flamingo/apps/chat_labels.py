# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The part of the panel of shots that labels many images after them: a page for [`FewShotPredictor`]."""

import html
import os
from collections.abc import Iterator, Sequence
from typing import Literal

import gradio as gr

from ..few_shot.predictor import FewShotPrediction, FewShotPredictor
from .chat import FlamingoChat
from .chat_limits import MAX_LABELED, check_message, visitor_message


Kind = Literal["one of the examples' texts", "a new text"]
Row = list[str | float | None]

CLASS, TEXT = "one of the examples' texts", "a new text"
HEADERS = ["Image", "Text", "Probability"]


def make_predictor(
    chat: FlamingoChat, examples: Sequence[tuple[str, str]], kind: Kind, question: str = ""
) -> FewShotPredictor:
    """
    Make the predictor of the examples of a visitor.

    Args:
        chat ([`FlamingoChat`]): Has the model.
        examples (`Sequence[tuple[str, str]]`): Images with their texts, which are answers if there is a question.
        kind (`str`): Whether a label is one of the examples' texts, or a new one.
        question (`str`, *optional*, defaults to `""`): The question about each image.

    Raises:
        ValueError: the examples do not fit, or are too few.
    """
    texts = list(dict.fromkeys(text for _, text in examples))
    if kind == CLASS and len(texts) < 2:
        raise ValueError(
            "Labels are chosen from the texts of the examples. Add examples with two different texts or more."
        )
    candidates = texts if kind == CLASS else None
    question = question.strip()
    if question:
        shots = [(image, question, text) for image, text in examples]
        return FewShotPredictor(
            chat.model, chat.processor, shots, "answer", candidates=candidates, batch_size=4, on_error="skip"
        )
    task = "classify" if kind == CLASS else "caption"
    return FewShotPredictor(
        chat.model, chat.processor, examples, task, candidates=candidates, batch_size=4, on_error="skip"
    )


class LabelActions:
    """
    Handle what a visitor does to label images.

    Args:
        chat ([`FlamingoChat`]): Has the model.
    """

    def __init__(self, chat: FlamingoChat):
        self.chat = chat

    def label(
        self, files: list[str] | None, examples: Sequence[tuple[str, str]], kind: Kind, question: str
    ) -> Iterator[list[Row]]:
        """Label images, and yield the table each time it grows."""
        files = files or []
        rows: list[Row] = []
        try:
            if not files:
                raise ValueError("There is nothing to label: add images.")
            if len(files) > MAX_LABELED:
                raise ValueError(f"There are {len(files)} images, but at most {MAX_LABELED} can be labeled at once.")
            check_message(question, [])
            predictor = make_predictor(self.chat, examples, kind, question)
            predictions = predictor(iter(files), question.strip() or None)
            for file, prediction in zip(files, predictions, strict=True):
                rows.append(self._as_row(file, prediction, files))
                yield list(rows)
        except Exception as error:
            gr.Warning(html.escape(visitor_message(error, [*files, *(image for image, _ in examples)])), duration=None)
            yield rows

    def _as_row(self, file: str, prediction: FewShotPrediction, files: Sequence[str]) -> Row:
        text = prediction.text
        if prediction.error is not None:
            text = visitor_message(ValueError(prediction.error), files)
        score = None if prediction.score is None else round(prediction.score, 3)
        return [os.path.basename(file), text, score]


def lay_out_labels(chat: FlamingoChat, examples: gr.State) -> None:
    """Lay out the part of the panel, below the examples, and connect its button."""
    with gr.Accordion("Label images after these examples", open=False, elem_id="labels"):
        files = gr.File(
            label="Images",
            elem_id="label-images",
            file_count="multiple",
            file_types=["image"],
            type="filepath",
            height=120,
        )
        kind = gr.Radio([CLASS, TEXT], value=CLASS, label="Each gets", elem_id="label-kind")
        question = gr.Textbox(label="Question about each image (none: a caption or class)", elem_id="label-question")
        button = gr.Button("Label", elem_id="label", size="sm")
        table = gr.Dataframe(
            headers=HEADERS, datatype=["str", "str", "number"], interactive=False, wrap=True, elem_id="label-table"
        )
    button.click(
        LabelActions(chat).label,
        [files, examples, kind, question],
        [table],
        api_name="label",
        concurrency_id="answer",  # one at a time uses the model
    )
