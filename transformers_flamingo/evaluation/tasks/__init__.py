# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The tasks: one small file for each benchmark, or for a few whose files have the same layout."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import yaml

from ...utils import plugins
from ..task import Task
from .custom import CustomCaptioning, CustomClassification, CustomVqa
from .hateful_memes import HatefulMemes
from .imagenet import ImageNet
from .ivqa import Ivqa
from .karpathy import Coco, Flickr30k
from .next_qa import NextQa
from .rareact import RareAct
from .star import Star
from .textvqa import TextVqa
from .vatex import Vatex
from .video_qa import MsrvttQa, MsvdQa
from .visdial import VisDial
from .vizwiz import VizWiz
from .vqa import OkVqa, Vqav2
from .youcook2 import YouCook2


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        *(Coco, Flickr30k, Vqav2, OkVqa, TextVqa, VizWiz, HatefulMemes, ImageNet),
        *(MsvdQa, MsrvttQa, Vatex, YouCook2, Ivqa, Star, NextQa, RareAct, VisDial),
        *(CustomCaptioning, CustomVqa, CustomClassification),
    )
}
"""The tasks of this distribution by their names on the command line. Others register theirs: [`find_task`]."""


_TEXT = (str, str | None)
_LISTS = (Sequence[str], Sequence[str] | None)


def make_task(name: str, data: str | None = None, options: Mapping[str, str] | None = None) -> Task:
    """
    Make a task by its name.

    Args:
        name (`str`): One of [`task_names`].
        data (`str`, *optional*): The folder or file that it reads.
        options (`Mapping[str, str]`, *optional*): Other fields and the texts of their values.

    Raises:
        ValueError: the task or a field is unknown, a value has the wrong type, or a required field is missing.
        FileNotFoundError: its annotations are missing.
    """
    kind = find_task(name)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"The task {name!r} has no {', '.join(unknown)}. Its fields are {', '.join(known)}.")
    values = {key: _convert(name, key, known[key].type, value) for key, value in (options or {}).items()}
    if data is not None and "data" in known:
        values["data"] = data
    missing = [field.name for field in known.values() if field.default is MISSING and field.name not in values]
    if missing:
        raise ValueError(f"The task {name!r} needs `{'`, `'.join(missing)}`, the location of its files (--data).")
    return kind(**values)


def task_names() -> list[str]:
    """Return the names of all tasks: those of [`TASKS`], then those that other distributions register."""
    return [*TASKS, *plugins.find_plugins(plugins.TASKS)]


def find_task(name: str) -> type[Task]:
    """
    Return the class of a task, of [`TASKS`] or of another distribution.

    Raises:
        ValueError: there is none.
    """
    if name in TASKS:
        return TASKS[name]
    if name not in plugins.find_plugins(plugins.TASKS):
        raise ValueError(
            f"There is no task {name!r}.{plugins.install_hint(plugins.TASKS, name)} Available: {', '.join(task_names())}."
        )
    return plugins.load_plugin(plugins.TASKS, name)


def _convert(task: str, field: str, kind: Any, text: str) -> Any:
    """Convert the text of an option to the type of its field."""
    if kind in _TEXT:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind in _LISTS:
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return value
        raise ValueError(
            f"`{field}` of the task {task!r} cannot be {text!r}. Write a list of texts, such as '[a, b]'."
        )
    least = 0 if field == "seed" else 1
    if type(value) is not int or value < least:
        raise ValueError(f"`{field}` of the task {task!r} cannot be {text!r}. Use a whole number of at least {least}.")
    return value


__all__ = ["TASKS", "find_task", "make_task", "task_names"]
