# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""An error about what a client sent is a `ValueError`, and in the process of `transformers serve` an answer with 400, too."""

import sys
from types import ModuleType

import pytest
from processors import shared_processor

from transformers_flamingo.client_errors_flamingo import blames_the_client


@blames_the_client
def refuse(error: Exception) -> None:
    """Refuse it."""
    raise error


def test_elsewhere_errors_stay_as_they_are():
    error = ValueError("a")
    with pytest.raises(ValueError, match="^a$") as caught:
        refuse(error)
    assert caught.value is error


def test_a_server_answers_with_the_message(monkeypatch):
    starlette = pytest.importorskip("starlette.exceptions")
    monkeypatch.setitem(sys.modules, "transformers.cli.serving.server", ModuleType("server"))
    with pytest.raises(starlette.HTTPException) as caught:
        shared_processor().apply_chat_template("a")
    assert caught.value.status_code == 400
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == caught.value.detail
    assert str(caught.value).startswith("`conversation` is 'a'. It must be a list of messages")
    with pytest.raises(ValueError) as again:
        refuse(caught.value)
    assert again.value is caught.value, "it is wrapped once"
    with pytest.raises(OSError):
        refuse(OSError("a"))
