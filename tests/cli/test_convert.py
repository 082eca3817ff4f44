# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo convert`."""

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from transformers_flamingo import FlamingoProcessor
from transformers_flamingo_cli import main


GOLDEN = Path(__file__).parents[1] / "golden"


def test_convert_writes_a_model_that_captions(tmp_path, capsys):
    source = GOLDEN / "flamingo_mini" / "gpt2_every1"
    options = [
        f"--vision={source / 'vision_base'}",
        f"--text={source / 'lm_base'}",
        f"--tokenizer={source / 'tokenizer'}",
    ]
    out = tmp_path / "out"
    assert main(["convert", "flamingo-mini", str(source / "hf"), str(out), *options]) == 0
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 30), "red").save(image)
    assert main(["caption", str(image), "--model", str(out), "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{image}: ")
    assert main(["convert", "flamingo-mini", str(source / "hf"), str(out), *options]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_conversion_that_is_ended_leaves_nothing(tmp_path, monkeypatch):
    """SIGTERM, which a scheduler sends, arrives in the middle of writing."""

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
