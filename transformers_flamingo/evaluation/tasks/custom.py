# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Evaluate on your own data, in a format supported for training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...data import FORMATS, BadSampleError, Chunk, Reader, detect_format, row_location
from ...data.columns import FILE, ROW, parse_record, require_column
from ...data.folders import common_folder
from ...few_shot.examples import Example
from ...few_shot.templates import check_prompt
from .common import Captioning, Choice, OpenEnded


# What to do with files of another format
_OTHER_TASKS = {
    "coco_captions": "Use `--task captioning`.",
    "image_classes": "Use `--task classification`.",
    "question_answering": "Use `--task question_answering`.",
    "vqav2": "Use `--task vqav2` or `--task okvqa`, which also read a part of their files.",
}


@dataclass(frozen=True)
class _CustomTask:
    """
    Base of the tasks over your own files, which have queries and demonstrations.

    Args:
        data (`str`): File, pattern or folder of any layout that training reads, or a dataset by `hf://`.
        support_data (`str`, *optional*): The same for demonstrations. All of `data` are then queries.
        queries_split, support_split (`str`, *optional*, defaults to `"test"` and `"train"`):
            Without `support_data`, words in the names of the files of `data`, or of their folders, with the queries and the
            demonstrations.
        media_root (`str`, *optional*): Folder that relative paths of images start from. By default it is that of the file.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: a file has both queries and demonstrations.
    """

    data: str
    support_data: str | None = None
    queries_split: str = "test"
    support_split: str = "train"
    media_root: str | None = None

    #: The formats that the task reads. The first one says what is wrong with files of none of them.
    formats = ("image_text_pairs",)

    def __post_init__(self):
        reader = self._reader
        try:
            queries, support = (reader.find(*source) for source in self._sources)
        except FileNotFoundError as error:
            if self.support_data is not None:
                raise
            raise FileNotFoundError(
                f"{error} Queries are read of the split {self.queries_split!r} of `data`, and demonstrations of {self.support_split!r}. If yours "
                "have other names, give `--option queries_split=validation` and the like, or demonstrations of their own by `--option "
                "support_data=PATH`."
            ) from error
        both = sorted(set(queries) & set(support))
        if both:
            raise ValueError(
                f"{self.name} reads queries and demonstrations from {both[0]!r}, so a query could be shown with its answer. Put them into "
                "two files, and set `support_data`, or `queries_split` and `support_split`."
            )

    @property
    def _reader(self) -> Reader:
        """
        Return the reader of the files.

        Raises:
            ValueError: they have a format that the task does not read.
        """
        path, split = self._sources[0]
        format = self.formats[0]
        try:
            found = detect_format(path, split).format
        except (OSError, ValueError):  # the reader says what is wrong
            found = format
        if found in self.formats:
            format = found
        elif found in _OTHER_TASKS:
            raise ValueError(
                f"{path!r} has files of the format {found!r}, and {self.name} reads {' and '.join(map(repr, self.formats))}. "
                f"{_OTHER_TASKS[found]}"
            )
        return FORMATS[format](media_root=self.media_root)

    @property
    def _sources(self) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
        """Return path and split of the queries, and of the demonstrations."""
        if self.support_data is not None:
            return (self.data, None), (self.support_data, None)
        return (self.data, self.queries_split), (self.data, self.support_split)

    def _documents(self, path: str, split: str | None) -> list[tuple[str, dict, Chunk]]:
        """Read the id, the row and the only chunk of each row. The id is its number or, of a file that is a row itself, its path in the folder."""
        reader = self._reader
        rows = reader.load(path, split=split)
        files = [row[FILE] for row in rows if row.get(FILE) is not None and row.get(ROW) is None]
        start = len(common_folder(files))
        documents = []
        for number, row in enumerate(rows):
            chunks = reader.read(row)
            if len(chunks) != 1:
                raise ValueError(
                    f"{self.name}: {row_location(row)} has {len(chunks)} parts, but it must be one image with one text. Fix the row, or "
                    "remove it."
                )
            # A name that is not UTF-8 could not be written
            id = row[FILE][start:].encode(errors="backslashreplace").decode() if files else str(number)
            documents.append((id, row, chunks[0]))
        return documents

    def _examples(self, path: str, split: str | None) -> list[Example]:
        raise NotImplementedError

    def queries(self) -> Sequence[Example]:
        """Return the examples of the queries' files."""
        return self._examples(*self._sources[0])

    def support(self) -> Sequence[Example]:
        """Return the examples of the demonstrations' files."""
        return self._examples(*self._sources[1])


@dataclass(frozen=True)
class CustomCaptioning(_CustomTask, Captioning):
    """
    Captioning of your own images, scored by CIDEr times 100: in files of the format `image_text_pairs`, or of `coco_captions`, such as a
    JSON file with `images` and `annotations`. Which of the two it is, is found out.

    Rows with the path of the same image are its captions, and one query. So are the texts of a row with a list of captions.

    Args:
        prompt (`str`, *optional*, defaults to `"Output:"`): The text before the caption.
    """

    prompt: str = "Output:"

    name = "captioning"
    formats = ("image_text_pairs", "coco_captions")

    def __post_init__(self):
        super().__post_init__()
        check_prompt(self.prompt, has_question=False)

    def _examples(self, path: str, split: str | None) -> list[Example]:
        captions: dict[str, tuple[str, Chunk, list[str]]] = {}
        for id, _, chunk in self._documents(path, split):
            is_path = isinstance(chunk.item, dict) and chunk.item.get("bytes") is None
            key = f"path {chunk.item['path']}" if is_path else f"row {id}"
            captions.setdefault(key, (id, chunk, []))[2].extend((chunk.text, *chunk.alternatives))
        return [
            # Those of a table are numbers of images, not of rows
            replace(self.caption_example(number if id.isdecimal() else id, chunk.item, texts), prompt=self.prompt)
            for number, (id, chunk, texts) in enumerate(captions.values())
        ]


@dataclass(frozen=True)
class CustomVqa(_CustomTask, OpenEnded):
    """
    Questions about your own images, in files of the format `question_answering`, scored by accuracy in percent.

    An answer is right if it is one of the answers in the row, ignoring case, articles and punctuation.

    Args:
        template (`str`, *optional*): The prompt, with `{question}` for the question.

    Raises:
        ValueError: the template has no `{question}`, or another name in braces.
    """

    template: str = OpenEnded.prompt

    name = "question_answering"
    formats = ("question_answering",)

    def __post_init__(self):
        super().__post_init__()
        check_prompt(self.template, has_question=True, name="template")

    def _examples(self, path: str, split: str | None) -> list[Example]:
        examples = []
        for number, row, chunk in self._documents(path, split):
            row = parse_record(row)
            answers = require_column(row, "answers", "answer")
            if isinstance(answers, dict):  # `datasets` may store a list of dicts as a dict of lists
                answers = answers.get("answer")
            answers = [answers] if isinstance(answers, str) else answers
            if not isinstance(answers, list | tuple):
                raise BadSampleError(
                    f"{row_location(row)}: the answers are {answers!r}, not a list of texts. Fix the row, or remove it."
                )
            answers = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
            answers = [answer.strip() for answer in answers if isinstance(answer, str) and answer.strip()]
            prompt = self.template.replace("{question}", require_column(row, "question").strip())
            references = list(dict.fromkeys(answers))
            if not references:
                raise BadSampleError(
                    f"{row_location(row)}: there is no answer to compare with. Fix the row, or remove it."
                )
            examples.append(Example(number, [chunk.item], prompt, chunk.text, references=references))
        return examples


@dataclass(frozen=True)
class CustomClassification(_CustomTask, Choice):
    """
    Classification of your own images, scored by accuracy in percent: in files of the format `image_text_pairs`, where each text is the
    name of a class, or in those of `image_classes`, such as a folder for each class. Which of the two it is, is found out.

    Args:
        prompt (`str`, *optional*, defaults to `"Output:"`): The text before the name.
        classes (`Sequence[str]`, *optional*): The candidates. By default they are all names that occur.

    Raises:
        ValueError: the class of an image is not one of `classes`. It is raised when the images are read.
    """

    prompt: str = "Output:"
    classes: Sequence[str] | None = None

    name = "classification"
    formats = ("image_text_pairs", "image_classes")

    def __post_init__(self):
        super().__post_init__()
        check_prompt(self.prompt, has_question=False)

    def _examples(self, path: str, split: str | None) -> list[Example]:
        documents = {source: self._documents(*source) for source in self._sources}
        names = {chunk.text: row for rows in documents.values() for _, row, chunk in rows}
        candidates = sorted(names) if self.classes is None else list(self.classes)
        unknown = sorted(set(names) - set(candidates))
        if unknown:
            raise ValueError(
                f"{row_location(names[unknown[0]])} is of class {unknown[0]!r}, which is not one of `classes`: {candidates}. Add "
                "it, or remove the row."
            )
        return [
            Example(number, [chunk.item], self.prompt, chunk.text, chunk.text, candidates, chunk.text)
            for number, _, chunk in documents[path, split]
        ]
