# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQAv2 (Goyal et al. 2017) and OK-VQA (Marino et al. 2019), in their published files."""

import json
import os
from dataclasses import dataclass
from typing import Any

from ..coco import annotations_file, find_image, image_file, read_vqa_answers, subset_of
from ..columns import FILE, parse_record
from ..data_files import open_file
from ..documents import Chunk
from ..errors import ContentError
from ..reader import Column
from .question_answering import QuestionAnswering


@dataclass(frozen=True)
class Vqav2(QuestionAnswering):
    """
    Reader of questions as VQAv2 and OK-VQA publish them, with questions and annotations in two files of one folder:

        v2_OpenEnded_mscoco_{train2014,val2014}_questions.json    v2_mscoco_{train2014,val2014}_annotations.json
        OpenEnded_mscoco_{train2014,val2014}_questions.json       mscoco_{train2014,val2014}_annotations.json
        train2014/    val2014/

    `split: train2014` (or `train`) chooses a file of questions. The folders of the images are next to it, next to its folder, or in
    `images/` there. Only the answer is supervised: the most frequent one of ten, and the first of several such.

    Args:
        media_root (`str`, *optional*): Folder of the folders of images, or of the images themselves.
        template (`str`, *optional*, defaults to `"Question:{question} Short answer:"`): The prompt before the answer.
    """

    table_names = r"questions\.json(\.\w+)?$"
    columns = (
        Column(("questions",), "records with `question_id`, `image_id` and `question`"),
        Column(("annotations",), "in the other file: records with `question_id` and `answers`"),
    )

    @staticmethod
    def make_records(content: Any, file: str) -> list[dict[str, Any]]:
        """Make a record for each question, with the path of its image and its answers."""
        questions = content.get("questions") if isinstance(content, dict) else None
        if not isinstance(questions, list):
            raise ContentError("it has no list 'questions', so it is no file of questions of VQAv2 or OK-VQA")
        subset, other = subset_of(file, content), annotations_file(file)
        try:
            with open_file(other) as source:
                annotations = json.load(source)["annotations"]
        except FileNotFoundError as error:
            raise ContentError(
                f"{other!r} with its answers is missing: these are the annotations. Put both files into one folder, by their published names; test splits "
                "have no answers",
                is_near=True,
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{other!r} with its answers cannot be read ({type(error).__name__}: {error})") from error
        answers = dict(map(read_vqa_answers, annotations))
        return [
            {
                "image": image_file(subset, row["image_id"]),
                "question": row["question"],
                "answers": answers.get(row["question_id"]),
            }
            for row in questions
        ]

    def companions(self, files: list[str]) -> list[str]:
        """Return the files with the answers."""
        return [annotations_file(file) for file in files]

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        start = self.media_root or os.path.dirname(row[FILE])
        image = find_image(start, row["image"], may_leave=self.media_root is None)
        return super()._document({**row, "image": image})
