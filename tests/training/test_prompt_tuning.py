# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check PEFT's prompt tuning and p-tuning on a Flamingo: virtual tokens before the text, which see no image."""

import pytest
import torch
from factory import IMAGE, prompt, random_images, tiny_flamingo
from peft import PeftModel, PromptEncoderConfig, PromptTuningConfig, get_peft_model


NUM_VIRTUAL_TOKENS = 4


def with_prompt(model, kind: type = PromptTuningConfig, **kwargs) -> PeftModel:
    config = kind(task_type="CAUSAL_LM", num_virtual_tokens=NUM_VIRTUAL_TOKENS, **kwargs)
    return get_peft_model(model, config).eval()


def batch() -> dict[str, torch.Tensor]:
    ids = prompt("aIbcEIde", "Iab_cIEd")
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": random_images(2, 2)}


kinds = pytest.mark.parametrize(
    ("kind", "kwargs"),
    [(PromptTuningConfig, {}), (PromptEncoderConfig, {"encoder_hidden_size": 16})],
    ids=["prompt", "p-tuning"],
)


@kinds
def test_virtual_tokens_are_embeddings_before_the_text(kind, kwargs):
    model, inputs = tiny_flamingo("llama"), batch()
    adapted = with_prompt(model, kind, **kwargs)
    assert adapted.word_embeddings is model.get_input_embeddings()
    virtual = adapted.get_prompt(batch_size=2)
    embeds = torch.cat([virtual, model.get_input_embeddings()(inputs["input_ids"])], dim=1)
    expected = model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"]).logits
    torch.testing.assert_close(adapted(**inputs).logits, expected, rtol=0, atol=1e-5)


@kinds
def test_they_alone_are_trained(kind, kwargs):
    adapted, inputs = with_prompt(tiny_flamingo(), kind, **kwargs), batch()
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("prompt_encoder.") for name in trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = adapted(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("num_beams", [1, 2])
@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_generation_with_a_cache_is_that_without(text, num_beams):
    model = tiny_flamingo(text)
    with torch.no_grad():  # sharper than at the start, so that the texts differ
        for parameter in model.language_model.parameters():
            parameter *= 8 if parameter.ndim > 1 else 1
    adapted, inputs = with_prompt(model), batch()
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "num_beams": num_beams}
    generated = adapted.generate(**inputs, **settings)
    assert torch.equal(adapted.generate(**inputs, **settings, use_cache=False), generated)
    if num_beams == 1:
        text = dict(inputs)
        for _ in range(4):
            text["attention_mask"] = torch.ones_like(text["input_ids"])
            logits = adapted(**text).logits[:, -1]
            logits[:, IMAGE] = -torch.inf
            text["input_ids"] = torch.cat([text["input_ids"], logits.argmax(dim=-1, keepdim=True)], dim=1)
        assert torch.equal(text["input_ids"], generated)


def test_the_vision_encoder_is_not_searched_for_the_embedding():
    """PEFT would take the first matrix of the first backbone that is as long as the vocabulary: here that of positions."""
    model = tiny_flamingo(vision_kwargs={"image_size": 7 * 4, "patch_size": 4}, text_kwargs={"vocab_size": 100})
    model.vision_model.embeddings.position_embedding = torch.nn.Embedding(100, 24)
    assert with_prompt(model).word_embeddings is model.get_input_embeddings()
    assert not any(name.startswith("embeddings.") for name in model.state_dict()), (
        "the holder is no module of the model"
    )
