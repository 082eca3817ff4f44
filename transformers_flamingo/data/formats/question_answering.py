# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Questions about images."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..columns import parse_record, require_column, require_text, row_location
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import ADDRESSES, Column, Reader


@dataclass(frozen=True)
class QuestionAnswering(Reader):
    """
    Reader of questions about one image each, in `.parquet`, `.jsonl`, `.json`, or `.csv`. The columns are

        image      an embedded image or a path; also `file_name`
        question   text
        answers    a list of texts, or of {"answer": text} as in VQAv2; or `answer`, one text

    Only the answer is supervised: the most frequent one, and the first of several such. Empty answers do not count.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        template (`str`, *optional*, defaults to `"Question:{question} Short answer:"`):
            The prompt before the answer. The default is OpenFlamingo's for VQAv2, OK-VQA, TextVQA and VizWiz.
    """

    template: str = "Question:{question} Short answer:"

    columns = (
        Column(
            ("image", "file_name", *ADDRESSES),
            "an embedded image, or the path of a file; an address only with `allow_remote`",
        ),
        Column(("question",), "a text"),
        Column(("answers", "answer"), 'a list of texts, or of `{"answer": text}`; or one text'),
    )

    def __post_init__(self):
        super().__post_init__()
        if "{question}" not in self.template:
            raise ValueError(
                f"`template` is {self.template!r}, without {{question}}, so no prompt would have its question. Add {{question}}."
            )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        answers = require_column(row, "answers", "answer")
        if isinstance(answers, dict):  # how `datasets` may store a list of dicts
            answers = answers["answer"]
        answers = [answers] if isinstance(answers, str) else list(answers)
        answers = [answer["answer"] if isinstance(answer, dict) else answer for answer in answers]
        wrong = [answer for answer in answers if not isinstance(answer, str | None)]
        if wrong:
            raise BadSampleError(
                f"{row_location(row)}: an answer is {wrong[0]!r} instead of a text. Fix the row, or remove it."
            )
        answers = [answer.strip() for answer in answers if answer and answer.strip()]
        if not answers:
            raise BadSampleError(f"{row_location(row)}: no answer. Remove the row.")
        prompt = self.template.replace("{question}", require_text(row, "question"))
        image = self.require_image(row, "image", "file_name")
        return [Chunk(Counter(answers).most_common(1)[0][0], image, prompt)]
