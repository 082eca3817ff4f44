# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Write the miniature world to disk in published layouts, so that training reads it as it reads real data."""

from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value

from .data import _rng, build_image_split, build_video_split
from .world import answer_prompt


_TEXT = Value("string")
# The first text of a page: it is not about any of the pictures
_OPENINGS = ("what is this ?", "many things .", "something to describe .", "one thing and the picture of it .")

#: Splits that `flamingo miniature-data` writes, and their sizes relative to that of `train`.
SPLITS = {"train": 1.0, "validation": 0.05, "test": 0.1, "test_unseen": 0.1}
FILES = ("pairs", "pages", "questions", "videos")


def write_training_files(
    directory: str | Path, split: str = "train", *, num_pictures: int = 2000, num_videos: int = 200, seed: int = 0
) -> dict[str, Path]:
    """
    Draw one split of the miniature world and write it as four datasets:

    - `pairs.parquet`, image-text pairs: columns `image`, `text`;
    - `pages.parquet`, interleaved pages of 2 to 4 pictures, each before its caption, in the columns of OBELICS: `images`
      and `texts`, parallel lists with `None`;
    - `questions.parquet`, questions about pictures: `image`, `question`, `answers`;
    - `videos.parquet`, videos of four frames as parts of a document: `parts`.

    Pairs, pages and questions show the same `num_pictures` pictures.

    Args:
        directory (`str` or `Path`): Output folder. It is created if missing, and files in it are replaced.
        split (`str`, *optional*, defaults to `"train"`): `"train"`, `"validation"`, `"test"` or `"test_unseen"`.
        num_pictures (`int`, *optional*, defaults to 2000): Number of pictures.
        num_videos (`int`, *optional*, defaults to 200): Number of videos.
        seed (`int`, *optional*, defaults to 0): Seed of the world.

    Returns:
        `dict[str, Path]`: the files by name.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    pictures = build_image_split(split, num_pictures, seed=seed).cast_column("image", Image(decode=False))
    videos = build_video_split(split, num_videos, seed=seed).cast_column("frames", List(Image(decode=False)))
    rng = np.random.default_rng([seed, _rng(seed, split, "image").integers(2**31)])
    rows = {
        "pairs": [{"image": row["image"], "text": row["caption"]} for row in pictures],
        "pages": list(_pages(pictures, rng)),
        "questions": [
            {"image": row["image"], "question": question["question"], "answers": [question["answer"]]}
            for row in pictures
            for question in row["questions"]
        ],
        "videos": [{"parts": _video_parts(row)} for row in videos],
    }
    part = {"type": _TEXT, "text": _TEXT, "video": List(Image())}
    features = {
        "pairs": {"image": Image(), "text": _TEXT},
        "pages": {"images": List(Image()), "texts": List(_TEXT)},
        "questions": {"image": Image(), "question": _TEXT, "answers": List(_TEXT)},
        "videos": {"parts": List(part)},
    }
    paths = {name: directory / f"{name}.parquet" for name in FILES}
    for name, path in paths.items():
        Dataset.from_list(rows[name], features=Features(features[name])).to_parquet(path)
    return paths


#: The reader option with which questions of `questions.parquet` read as those that the miniature language model was trained on.
QUESTION_TEMPLATE = answer_prompt("{question}")


def _pages(pictures: Dataset, rng: np.random.Generator):
    start = 0
    while start < len(pictures):
        rows = pictures.select(range(start, min(start + int(rng.integers(2, 5)), len(pictures))))
        start += len(rows)
        images, texts = [None], [str(rng.choice(_OPENINGS))]
        for row in rows:
            images += [row["image"], None]
            texts += [None, row["caption"]]
        yield {"images": images, "texts": texts}


def _video_parts(row: dict) -> list[dict]:
    return [
        {"type": "video", "text": None, "video": row["frames"]},
        {"type": "text", "text": row["caption"], "video": None},
    ]
