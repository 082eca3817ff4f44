# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Names and folders of backbones that are wrong, each told before weights are read: the folders of this test have none."""

import pytest
from factory import tiny_config, tiny_text_config, tiny_tokenizer, tiny_vision_config
from processors import make_image_processor
from transformers import CLIPConfig

from transformers_flamingo import FlamingoModel, FlamingoProcessor


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder of backbones with configurations and processors, without weights."""
    root = tmp_path_factory.mktemp("backbones")
    tiny_vision_config().save_pretrained(root / "vision")
    make_image_processor().save_pretrained(root / "vision")
    tiny_text_config("gpt2").save_pretrained(root / "text")
    tiny_tokenizer().save_pretrained(root / "text")
    CLIPConfig(vision_config=tiny_vision_config().to_dict()).save_pretrained(root / "clip")
    make_image_processor().save_pretrained(root / "clip")
    tiny_config().save_pretrained(root / "flamingo")
    for name in ("b.gguf", "a.gguf"):
        (root / "gguf").mkdir(exist_ok=True)
        (root / "gguf" / name).write_bytes(b"GGUF")
    return root


ORDER = r"The vision encoder is named first \(`vision`\), and the language model second \(`text`\)"
TEXT = r"is a model of type 'gpt2', which reads text and no pixels, so it cannot be the vision encoder"


@pytest.mark.parametrize("join", [FlamingoModel, FlamingoProcessor], ids=["model", "processor"])
@pytest.mark.parametrize(
    ("vision", "text", "error", "message"),
    [
        ("text", "text", ValueError, rf"text' {TEXT}. {ORDER}"),
        ("vision", "vision", ValueError, rf"vision' is a model of type 'clip_vision_model', which is no causal .*{ORDER}"),
        ("vision", "flamingo", ValueError, "type 'flamingo', a Flamingo, and not one of its backbones. Load it with"),
        ("vision", "gguf", ValueError, r"weights are in GGUF: a.gguf, b.gguf. Name .*`text_gguf_file='a.gguf'`"),
        ("vision", "gguf/a.gguf", ValueError, r"a.gguf' is a file. Give its folder, .*gguf', and `text_gguf_file='a.gguf'`"),
        ("gguf", "text", ValueError, "Use a vision encoder that is saved with its config.json"),
        ("vision", "nothing", FileNotFoundError, "There is no folder .*nothing', .* that of the language model"),
        ("nothing", "text", FileNotFoundError, "There is no folder .*nothing', .* that of the vision encoder"),
    ],
)  # fmt: skip
def test_a_wrong_backbone_is_named(folders, join, vision, text, error, message):
    with pytest.raises(error, match=message):
        join.from_vision_text_pretrained(folders / vision, folders / text)


def test_swapped_backbones(folders):
    with pytest.raises(
        ValueError, match=rf"clip' is a model of type 'clip', which is no causal language model .*{ORDER}"
    ):
        FlamingoModel.from_vision_text_pretrained(folders / "vision", folders / "clip")
    with pytest.raises(ValueError, match=rf"which is no causal language model .*{ORDER}"):
        FlamingoModel.from_vision_text_pretrained(folders / "text", folders / "vision")
    with pytest.raises(ValueError, match=TEXT):
        FlamingoProcessor.from_vision_text_pretrained(folders / "text", folders / "vision")


@pytest.mark.parametrize("join", [FlamingoModel, FlamingoProcessor], ids=["model", "processor"])
def test_a_gguf_file_that_is_not_there(folders, join):
    with pytest.raises(FileNotFoundError, match=r"has no 'c.gguf'. Its GGUF files are a.gguf, b.gguf"):
        join.from_vision_text_pretrained(folders / "vision", folders / "gguf", text_gguf_file="c.gguf")
