# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The pictures: things that four houses drew, their fixed split, and augmented views.

The split is a function of the list of things, which the version of the packages fixes: 80 names are held out from all houses, three
houses train, and one tests.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance


# The houses whose drawings may be shown: google (Apache-2.0) and twitter (CC BY 4.0). Those of apple are not licensed for commercial
# use, and those of facebook have no clear license (README of `emoji-datasource`).
LICENSED_HOUSES = ("google", "twitter")
TEST_HOUSE = "apple"

CATEGORIES = ("Animals & Nature", "Food & Drink", "Activities")
# Where `--rows` takes more names from, in this order
MORE_CATEGORIES = ("Objects", "Travel & Places", "Smileys & Emotion", "Symbols")
NUM_HELD_OUT = 80

# Pixels of the side of an augmented view: what the image encoder sees. The drawings themselves have 64.
VIEW_SIZE = 224

# Kinds by the beginning of the subcategory. Other things are not asked about.
KINDS = {"animal-": "animal", "food-": "food", "plant-": "plant", "drink": "drink", "sport": "sport", "game": "game"}
FOOD_OR_ANIMAL = ("Is it food or an animal?", "Is it an animal or food?")
WHICH_KIND = "What kind of thing is it?"


@dataclass(frozen=True)
class Thing:
    """
    A thing that all houses drew.

    Args:
        name (`str`): Its name in lower case, the caption.
        category, subcategory (`str`): Those of Unicode.
        file (`str`): Name of its file in the package of each house.
    """

    name: str
    category: str
    subcategory: str
    file: str

    @property
    def kind(self) -> str | None:
        """Return the answer to "What kind of thing is it?", or `None` if it is not asked."""
        return next((kind for start, kind in KINDS.items() if self.subcategory.startswith(start)), None)


@dataclass(frozen=True)
class Split:
    """
    The names of a run.

    Args:
        trained (`Sequence[Thing]`): Things of the training houses. The same names are asked about the test house.
        held_out (`Sequence[Thing]`): Things that no house shows in training.
    """

    trained: Sequence[Thing]
    held_out: Sequence[Thing]


def read_things(entries: Sequence[Mapping[str, Any]], houses: Sequence[str], categories: Sequence[str]) -> list[Thing]:
    """
    Read the things of some categories that all houses drew, in the order of the file.

    Args:
        entries (`Sequence[Mapping]`): The content of `emoji.json`.
        houses (`Sequence[str]`): The houses.
        categories (`Sequence[str]`): The categories.

    Raises:
        ValueError: two things have one name, so that an answer could not be judged.
    """
    things = [
        Thing(entry["name"].lower(), entry["category"], entry["subcategory"], entry["image"])
        for entry in entries
        if entry["category"] in categories and all(entry[f"has_img_{house}"] for house in houses)
    ]
    names = [thing.name for thing in things]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two things are called {repeated[0]!r}. Each name must be that of one thing.")
    return things


def split_things(entries: Sequence[Mapping[str, Any]], houses: Sequence[str], num_images: int | None = None) -> Split:
    """
    Split the things into those to train and those held out.

    The things held out are the same for each `num_images`. Fewer names are a part of more names.

    Args:
        entries (`Sequence[Mapping]`): The content of `emoji.json`.
        houses (`Sequence[str]`): All houses. All but one train.
        num_images (`int`, *optional*): Number of training images, one of each training house for each name. By default they are all
            of `CATEGORIES`.

    Raises:
        ValueError: there are too few things, or `num_images` is not a multiple of the number of training houses.
    """
    things = read_things(entries, houses, CATEGORIES)
    if len(things) <= NUM_HELD_OUT:
        raise ValueError(
            f"There are {len(things)} things, of which {NUM_HELD_OUT} are held out: none is left to train."
        )
    # Its stream is fixed by NumPy for good, that of `default_rng` is not
    order = np.random.RandomState(0).permutation(len(things)).tolist()
    held_out = [things[index] for index in sorted(order[:NUM_HELD_OUT])]
    seen = order[NUM_HELD_OUT:]
    if num_images is None:
        return Split([things[index] for index in sorted(seen)], held_out)
    num_names, remainder = divmod(num_images, len(houses) - 1)
    if remainder or num_names < 1:
        raise ValueError(
            f"`--rows` is {num_images}, but each name has one image of each of {len(houses) - 1} training houses. Give a multiple of "
            f"{len(houses) - 1}."
        )
    trained = [things[index] for index in seen[:num_names]]
    for category in MORE_CATEGORIES:
        more = read_things(entries, houses, [category])
        trained += [more[i] for i in np.random.RandomState(0).permutation(len(more))[: num_names - len(trained)]]
    if len(trained) < num_names:
        raise ValueError(
            f"`--rows` is {num_images}, but there are only {len(trained)} names, with {len(trained) * (len(houses) - 1)} images. "
            "Ask for fewer, and for augmented views with `--views`."
        )
    return Split(trained, held_out)


def on_white(path: Path) -> Image.Image:
    """Open a drawing, and put it on white paper."""
    with Image.open(path) as image:
        drawing = image.convert("RGBA")
    paper = Image.new("RGBA", drawing.size, "white")
    paper.alpha_composite(drawing)
    return paper.convert("RGB")


def augment(image: Image.Image, seed: str) -> Image.Image:
    """
    Make a view of a drawing: flipped, rotated, scaled, shifted and in other colors.

    Args:
        image (`PIL.Image.Image`): The drawing on white.
        seed (`str`): Names the view. The same seed gives the same view.

    Returns:
        `PIL.Image.Image` of `VIEW_SIZE` pixels square.
    """
    rng = random.Random(seed)
    size = VIEW_SIZE
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side, angle = int(size * rng.uniform(0.65, 1.1)), rng.uniform(-20, 20)
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    left, top = (int((size - side) / 2 + rng.uniform(-25, 25)) for _ in "xy")
    view = Image.new("RGB", (size, size), "white")
    view.paste(image, (left, top))
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        view = enhance(view).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.1:
        view = view.convert("L").convert("RGB")
    shift = int(rng.uniform(-12, 12))
    hue, saturation, value = view.convert("HSV").split()
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def image_name(house: str, thing: Thing, view: int = 0) -> str:
    """Return the path of an image in the prepared folder. View 0 is the drawing itself."""
    stem, suffix = thing.file.rsplit(".", 1)
    return f"images/{house}/{stem}{f'-view{view}' if view else ''}.{suffix}"


def caption_row(house: str, thing: Thing, view: int = 0) -> dict[str, Any]:
    """Return a row of the format `image_text_pairs`, with what the scores are broken down by."""
    return {
        "image": image_name(house, thing, view),
        "text": thing.name,
        "category": thing.category,
        "house": house,
        "view": view,
    }


def question_rows(house: str, thing: Thing, view: int = 0) -> Iterator[dict[str, Any]]:
    """
    Yield rows of the format `question_answering`.

    The drawing itself gets all questions, and an augmented view one of them in turn. "Food or an animal" is asked in both
    orders, so that the order tells nothing.
    """
    if thing.kind is None:
        return
    questions = [*(FOOD_OR_ANIMAL if thing.kind in ("food", "animal") else ()), WHICH_KIND]
    for question in questions if view == 0 else [questions[view % len(questions)]]:
        caption = caption_row(house, thing, view)
        yield {**caption, "text": None, "name": thing.name, "question": question, "answer": thing.kind}


def chat_row(house: str, thing: Thing, view: int = 0) -> dict[str, Any]:
    """Return a row of the format `messages`: a turn of a chat about the picture."""
    question = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    answer = [{"type": "text", "text": thing.name}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [image_name(house, thing, view)], "name": thing.name, "house": house}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows as JSON lines, and return their number."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def read_record(data: Path) -> dict[str, Any]:
    """
    Read the record of a prepared folder.

    Raises:
        FileNotFoundError: the folder was not prepared to the end.
    """
    path = data / "prepared.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}, which is written last. Prepare the data first: `python benchmarks/real_pictures/prepare.py FOLDER`."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """
    Read the rows of a prepared file.

    Raises:
        FileNotFoundError: the folder was not prepared.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Prepare the data first: `python benchmarks/real_pictures/prepare.py FOLDER`."
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
