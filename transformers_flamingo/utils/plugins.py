# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Find what other distributions register with this one, by entry points.

The library imports none of them. A distribution names what it offers in its `pyproject.toml`, and it is used by that name:

    [project.entry-points."transformers_flamingo.tasks"]
    my_task = "my_package.tasks:MyTask"            # `flamingo evaluate MODEL --task my_task`

| group | an entry is | used as |
|---|---|---|
| `transformers_flamingo.tasks` | a class of [`Task`] | `flamingo evaluate --task NAME` |
| `transformers_flamingo.recipes` | a function that returns the path of a YAML file | `flamingo train NAME`, `base: NAME` |
| `transformers_flamingo.vision_backbones` | a function that returns the folder of a vision encoder | `vision: NAME` in a recipe |
| `transformers_flamingo.text_backbones` | a function that returns the folder of a language model | `text: NAME` in a recipe |

Commands have the group `transformers_flamingo.commands`, which `transformers_flamingo_cli` reads and describes.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any


TASKS = "transformers_flamingo.tasks"
RECIPES = "transformers_flamingo.recipes"
VISION_BACKBONES = "transformers_flamingo.vision_backbones"
TEXT_BACKBONES = "transformers_flamingo.text_backbones"

# What the distribution `transformers-flamingo-miniature` registers: without it, an error can say what to install.
_MINIATURE = {
    TASKS: ("miniature_captions", "miniature_questions", "miniature_shapes"),
    RECIPES: ("miniature",),
    VISION_BACKBONES: ("miniature",),
    TEXT_BACKBONES: ("miniature",),
}


def find_plugins(group: str) -> dict[str, EntryPoint]:
    """
    Return the entry points of a group by name, without importing anything.

    Args:
        group (`str`): One of the groups above, such as [`TASKS`].
    """
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def load_plugin(group: str, name: str) -> Any:
    """
    Import what is registered under a name.

    Raises:
        ValueError: nothing is. The message says what to install, if it is known, and which names there are.
    """
    plugins = find_plugins(group)
    if name not in plugins:
        kind = group.rpartition(".")[2].replace("_", " ")
        found = f" Installed {kind}: {', '.join(plugins)}." if plugins else f" No {kind} are installed."
        raise ValueError(f"{name!r} is not installed.{install_hint(group, name) or found}")
    return plugins[name].load()


def plugin_path(group: str, name: str | None) -> str | None:
    """
    Return the path behind the name of a registered backbone or recipe, and any other name as it is.

    Raises:
        ValueError: it is a name of the miniature, which is not installed.
    """
    if name is None or (name not in find_plugins(group) and not install_hint(group, name)):
        return name
    return str(load_plugin(group, name)())


def install_hint(group: str, name: str) -> str:
    """Return a sentence that says how to install what the miniature registers under this name; empty for other names."""
    if name in _MINIATURE[group] and name not in find_plugins(group):
        return ' It is part of the miniature: pip install "transformers-flamingo[demo]", or in a clone: pip install -e miniature.'
    return ""
