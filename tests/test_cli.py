# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import subprocess
import sys

import pytest
from factory import tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo.cli import main


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_flamingo().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.mark.parametrize("command", [[], ["demo"], ["caption"], ["miniature-backbones"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: flamingo" in capsys.readouterr().out


def test_help_waits_for_no_heavy_import():
    code = "import sys, transformers_flamingo.cli"
    # The package registers itself at import, which needs torch; the extras must not come along.
    check = "; print(sorted({'datasets', 'matplotlib', 'evaluate', 'av'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_caption_prints_a_line_for_each_picture(model_directory, tmp_path, capsys):
    paths = []
    for color in ("red", "blue"):
        paths.append(str(tmp_path / f"{color}.png"))
        Image.new("RGB", (12, 9), color).save(paths[-1])
    assert main(["caption", *paths, "--model", str(model_directory), "--max-new-tokens", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == paths
    assert all(line.split(": ")[1] for line in lines)


def test_caption_of_a_missing_or_broken_file_is_a_message(model_directory, tmp_path, capsys):
    missing = str(tmp_path / "none.png")
    assert main(["caption", missing, "--model", str(model_directory)]) == 1
    assert f"No such picture: {missing}" in capsys.readouterr().err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    assert main(["caption", str(broken), "--model", str(model_directory)]) == 1
    assert "broken.png" in capsys.readouterr().err


def test_caption_with_a_missing_model_is_a_message(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    assert main(["caption", str(picture), "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_demo_with_an_impossible_argument_is_a_message(tmp_path, capsys):
    assert main(["demo", "--output-dir", str(tmp_path), "--max-steps", "0"]) == 1
    assert "`max_steps` is 0" in capsys.readouterr().err
