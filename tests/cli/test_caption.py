# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo caption`."""

import pytest
from factory import BOS, END_OF_CHUNK, EOS, IMAGE, PAD, tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo import FlamingoModel
from transformers_flamingo_cli import main


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_flamingo().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


def test_caption_prints_a_line_for_each_image(model_directory, tmp_path, capsys):
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
    broken.write_bytes(b"not an image")
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
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    assert main(["caption", str(image), "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_a_folder_of_drawings_that_is_of_no_use_is_refused_before_captioning(model_directory, tmp_path, capsys):
    image = tmp_path / "red.png"
    Image.new("RGB", (12, 9), "red").save(image)
    command = ["caption", str(image), "--model", str(model_directory)]
    with pytest.raises(SystemExit):
        main([*command, "--attention-dir", str(tmp_path / "new")])
    assert "nothing is drawn without `--show-attention`" in capsys.readouterr().err
    for path, message in (
        (image, "cannot be a folder (File exists). Nothing was captioned"),
        (image / "below", "cannot be a folder (Not a directory)"),
    ):
        assert main([*command, "--show-attention", "--attention-dir", str(path)]) == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert not captured.out
    assert not (tmp_path / "new").exists()


def test_what_the_model_looked_at_is_drawn_beside_the_caption(model_directory, tmp_path, capsys):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "red one.png"))
        Image.new("RGB", (12, 9), "red").save(paths[-1])
    drawings = tmp_path / "drawings"
    command = ["caption", *paths, "--model", str(model_directory), "--max-new-tokens", "3"]
    assert main(command) == 0
    captions = capsys.readouterr().out.splitlines()
    assert main([*command, "--show-attention", "--attention-dir", str(drawings)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == captions
    names = ["red_one.attention.png", "red_one.attention-2.png"]
    assert [line.strip() for line in lines[1::2]] == [f"looked at: {drawings / name}" for name in names]
    for name in names:
        assert Image.open(drawings / name).width > 500
