# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Share models through the Hub: check what `push_to_hub` puts there, and that others can load it with and without this package.

The Hub is `hub_server.py`; its clients, `push.py` and `load.py`, are processes with the real `huggingface_hub`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from hub_server import HubServer
from huggingface_hub import ModelCard
from loopback import Server
from PIL import Image
from processors import png_bytes
from safetensors.torch import load as load_safetensors
from transformers import pipeline


HERE = Path(__file__).parent
CARD = HERE.parents[1] / "model_cards" / "miniature-flamingo.md"
# All files that travel, except the image processor of converted checkpoints
CODE = {path.name for path in (HERE.parents[1] / "transformers_flamingo").glob("*_flamingo.py")}
CODE -= {"image_processing_flamingo.py"}


_PNG = png_bytes(Image.new("RGB", (20, 10), (200, 0, 0)))
RED = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s" % (len(_PNG), _PNG)


def run(script: str, *arguments: str, hub: HubServer, directory: Path) -> None:
    """Run a client in `directory` with an empty cache and the Hub `hub`."""
    # Without the caches, tokens and offline switches of the person who runs the tests
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))}
    environment |= hub.environment(directory / "hf")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    assert hub.unknown_calls == []


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Return a Hub with everything that `push.py` pushes."""
    with HubServer() as server:
        run("push.py", str(CARD), hub=server, directory=tmp_path_factory.mktemp("author"))
        yield server


@pytest.fixture(scope="module", params=["with", "without"])
def user(request, hub, tmp_path_factory) -> dict:
    """Load everything as a user does, with this package or without, and return what the user sees."""
    directory = tmp_path_factory.mktemp("user")
    with Server(lambda connection: connection.sendall(RED)) as images:
        run("load.py", request.param, "seen.json", images.url, hub=hub, directory=directory)
    return {"package": request.param, **json.loads((directory / "seen.json").read_text())}


def expected_logits(model) -> torch.Tensor:
    image = Image.new("RGB", (20, 10), (200, 0, 0))
    with torch.no_grad():
        return model(**tiny_processor()(images=image, text="<image> w5", return_tensors="pt")).logits[0, -1]


# --- What is on the Hub ---


def test_weights_code_and_processor_are_pushed(hub):
    files = hub.repositories["someone/tiny"].files()
    assert set(files) == CODE | {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    package = HERE.parents[1] / "transformers_flamingo"
    for name in CODE:
        assert files[name].decode() == (package / name).read_text()
    weights = load_safetensors(files["model.safetensors"])
    assert set(tiny_flamingo().state_dict()) - set(weights) == {"language_model.lm_head.weight"}  # tied


def test_the_card_stays_when_others_push_next_to_it(hub):
    card = ModelCard(hub.repositories["someone/tiny"].files()["README.md"].decode())
    expected = ModelCard.load(CARD)
    assert card.text == expected.text
    assert card.data.to_dict() == expected.data.to_dict()


@pytest.mark.parametrize("name", ["someone/alone", "someone/saved"])
def test_a_model_that_is_pushed_alone_has_its_card(hub, name):
    card = ModelCard(hub.repositories[name].files()["README.md"].decode())
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.tags[0] == "flamingo"
    assert "automatically generated" not in card.text
    assert "before decoder layers 0, 1, 2" in card.text


def test_a_large_checkpoint_is_pushed_in_shards(hub):
    files = hub.repositories["someone/sharded"].files()
    shards = {name for name in files if name.endswith(".safetensors")}
    index = json.loads(files["model.safetensors.index.json"])["weight_map"]
    assert len(shards) > 2
    assert set(index.values()) == shards
    assert set(files) >= CODE


def test_a_branch_leaves_main_alone(hub):
    repository = hub.repositories["someone/tiny"]
    main, branch = repository.files("main"), repository.files("other-gates")
    assert {name for name in branch if branch[name] != main.get(name)} == {"model.safetensors"}


# --- Loading it, with and without this package ---


def test_loaded_classes_are_the_packages_or_the_repositorys(user):
    package = {"with": "transformers_flamingo.", "without": "transformers_modules."}[user["package"]]
    assert len(user["modules"]) >= 6
    assert all(module.startswith(package) for module in user["modules"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("tiny", {}), ("other-gates", {"gates": -1.0}), ("sharded", {"text": "llama", "vision": "siglip"})],
)
def test_loaded_models_give_the_same_logits(user, name, arguments):
    expected = expected_logits(tiny_flamingo(**arguments))
    torch.testing.assert_close(torch.tensor(user[name]), expected, rtol=0, atol=1e-6)


def test_the_pipeline_takes_a_repository(user):
    image = Image.new("RGB", (20, 10), (200, 0, 0))
    processor = tiny_processor()
    captioner = pipeline("image-text-to-text", model=tiny_flamingo(), processor=processor)
    expected = captioner(images=image, text="<image> w5", max_new_tokens=4)[0]["generated_text"]
    assert user["caption"] == user["caption_without_task"] == expected


def test_the_snippets_of_the_hub_run(user):
    """Pipeline and Auto classes, for `image-text-to-text` and `image-to-text`, with and without the package."""
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.new("RGB", (20, 10), (200, 0, 0))},
                {"type": "text", "text": "w5"},
            ],
        }
    ]
    model, processor = tiny_flamingo(), tiny_processor()
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    generated = model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    expected = processor.decode(generated, skip_special_tokens=True)
    assert expected
    assert [text.strip() for text in user["snippets"]] == [expected.strip()] * 4


def test_a_private_repository_is_the_owners(hub, user):
    assert hub.repositories["someone/private"].private
    assert user["private"] == "FlamingoConfig"


@pytest.mark.parametrize("name", ["private", "missing"])
def test_a_repository_out_of_reach_gives_the_stock_error(user, name):
    assert user["errors"][name].startswith(f"OSError: someone/{name} is not a local folder and is not a valid model")


def test_a_missing_revision_gives_the_stock_error(user):
    assert "missing is not a valid git identifier" in user["errors"]["revision"]


def test_only_without_the_package_trust_is_asked_for(user):
    if user["package"] == "with":
        assert user["errors"]["no_trust"] == "no error"
    else:
        assert "trust_remote_code=True" in user["errors"]["no_trust"]


def test_what_was_loaded_can_be_pushed_again(hub, user):
    files = hub.repositories[f"someone/again-{user['package']}"].files()
    assert set(files) >= CODE
    # Its card says what it is a copy of
    assert [name for name in files if b"someone/tiny" in files[name] and name != "README.md"] == []
    assert user["again"] == user["tiny"]
