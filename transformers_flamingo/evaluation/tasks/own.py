# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Data of one's own, in a layout that training reads, with no new code."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...training.data import FORMATS, Chunk, origin
from ...training.data.sources import column, record
from ..task import Example
from .common import Captioning, Choice, OpenEnded


@dataclass(frozen=True)
class _Own:
    """
    Args:
        data (`str`): File, pattern or folder, as [`~data.Reader.load`] takes it; also of `datasets` by `hf://`.
        queries_split, support_split (`str`, *optional*, defaults to `"test"` and `"train"`):
            Words in the names of the files, or of their folders, that hold the queries and the demonstrations.
        media_root (`str`, *optional*): Where relative paths of images start; beside the file by default.
    """

    data: str
    queries_split: str = "test"
    support_split: str = "train"
    media_root: str | None = None

    format = "image_text_pairs"

    def _documents(self, split: str) -> list[tuple[str, dict, Chunk]]:
        """Id, row and only chunk of each row."""
        reader = FORMATS[self.format](media_root=self.media_root)
        rows = reader.load(self.data, split=split)
        documents = [(str(number), row, reader.read(row)) for number, row in enumerate(rows)]
        for _, row, chunks in documents:
            if len(chunks) != 1:
                raise ValueError(
                    f"{self.name}: {origin(row)} has {len(chunks)} parts, and one image with one text counts."
                )
        return [(number, row, chunks[0]) for number, row, chunks in documents]

    def _examples(self, split: str) -> list[Example]:
        raise NotImplementedError

    def queries(self) -> Sequence[Example]:
        return self._examples(self.queries_split)

    def support(self) -> Sequence[Example]:
        return self._examples(self.support_split)


@dataclass(frozen=True)
class OwnCaptions(_Own, Captioning):
    """
    Captions of one's own images: files as those of `image_text_pairs`. Images with several captions are several rows.
    """

    name = "captioning"

    def _examples(self, split: str) -> list[Example]:
        return [self.caption_example(i, chunk.medium, [chunk.text]) for i, _, chunk in self._documents(split)]


@dataclass(frozen=True)
class OwnQuestions(_Own, OpenEnded):
    """
    Questions about one's own images: files as those of `question_answering`. An answer is right if it is one of those
    given, case, articles and punctuation aside.

    Args:
        template (`str`, *optional*): The prompt.
    """

    template: str = OpenEnded.prompt

    name = "question_answering"
    format = "question_answering"

    def _examples(self, split: str) -> list[Example]:
        examples = []
        for i, row, chunk in self._documents(split):
            row = record(row)
            answers = column(row, "answers", "answer")
            answers = [answers] if isinstance(answers, str) else answers
            answers = [answer["answer"] if isinstance(answer, dict) else answer for answer in answers]
            prompt = self.template.replace("{question}", column(row, "question"))
            examples.append(Example(i, [chunk.medium], prompt, chunk.text, references=list(dict.fromkeys(answers))))
        return examples


@dataclass(frozen=True)
class OwnClasses(_Own, Choice):
    """
    Classes of one's own images: files as those of `image_text_pairs`, each text the name of a class. All names that occur
    are candidates.

    Args:
        prompt (`str`, *optional*, defaults to `"Output:"`): What stands before the name.
    """

    prompt: str = "Output:"

    name = "classification"

    def _examples(self, split: str) -> list[Example]:
        documents = {name: self._documents(name) for name in {self.queries_split, self.support_split}}
        names = sorted({chunk.text for rows in documents.values() for _, _, chunk in rows})
        return [
            Example(i, [chunk.medium], self.prompt, chunk.text, chunk.text, names, chunk.text)
            for i, _, chunk in documents[split]
        ]
