# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`torch.compile`: one graph for training and one for prefill, whatever the number of images and the length of the text."""

from collections.abc import Iterator

import pytest
import torch
from factory import IMAGE, VOCAB_SIZE, random_images, tiny_flamingo
from peft import get_peft_model
from torch._dynamo.testing import CompileCounterWithBackend

from transformers_flamingo import FlamingoModel, loss_flamingo
from transformers_flamingo.layers_flamingo import FlamingoMLP
from transformers_flamingo.training import lora_config


# A graph is traced on a busy machine for minutes
pytestmark = pytest.mark.timeout(900)

ONE_LAYER = {"vision_kwargs": {"num_hidden_layers": 1}, "resampler_num_layers": 1}
# (images per sample, tokens): the first is compiled for
SHAPES = [(2, 12), (5, 17), (4, 9)]


@pytest.fixture(autouse=True)
def few_graphs(monkeypatch) -> Iterator[None]:
    """No graph of another test, and two chunks, because tracing takes as long for each."""
    monkeypatch.setattr(loss_flamingo, "NUM_COMPILED_CHUNKS", 2)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small_flamingo(text: str = "gpt2", **text_kwargs) -> FlamingoModel:
    """A model without dropout, whose graphs are compiled fast."""
    layers = {"n_layer": 1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    if text == "llama":
        layers = {"num_hidden_layers": 1}
    return tiny_flamingo(text, text_kwargs={**layers, **text_kwargs}, **ONE_LAYER)


def batch(num_images: int, num_tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    ids = torch.randint(5, 90, (3, num_tokens), generator=generator)
    ids[:, torch.arange(num_images) * num_tokens // num_images] = IMAGE
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": random_images(3, num_images),
        "frame_attention_mask": torch.ones(3, num_images, dtype=torch.long),
    }


def with_labels(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with labels, some of which are not supervised."""
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    return {**inputs, "labels": labels, "use_cache": False}


def dynamic(inputs: dict) -> dict:
    """Mark the numbers of images and tokens: equal sizes of the first batch would otherwise be one size of the graph."""
    for tensor in inputs.values():
        if isinstance(tensor, torch.Tensor):
            torch._dynamo.mark_dynamic(tensor, 1)
    return inputs


def loss_and_gradients(model: FlamingoModel, call, **inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    output = call(**inputs)
    assert output.logits is None
    output.loss.backward()
    return output.loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(model: FlamingoModel, compiled, inputs: dict[str, torch.Tensor]) -> None:
    loss, gradients = loss_and_gradients(model, compiled, **inputs)
    expected, expected_gradients = loss_and_gradients(model, model, **inputs)
    torch.testing.assert_close(loss, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_training_step_is_one_graph_for_all_numbers_of_images(adapted):
    model = small_flamingo()
    if adapted:
        model = get_peft_model(model, lora_config(model, r=2, lora_dropout=0.0))
        model.activation_checkpointing_enable()
    else:
        model.freeze_backbones()
    model.train()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    for shape in SHAPES:
        assert_equal_gradients(model, compiled, dynamic(with_labels(batch(*shape))))
    assert graphs.frame_count == 1


def test_a_prefill_is_one_graph_for_all_numbers_of_images():
    model = small_flamingo("llama")
    graphs = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for shape in SHAPES:
            inputs = dynamic({**batch(*shape), "use_cache": False, "logits_to_keep": 1})
            torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)
    assert graphs.frame_count == 1


def test_an_untied_head_that_is_trained_gets_its_gradient():
    model = small_flamingo("llama", tie_word_embeddings=False).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_equal_gradients(model, compiled, {**with_labels(batch(2, 12)), "num_items_in_batch": torch.tensor(50)})
    # Nothing to learn: the gradient is 0, as in eager mode
    inputs = with_labels(batch(2, 12)) | {"num_items_in_batch": torch.tensor(0)}
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    loss, gradients = loss_and_gradients(model, compiled, **inputs)
    assert loss.isnan()
    assert gradients and not any(gradient.any() for gradient in gradients.values())


def kept_tensors(call, inputs: dict[str, torch.Tensor], **options) -> list[torch.Tensor]:
    """What backward needs, each storage once."""
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call(**inputs, **options)
    return list(kept.values())


def kept_bytes(call, inputs: dict[str, torch.Tensor], **options) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in kept_tensors(call, inputs, **options))


def kept_shapes(call, inputs: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in kept_tensors(call, inputs)]


def test_backward_keeps_no_logits():
    """The loss is computed in chunks, and its gradient with it."""
    vocab_size = 10 * VOCAB_SIZE
    model = small_flamingo(vocab_size=vocab_size)
    model.freeze_backbones()
    model.train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    inputs = with_labels(batch(2, 48))
    for options in ({"skip_logits": False}, {}):  # torch traces no `torch.func` under the hooks that count
        compiled(**inputs, **options)
    logits = 4 * 3 * 48 * vocab_size
    assert kept_bytes(compiled, inputs, skip_logits=False) - kept_bytes(compiled, inputs) > logits - 4 * 3 * 48 * 100


def test_backward_keeps_the_widest_tensor_of_a_block_once():
    """The activation is computed anew, as in eager mode."""
    mlp = FlamingoMLP(16, 64, "gelu").train()
    inputs = {"hidden_states": torch.randn(10, 16, requires_grad=True)}
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    expected, got = kept_shapes(mlp, inputs), kept_shapes(compiled, inputs)
    assert got.count((10, 64)) == expected.count((10, 64)) == 1
