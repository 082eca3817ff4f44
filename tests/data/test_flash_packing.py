# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Packed documents under flash attention: what its kernels are given, and that with it they compute what sdpa does."""

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo
from transformers import modeling_flash_attention_utils as flash

from transformers_flamingo.training import check_packing
from transformers_flamingo.visibility_flamingo import build_flash_kwargs, find_documents


POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [3, 4, 5, 6, 7, 0, 1, 2]])


def varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal=False, softmax_scale=None, dropout_p=0.0
):
    """`flash_attn_varlen_func` by its documentation: each sequence of `(tokens, heads, head_dim)` attends to itself."""
    assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k) and causal
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max()) and cu_seqlens_q[-1] == len(q)
    parts = []
    for start, end in zip(cu_seqlens_q.tolist(), cu_seqlens_q.tolist()[1:], strict=False):
        query, key, value = (states[start:end].transpose(0, 1) for states in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=softmax_scale, enable_gqa=True
        )
        parts.append(attended.transpose(0, 1))
    return torch.cat(parts)


def plain(q, k, v, causal=False, softmax_scale=None, dropout_p=0.0):
    """`flash_attn_func`: each row of `(B, T, heads, head_dim)` attends to itself."""
    bounds = torch.arange(len(q) + 1, dtype=torch.int32) * q.shape[1]
    flat = (states.flatten(0, 1) for states in (q, k, v))
    return varlen(*flat, bounds, bounds, q.shape[1], q.shape[1], causal, softmax_scale).view_as(q)


@pytest.fixture
def kernels(monkeypatch):
    """Arithmetic on the CPU for the kernels of a GPU. All that chooses and calls them is transformers' own."""
    process = flash._lazy_define_process_function(varlen)
    monkeypatch.setattr(
        flash, "lazy_import_flash_attention", lambda *_, **__: ((plain, varlen, None, None, None), (process, dict))
    )


def test_the_bounds_of_the_documents():
    documents = find_documents(POSITIONS, POSITIONS.shape, use_cache=None)
    kwargs = build_flash_kwargs(documents, torch.device("cpu"))
    # The second row begins inside of a document, which is not the last one of the first row
    assert kwargs["cu_seq_lens_q"].tolist() == kwargs["cu_seq_lens_k"].tolist() == [0, 3, 7, 8, 13, 16]
    assert kwargs["max_length_q"] == kwargs["max_length_k"] == 5


# Not gpt2: in float32 transformers looks for an `nn.Linear` in its attention, which has none
@pytest.mark.parametrize("text", ["opt", "llama"])
def test_several_packed_rows_equal_sdpa(text, kernels):
    model = tiny_flamingo(text)
    inputs = {
        "input_ids": prompt("aIbcdIef", "abIcdIab"),
        "pixel_values": random_images(2, 2),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 0, 1, 2]]),
    }
    with torch.no_grad():
        expected = model(**inputs).logits
        one_text = model(**{**inputs, "position_ids": None}).logits
        model.language_model.config._attn_implementation = "flash_attention_2"
        got = model(**inputs).logits
    torch.testing.assert_close(got, expected)
    assert (one_text - expected)[:, 3:].abs().max() > 1e-3
    check_packing(model)
