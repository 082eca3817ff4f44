# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from factory import BOS, END_OF_CHUNK, EOS, IMAGE, PAD, tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo_cli import main
from transformers_flamingo_miniature.demo import build_miniature_flamingo


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_flamingo().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.mark.parametrize("command", [[], ["demo"], ["caption"], ["chat"], ["convert"], ["miniature-backbones"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: flamingo" in capsys.readouterr().out


def test_help_waits_for_no_heavy_import():
    code = "import sys, transformers_flamingo_cli"
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
    assert f"No such image: {missing}" in capsys.readouterr().err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    assert main(["caption", str(broken), "--model", str(model_directory)]) == 1
    assert "broken.png" in capsys.readouterr().err


def test_special_tokens_in_the_prompt_are_text(model_directory, tmp_path, capsys, monkeypatch):
    path = tmp_path / "red.png"
    Image.new("RGB", (12, 9), "red").save(path)
    seen = []
    generate = FlamingoModel.generate

    def watch(self, **kwargs):
        seen.append(kwargs["input_ids"][0].tolist())
        return generate(self, **kwargs)

    monkeypatch.setattr(FlamingoModel, "generate", watch)
    for prompt in ("w5 <|endofchunk|> w6", "w5 <image> w6", "<eos>w6", "w5 w6"):
        command = ["caption", str(path), "--model", str(model_directory), "--max-new-tokens", "2", "--prompt", prompt]
        assert main(command) == 0
    specials = {PAD, BOS, EOS, END_OF_CHUNK, IMAGE}
    assert [[token for token in ids if token in specials] for ids in seen] == [[IMAGE]] * 4
    assert seen[3] == [IMAGE, 5, 6]


def test_caption_of_an_address_that_does_not_answer_is_a_line(model_directory, capsys):
    assert main(["caption", "http://127.0.0.1:9/cat.png", "--model", str(model_directory)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "127.0.0.1:9/cat.png" in lines[0]


def test_caption_with_a_missing_model_is_a_message(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    assert main(["caption", str(picture), "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_demo_with_an_impossible_argument_is_a_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--output-dir", str(tmp_path), "--max-steps", "0"])
    assert stop.value.code == 2
    assert "--max-steps: '0' is not a whole number of at least 1" in capsys.readouterr().err


def test_convert_writes_a_model_that_captions(tmp_path, capsys):
    source = GOLDEN / "flamingo_mini" / "gpt2_every1"
    options = [
        f"--vision={source / 'vision_base'}",
        f"--text={source / 'lm_base'}",
        f"--tokenizer={source / 'tokenizer'}",
    ]
    out = tmp_path / "out"
    assert main(["convert", "flamingo-mini", str(source / "hf"), str(out), *options]) == 0
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    assert main(["caption", str(picture), "--model", str(out), "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{picture}: ")
    assert main(["convert", "flamingo-mini", str(source / "hf"), str(out), *options]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_conversion_that_is_ended_leaves_nothing(tmp_path, monkeypatch):
    """SIGTERM, as a scheduler sends it, in the middle of writing."""

    def not_reached(*_):
        pytest.fail("the signal was not handled")

    def end(processor, directory):
        assert Path(directory, "config.json").is_file()
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, not_reached)
    try:
        monkeypatch.setattr(FlamingoProcessor, "save_pretrained", end)
        source = GOLDEN / "flamingo_mini" / "gpt2_every1"
        options = [f"--vision={source / 'vision_base'}", f"--text={source / 'lm_base'}"]
        with pytest.raises(SystemExit) as stop:
            main(["convert", "flamingo-mini", str(source / "hf"), str(tmp_path / "out"), *options])
        assert stop.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is not_reached
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert list(tmp_path.iterdir()) == []


def test_convert_dry_run_prints_the_table_and_writes_nothing(tmp_path, capsys):
    source = GOLDEN / "open_flamingo" / "gpt_neox_every2"
    command = ["convert", "open-flamingo", str(source / "checkpoint.pt"), str(tmp_path / "out"), "--dry-run"]
    command += ["--vision", str(source / "vision_hf"), "--text", str(source / "lm_frozen")]
    command += ["--tokenizer", str(source / "tokenizer")]
    assert main([*command, "--cross-attention-every-n-layers", "2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["SOURCE", "TARGET", "SHAPE", "REASON"]
    assert ["lang_encoder.embed_out.weight", "language_model.lm_head.weight", "1012x48", "converted"] in lines
    assert not (tmp_path / "out").exists()
    assert main(command) == 1
    assert "give cross_attention_every_n_layers" in capsys.readouterr().err


def test_evaluate_writes_scores_pictures_and_a_card(tmp_path, capsys):
    model, processor = build_miniature_flamingo()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    options = ["--shots", "0", "2", "--seeds", "0", "--num-queries", "4", "--option", "num_support=8", "num_queries=9"]
    arguments = ["--task", "miniature_shapes", "miniature_questions", *options, "--output-dir", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "model"), *arguments]) == 0
    assert "miniature_shapes, subset of 4 of 7 queries, 2 shots: accuracy " in capsys.readouterr().out
    for task in ("miniature_shapes", "miniature_questions"):
        assert {"results.json", "settings.json", "shots.png", "shots-2_seed-0_blind.jsonl"} <= {
            path.name for path in (tmp_path / "out" / task).iterdir()
        }
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| miniature\\_shapes, subset of 4 of 7 queries | accuracy, subset | test | 4 | 0 | random" in card
        and "2 shots" in card
    )
    assert main(["evaluate", str(tmp_path / "model"), "--task", "cocoa"]) == 1
    assert "no task 'cocoa'" in capsys.readouterr().err
