# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Secrets are removed from names, texts and nested values, and nothing else is."""

import pytest

from transformers_flamingo.utils.redaction import is_secret_name, redact, redact_values


@pytest.mark.parametrize(
    "name",
    [
        "hub_token",
        "--hub-token",
        "push_to_hub_token",
        "token",
        "HF_TOKEN",
        "api_key",
        "wandb_api_key",
        "password",
        "aws_secret_access_key",
        "access_key_id",
        "client_secret",
        "authorization",
        "credentials",
        "account_key",
    ],
)
def test_fields_that_hold_a_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "image_token",
        "end_of_chunk_token",
        "pad_token",
        "eos_token_id",
        "include_num_input_tokens_seen",
        "key",
        "average_tokens_across_devices",
        "max_new_tokens",
        "tokenizer",
        "metric_for_best_model",
        "seed",
        "author",
        3,
    ],
)
def test_fields_that_hold_no_secret(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("cannot open https://user:pass@host/a.tar", "pass"),
        ("'s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI@bucket'", "wJalr"),
        ("ftp://onlyuser@host", "onlyuser"),
        ("https://host/a.tar?X-Amz-Signature=abc123&x=1", "abc123"),
        ("https://host/a?sig=abc%2F123", "abc%2F"),
        ("['--hub_tokn', 'hf_abcdefghijkl']", "abcdef"),
        ("Authorization: Bearer abcdefgh12345", "abcdefgh"),
        ("eps=1e-3,token=abcdef", "abcdef"),
        ("no field api_key=abcdef here", "abcdef"),
    ],
)
def test_a_secret_in_a_text_is_removed(text, secret):
    assert secret in text
    assert secret not in redact(text)
    assert "<redacted>" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a.tar?page=1",
        "mail someone@example.org",
        "hf://datasets/a/b@main/x",
        "C:\\a",
        "hf_hub",
        "image_token=5",
    ],
)
def test_other_texts_stay_unchanged(text):
    assert redact(text) == text


def test_secrets_are_removed_at_any_depth():
    values = {"wandb": {"api_key": "abc", "team": "a"}, "paths": ["https://u:p@h/x", 3], "pair": ("a", {"token": 1})}
    assert redact_values(values) == {
        "wandb": {"api_key": None, "team": "a"},
        "paths": ["https://<redacted>@h/x", 3],
        "pair": ("a", {"token": None}),
    }
    assert values["wandb"]["api_key"] == "abc"
