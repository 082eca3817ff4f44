# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Adapters on the Hub: what `push_to_hub` says of their base, and that commands load them by their name."""

import json

import pytest
from hub_server import HubServer
from test_hub import run


def test_adapters_are_published_and_loaded_by_their_name(tmp_path):
    author, user = tmp_path / "author", tmp_path / "user"
    author.mkdir()
    user.mkdir()
    with HubServer() as hub:
        run("adapters.py", "author", "seen.json", hub=hub, directory=author)
        run("adapters.py", "user", "seen.json", hub=hub, directory=user)
        sent = {name: hub.repositories[f"someone/{name}"].files() for name in ("adapters", "local-base")}
    made, seen = (json.loads((folder / "seen.json").read_text()) for folder in (author, user))
    assert seen["logits"] == pytest.approx(made["adapters"]["logits"], abs=1e-5)
    assert seen["merged"] == pytest.approx(made["adapters"]["logits"], abs=1e-5)
    # A base that is nowhere but on the machine of the author, and a complete model, which needs no merging
    assert seen["codes"] == [0, 0, 1, 1]
    # What is published names the base as it is called there, or not at all; the author's own folder still finds it
    bases = {name: json.loads(files["adapter_config.json"])["base_model_name_or_path"] for name, files in sent.items()}
    assert bases == {"adapters": "someone/base", "local-base": None}
    assert made["local-base"]["kept"] is not None and made["local-base"]["kept"].endswith("here")
    for files in sent.values():
        assert not [
            name
            for name, content in files.items()
            if str(tmp_path).encode() in content and name.endswith((".json", ".md"))
        ]
