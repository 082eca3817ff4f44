# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Other distributions register tasks, recipes, backbones and commands; the library finds them by name."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from transformers_flamingo.evaluation.task import Task
from transformers_flamingo.evaluation.tasks import find_task, task_names
from transformers_flamingo.training.recipe_file import read_recipe_file
from transformers_flamingo.utils import plugins
from transformers_flamingo_cli import command_line


ROOT = Path(__file__).resolve().parents[2]
MINIATURE = tomllib.loads((ROOT / "miniature" / "pyproject.toml").read_text())["project"]["entry-points"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with entry points, and a module `added`, for one test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(source: str, **entries: str) -> None:
        (tmp_path / "added.py").write_text(source)
        folder = tmp_path / "added-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
        lines = [f"[transformers_flamingo.{group}]\n{entry}\n" for group, entry in entries.items()]
        (folder / "entry_points.txt").write_text("".join(lines))
        monkeypatch.delitem(sys.modules, "added", raising=False)

    return install


def test_a_task_is_found_by_the_name_that_it_was_registered_with(install):
    install("class Birds: pass", tasks="birds = added:Birds")
    assert find_task("birds").__name__ == "Birds"
    assert task_names()[0] == "coco" and "birds" in task_names()


def test_a_recipe_is_found_by_name_and_as_a_base(install, tmp_path):
    (tmp_path / "shipped.yaml").write_text("max_steps: 7\nseed: 1\n")
    (tmp_path / "mine.yaml").write_text("base: added\nseed: 2\n")
    install("def path():\n    return __file__.replace('added.py', 'shipped.yaml')", recipes="added = added:path")
    assert read_recipe_file(Path("added")) == {"max_steps": 7, "seed": 1}
    assert read_recipe_file(tmp_path / "mine.yaml") == {"max_steps": 7, "seed": 2}


def test_a_folder_does_not_hide_a_recipe_of_its_name(install, tmp_path, monkeypatch):
    (tmp_path / "shipped.yaml").write_text("max_steps: 7\n")
    (tmp_path / "added").mkdir()  # as `miniature/` in a clone of the repository
    install("def path():\n    return __file__.replace('added.py', 'shipped.yaml')", recipes="added = added:path")
    monkeypatch.chdir(tmp_path)
    assert read_recipe_file(Path("added")) == {"max_steps": 7}


@pytest.mark.parametrize("group", [plugins.VISION_BACKBONES, plugins.TEXT_BACKBONES])
def test_a_backbone_is_its_folder_and_any_other_name_is_itself(install, group):
    install("def path():\n    return 'folder'", **{group.partition(".")[2]: "added = added:path"})
    assert plugins.plugin_path(group, "added") == "folder"
    assert plugins.plugin_path(group, "org/name") == "org/name"
    assert plugins.plugin_path(group, None) is None


def test_a_name_that_is_not_installed_says_what_to_install(install):
    install("", tasks="birds = added")
    with pytest.raises(ValueError, match=r"'bees' is not installed\. Installed tasks: .*birds"):
        plugins.load_plugin(plugins.TASKS, "bees")


@pytest.mark.parametrize("group", sorted(MINIATURE.keys() - {command_line.GROUP}))
def test_without_the_miniature_its_names_say_how_to_install_it(monkeypatch, group):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    name = next(iter(MINIATURE[group]))
    with pytest.raises(
        ValueError,
        match=r'not installed\..* pip install "transformers-flamingo\[demo\]", or in a clone: pip install -e miniature\.',
    ):
        plugins.load_plugin(group, name)
    assert plugins.install_hint(group, "another") == ""


def test_without_the_miniature_tasks_and_recipes_and_backbones_give_the_hint(monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    hint = r'pip install "transformers-flamingo\[demo\]"'
    with pytest.raises(ValueError, match=f"There is no task 'miniature_shapes'.*{hint}.*Available: coco"):
        find_task("miniature_shapes")
    with pytest.raises(FileNotFoundError, match=f"There is no recipe 'miniature'.*{hint}"):
        read_recipe_file(Path("miniature"))
    with pytest.raises(ValueError, match=hint):
        plugins.plugin_path(plugins.TEXT_BACKBONES, "miniature")


def test_the_hint_knows_what_the_miniature_registers():
    hinted = {**plugins._MINIATURE, command_line.GROUP: command_line.MINIATURE_COMMANDS}
    assert {group: set(names) for group, names in hinted.items()} == {
        group: set(entries) for group, entries in MINIATURE.items()
    }


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in MINIATURE for name in MINIATURE[group]])
def test_what_the_miniature_registers_is_what_its_group_asks_for(group, name):
    found = EntryPoint(name, MINIATURE[group][name], group).load()
    if group == plugins.TASKS:
        assert issubclass(found, Task) or isinstance(found(), Task)
        assert found.name == name
    elif group == command_line.GROUP:
        assert isinstance(found, ModuleType) and isinstance(found.HELP, str)
        assert callable(found.add_arguments) and callable(found.run)
    elif group == plugins.RECIPES:
        assert found().is_file()
    else:
        assert (found() / "config.json").is_file()


def test_the_help_lines_of_the_miniature_import_only_the_standard_library():
    modules = list(MINIATURE[command_line.GROUP].values())
    code = (
        f"import sys, importlib; before = set(sys.modules); [importlib.import_module(m) for m in {modules}]; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(names - set(sys.stdlib_module_names)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['transformers_flamingo_miniature']"
