# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The command finds its subcommands, imports only the one that is asked for, and lists every option in its help."""

import dataclasses
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from transformers_flamingo.evaluation.config import EvaluationConfig
from transformers_flamingo.training import DataSource, FlamingoTrainingArguments
from transformers_flamingo.training.recipe import DataArguments, ModelArguments
from transformers_flamingo_cli import command_line, main
from transformers_flamingo_cli.caption import CaptionArguments
from transformers_flamingo_cli.chat import ChatArguments
from transformers_flamingo_cli.check import CheckArguments
from transformers_flamingo_cli.convert import ConvertArguments
from transformers_flamingo_cli.evaluate import EvaluationArguments
from transformers_flamingo_cli.memory import MemoryArguments
from transformers_flamingo_cli.merge import MergeArguments
from transformers_flamingo_miniature.demo import DemoArguments
from transformers_flamingo_miniature.few_shot import FewShotArguments


COMMANDS = [
    "caption",
    "chat",
    "convert",
    "check",
    "train",
    "merge",
    "evaluate",
    "pretrain",
    "memory",
    "demo",
    "miniature-data",
    "miniature-backbones",
]


def read_help(capsys, *command: str) -> str:
    """Return the help of a command."""
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_help_lists_the_commands(capsys):
    text = read_help(capsys)
    assert text.startswith("usage: flamingo [-h] COMMAND")
    assert [name for name in COMMANDS if f"    {name} " not in f"{text} ".replace("\n", " \n")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_help(command, capsys):
    assert read_help(capsys, command).startswith(f"usage: flamingo {command} [-h]")


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        (["caption"], [CaptionArguments]),
        (["chat"], [ChatArguments]),
        (["convert"], [ConvertArguments]),
        (["check"], [CheckArguments]),
        (["merge"], [MergeArguments]),
        (["memory"], [MemoryArguments]),
        (["train", "--help_all"], [ModelArguments, DataArguments, FlamingoTrainingArguments]),
        (["evaluate"], [EvaluationArguments, EvaluationConfig]),
        (["demo"], [DemoArguments, FewShotArguments]),
    ],
)
def test_a_help_lists_every_field(command, kinds, capsys):
    text = read_help(capsys, *command)
    names = [field.name for kind in kinds for field in dataclasses.fields(kind) if field.init]
    positional = {"images", "peer", "checkpoint", "output_dir"} if command in (["caption"], ["convert"]) else set()
    positional |= {"model"} if command in (["chat"], ["evaluate"]) else set()
    positional |= {"source"} if command in (["check"], ["merge"], ["memory"]) else set()
    positional |= {"output_dir"} if command == ["merge"] else set()
    switches = {"blind": "no_blind"}
    missing = [n for n in names if n not in positional and f"  --{switches.get(n, n)}" not in text]
    assert missing == []


def test_the_help_of_a_recipe_lists_the_fields_of_a_source(capsys):
    text = read_help(capsys, "train")
    assert all(f"--data.NAME.{field.name}" in text for field in dataclasses.fields(DataSource) if field.name != "name")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["evalute"], "flamingo: There is no command 'evalute'. Did you mean 'evaluate'?"),
        (
            ["caption", "a.png", "--model", "m", "--num-bems", "2"],
            "arguments: --num-bems (did you mean --num-beams?). See",
        ),
        (["merge", "a", "b", "--vison", "c"], "arguments: --vison (did you mean --vision?)"),
        (["caption", "a.png", "--modle", "m"], "are required: --model (did you mean --model?). See"),
        (["evaluate", "m", "--taks=coco"], "are required: --task (did you mean --task?). See"),
        (["merge", "--visoin", "a"], "are required: DIRECTORY (did you mean --vision?). See"),
        (["train", "--dta", "."], "'.' is a folder, and no recipe. To train on data, give `--data .`. See"),
        (
            ["train", "--dta", "rows.jsonl"],
            "'rows.jsonl' is a data file, and no recipe. To train on data, give `--data rows.jsonl`",
        ),
        (["check", ".", "--txt", "m"], "so it has no option --txt (did you mean --text?). See"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_misspelled_is_answered_with_the_nearest_name(arguments, answer, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("{}")
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("backbone", ["vision", "text"])
def test_the_help_of_pretraining_lists_the_fields_of_its_backbone(backbone, capsys):
    text = read_help(capsys, "pretrain", backbone)
    assert text.startswith(f"usage: flamingo pretrain {backbone} [-h] RECIPE")
    assert "--text_config" in text and "--learning_rate" in text
    assert ("--vision_config" in text) is (backbone == "vision")


@pytest.mark.parametrize("arguments", [["--help"], ["evalute"], ["--unknown"], []], ids=str)
def test_help_and_a_mistyped_command_import_only_the_standard_library(arguments):
    code = f"""
import sys
from pathlib import Path
before = set(sys.modules)
from transformers_flamingo_cli import main
try:
    main({arguments})
except SystemExit:
    pass
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {"transformers_flamingo_cli", "transformers_flamingo_miniature"}  # the latter for its lines of the help
    assert set(eval(result.stdout.splitlines()[-1])) <= imported


def test_the_command_runs_as_a_module():
    """`accelerate launch -m transformers_flamingo_cli train RECIPE` needs it."""
    command = [sys.executable, "-m", "transformers_flamingo_cli", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: flamingo [-h] COMMAND")


def test_a_plugin_that_cannot_be_imported_breaks_no_help(monkeypatch, capsys):
    broken = [EntryPoint("mine", "no_such_package_of_mine", command_line.GROUP)]
    monkeypatch.setattr(command_line, "entry_points", lambda group: broken)
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["--help"])
    text = capsys.readouterr().out
    assert "Caption images" in text
    assert "cannot be loaded" in text


def test_a_plugin_adds_a_command_and_replaces_none(monkeypatch):
    added = [EntryPoint("mine", "my_package.mine", command_line.GROUP), EntryPoint("train", "x", command_line.GROUP)]
    monkeypatch.setattr(command_line, "entry_points", lambda group: added)
    commands = command_line.find_commands()
    assert list(commands) == [*command_line.COMMANDS, "mine"]
    assert commands["train"].value == "transformers_flamingo_cli.train"


@pytest.mark.parametrize("command", ["demo", "miniature-data", "miniature-backbones"])
def test_without_the_miniature_its_commands_say_what_to_install(command, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "entry_points", lambda group: [])
    assert main([command, "--help"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"flamingo {command}: The miniature world is not installed. Install it: "
        'pip install "transformers-flamingo[demo]", or in a clone: pip install -e miniature'
    ]
    assert f"For demo, miniature-data, miniature-backbones: {command_line.INSTALL_MINIATURE}" in read_help(capsys)


@pytest.mark.parametrize("spelling", ["--max-new-tokens", "--max_new_tokens"])
def test_an_option_is_spelled_with_either(spelling, monkeypatch):
    seen = []
    monkeypatch.setattr("transformers_flamingo_cli.caption.run", seen.append)
    assert main(["caption", "a.png", "--model", "m", spelling, "7"]) == 0
    assert seen[0].max_new_tokens == 7


def test_a_switch_comes_before_a_positional_argument(monkeypatch):
    seen = []
    monkeypatch.setattr("transformers_flamingo_cli.chat.run", seen.append)
    assert main(["chat", "--share", "model"]) == 0
    assert (seen[0].share, seen[0].model) == (True, "model")


def test_demo_with_an_impossible_argument_is_a_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--output-dir", str(tmp_path), "--max-steps", "0"])
    assert stop.value.code == 2
    assert "`max_steps` is 0, but it must be at least 1. See `flamingo demo --help`." in capsys.readouterr().err


def test_a_training_without_arguments_can_be_of_a_recipe_or_of_data(capsys):
    with pytest.raises(SystemExit):
        main(["train"])
    assert "required: RECIPE, or --data PATH" in capsys.readouterr().err
