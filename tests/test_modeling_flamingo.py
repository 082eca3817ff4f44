# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The forward pass of the model, as any model of transformers has it.

Unless a test says otherwise the gates are open: with closed gates a Flamingo is its language model and most of these
tests could not fail.
"""

import copy
import pickle

import pytest
import torch
from factory import (
    BOS,
    IMAGE,
    PAD,
    TEXT_CONFIGS,
    VOCAB_SIZE,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
)
from flamingos import (
    assert_close,
    families,
    far,
    pad_images,
    pad_rows,
    run,
    shared_model,
    some_families,
)
from torch.utils.flop_counter import FlopCounterMode

from transformers_flamingo import FlamingoModel


@families
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_its_samples_one_by_one(text, side):
    model = shared_model(text)
    rows = ["aIbcdIefghijk", "Iab", "abcdef", "abcdIIe"]
    images = [random_images(row.count("I"), seed=i) for i, row in enumerate(rows)]
    ids, mask = pad_rows(rows, side)
    pixels, frame_mask = pad_images(images)
    batch = run(model, ids, pixels, frame_attention_mask=frame_mask, attention_mask=mask).logits
    for b, row in enumerate(rows):
        alone = run(model, prompt(row), images[b][None] if len(images[b]) else None).logits[0]
        assert_close(batch[b][mask[b].bool()], alone)


def test_wrong_inputs_are_errors():
    model, ids = shared_model(), prompt("aIb")
    images = random_images(1, 1)
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model(pixel_values=images)
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=ids, inputs_embeds=torch.zeros(1, 3, 32), pixel_values=images)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*must be \(B, N, C, H, W\)"):
        model(input_ids=ids, pixel_values=images[0])
    with pytest.raises(ValueError, match=r"`frame_attention_mask` has shape \(1, 2\)"):
        model(input_ids=ids, pixel_values=images, frame_attention_mask=torch.ones(1, 2))
    with pytest.raises(ValueError, match="has no 1"):
        model(input_ids=prompt("ab"), pixel_values=images, frame_attention_mask=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="Use one or the other"):
        model(
            input_ids=ids,
            pixel_values=images,
            mm_encoder_outputs={"image": {"pooler_output": torch.zeros(1, 1, 5, 24)}},
        )


@some_families
def test_attentions_and_hidden_states(text):
    model = tiny_flamingo(text)
    model.set_attn_implementation("eager")
    ids = prompt("aIbcd")
    output = run(model, ids, random_images(1, 1), output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in output.attentions] == [(1, 4, 5, 5)] * 3
    assert [h.shape[:2] for h in output.hidden_states] == [(1, 5)] * 4
    as_tuple = run(model, ids, random_images(1, 1), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], output.logits)


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "gemma3"])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(text, use_reentrant, frozen):
    model = tiny_flamingo(text, gates=0.5).train()
    if frozen:
        model.freeze_backbones()
    ids = prompt("aIbcd", "IabcI"[:5])
    ids[1, 4] = 7
    inputs = {"input_ids": ids, "pixel_values": random_images(2, 1), "labels": ids}

    def gradients():
        model.zero_grad()
        torch.manual_seed(0)  # dropout
        model(**inputs).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradients()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    assert model.is_activation_checkpointing
    checkpointed = gradients()
    assert set(plain) <= set(checkpointed)
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient)
    assert not frozen or not any(name.startswith("vision_model") for name in checkpointed)
    model.activation_checkpointing_disable()
    assert set(gradients()) == set(plain)


def test_the_embeddings_require_a_gradient_for_reentrant_checkpointing_alone():
    model, ids = tiny_flamingo().train(), prompt("ab")
    model.freeze_backbones(train_token_embeddings=False)
    embeddings = model.get_input_embeddings()
    for options, needs in (
        (None, False),
        ({"use_reentrant": True}, True),
        ({}, True),
        ({"use_reentrant": False}, False),
    ):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        assert embeddings(ids).requires_grad == needs
        model.enable_input_require_grads()  # as peft does
        assert embeddings(ids).requires_grad == needs
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
    model.disable_input_require_grads()
    assert not embeddings(ids).requires_grad


@pytest.mark.parametrize("options", [None, {"use_reentrant": False}])
def test_checkpointing_runs_no_gradient_below_the_first_block(options):
    def cost(num_layers: int, backward: bool) -> int:
        model = tiny_flamingo(text_kwargs={"n_layer": num_layers}, cross_attention_layers=[num_layers - 1])
        model.freeze_backbones(train_token_embeddings=False)
        model.train().activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        ids = prompt("aIbcd")
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            loss = model(input_ids=ids, pixel_values=random_images(1, 1), labels=ids).loss
            if backward:
                loss.backward()
        return counter.get_total_flops()

    # A layer below the block costs its forward pass, once
    assert cost(4, backward=True) - cost(2, backward=True) == cost(4, backward=False) - cost(2, backward=False) > 0


@pytest.mark.parametrize(
    ("text", "backend"), [("gpt2", "aot_eager"), ("opt", "eager"), ("llama", "eager"), ("gemma3", "eager")]
)
def test_compiled_forward_equals_eager(text, backend):
    model = tiny_flamingo(text)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    ids, mask = pad_rows(["aIbcdIef", "Iabcd"], "right")
    pixels, frame_mask = pad_images([random_images(2), random_images(1)])
    kwargs = {"attention_mask": mask, "frame_attention_mask": frame_mask, "use_cache": False}
    expected = run(model, ids, pixels, **kwargs).logits
    with torch.no_grad():
        got = compiled(input_ids=ids, pixel_values=pixels, **kwargs).logits
    assert_close(got[mask.bool()], expected[mask.bool()])
    torch._dynamo.reset()


def test_compiled_packed_documents_equal_eager():
    model = tiny_flamingo()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids, images, positions = prompt("aIbcdIef"), random_images(1, 2), torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])
    expected = run(model, ids, images, position_ids=positions).logits
    with torch.no_grad():
        assert_close(compiled(input_ids=ids, pixel_values=images, position_ids=positions).logits, expected)
    assert far(run(model, ids, images).logits[:, 3:], expected[:, 3:])
    torch._dynamo.reset()


def test_compiled_training_step_equals_eager():
    model = tiny_flamingo()
    model.freeze_backbones()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    gradients = []
    torch._dynamo.reset()
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        call(input_ids=ids, pixel_values=images, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        assert_close(gradients[0][name], gradients[1][name])
    torch._dynamo.reset()


@some_families
def test_logits_to_keep(text):
    model = shared_model(text)
    ids, images = prompt("aIbcdef", "abIcdef"), random_images(2, 1)
    full = run(model, ids, images).logits
    assert_close(run(model, ids, images, logits_to_keep=1).logits, full[:, -1:])
    assert_close(run(model, ids, images, logits_to_keep=3).logits, full[:, -3:])
    assert_close(run(model, ids, images, logits_to_keep=torch.tensor([1, 4])).logits, full[:, [1, 4]])


def test_inputs_embeds_equal_input_ids():
    model, images = shared_model(), random_images(2, 2)
    ids = prompt("aIbcI", "IIabc")
    embeds = model.get_input_embeddings()(ids)
    assert_close(run(model, None, images, inputs_embeds=embeds).logits, run(model, ids, images).logits)


def test_loss_is_the_mean_over_supervised_tokens():
    model = shared_model()
    ids, images = prompt("aIbcde", "Iabcde"), random_images(2, 1)
    labels = ids.clone()
    labels[0, :3] = -100
    labels[1, 4:] = -100
    output = run(model, ids, images, labels=labels)
    targets = labels[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), targets)
    assert_close(output.loss, expected)
    assert (targets != -100).sum() == 3 + 3
    # With gradient accumulation, the Trainer divides by the tokens of all micro batches.
    scaled = run(model, ids, images, labels=labels, num_items_in_batch=torch.tensor(24))
    assert_close(scaled.loss, expected * 6 / 24)
    assert model.loss_type == "ForCausalLM"


def test_one_batch_equals_accumulated_micro_batches():
    model = shared_model()
    ids, images = prompt("aIbcde", "Iabcde", "abIcde"), random_images(3, 1)
    labels = ids.clone()
    labels[0, :4] = -100
    whole = run(model, ids, images, labels=labels).loss
    num_items = (labels[:, 1:] != -100).sum()
    parts = [
        run(model, ids[i : i + 1], images[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=num_items).loss
        for i in range(3)
    ]
    assert_close(sum(parts), whole)


@some_families
def test_use_cache(text):
    model = shared_model(text)
    ids, images = prompt("aIbc"), random_images(1, 1)
    assert run(model, ids, images, use_cache=False).cache is None
    cache = run(model, ids, images).cache
    assert cache.get_seq_length() == 4
    assert len(cache.layers) == 3 + 3


@families
def test_a_forward_over_a_cache_equals_one_over_all(text):
    """The conversation in pieces: text, an image, text, two images and text, in a padded batch."""
    model = shared_model(text)
    ids = prompt("abcdIefgIIhij", "IabcdefgIhijk")
    images = random_images(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    full = run(model, ids, images, frame_attention_mask=mask).logits
    pieces, cache, used = [], None, [0, 0]
    for start, end in ((0, 2), (2, 5), (5, 6), (6, 9), (9, 13)):
        piece = ids[:, start:end]
        counts = (piece == IMAGE).sum(1).tolist()
        new = [images[b, used[b] : used[b] + n] for b, n in enumerate(counts)]
        used = [u + n for u, n in zip(used, counts, strict=True)]
        kwargs = {}
        if any(counts):
            kwargs["pixel_values"], kwargs["frame_attention_mask"] = pad_images(new)
        output = run(model, piece, cache=cache, use_cache=True, **kwargs)
        cache = output.cache
        pieces.append(output.logits)
    assert_close(torch.cat(pieces, dim=1), full)


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings(text, tied, tmp_path):
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied})
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embeddings is model.language_model.get_input_embeddings()
    assert head is model.language_model.get_output_embeddings()
    assert (embeddings.weight is head.weight) == tied
    old = embeddings.weight.detach().clone()

    resized = model.resize_token_embeddings(VOCAB_SIZE + 6)
    assert resized.weight.shape[0] == VOCAB_SIZE + 6
    assert resized is model.get_input_embeddings()
    assert model.get_output_embeddings().weight.shape[0] == VOCAB_SIZE + 6
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert torch.equal(resized.weight[:VOCAB_SIZE], old)
    assert model.config.text_config.vocab_size == VOCAB_SIZE + 6
    assert model.language_model.config.vocab_size == VOCAB_SIZE + 6
    ids, images = prompt("aIbc"), random_images(1, 1)
    output = run(model, ids, images, labels=ids)
    assert output.logits.shape[-1] == VOCAB_SIZE + 6 and output.loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path).eval()
    assert_close(run(loaded, ids, images).logits, output.logits)

    new = torch.nn.Embedding(VOCAB_SIZE + 6, embeddings.weight.shape[1])
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new


def test_a_vocabulary_without_the_special_tokens_is_an_error():
    with pytest.raises(ValueError, match="`image_token_id` is 120.*99 rows.*from_vision_text_pretrained"):
        FlamingoModel(tiny_config(image_token_id=120))


@pytest.mark.parametrize("frozen", [False, True])
def test_copies_and_pickles_are_whole_and_independent(frozen):
    model = tiny_flamingo()
    if frozen:
        model.freeze_backbones()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before = run(model, ids, images).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(other, ids, images).logits, before)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.1)
        assert far(run(other, ids, images).logits, before)
        assert torch.equal(run(model, ids, images).logits, before)


def test_bos_and_pad_are_ordinary_text():
    """Without a mask, nothing is taken for padding."""
    model = shared_model()
    ids = torch.tensor([[PAD, BOS, IMAGE, 5, PAD]])
    assert_close(
        run(model, ids, random_images(1, 1)).logits,
        run(model, ids, random_images(1, 1), attention_mask=torch.ones_like(ids)).logits,
    )


@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_the_base_model_is_the_model_without_its_head(text):
    model = tiny_flamingo(text)
    ids, images = prompt("aIbcd", "_Ixyz"), random_images(2, 1)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": images}
    heads_input = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: heads_input.append(args[0]))
    with torch.no_grad():
        model(**inputs)
        handle.remove()
        body = model.base_model(**inputs).last_hidden_state
        other = model.base_model(**{**inputs, "pixel_values": images.flip(0)}).last_hidden_state
    torch.testing.assert_close(body, heads_input[0])
    assert (body - other)[:, -1].abs().amax(dim=-1).min() > 1e-4


def test_the_base_model_takes_the_keywords_of_every_model():
    body, ids, images = tiny_flamingo().eval().base_model, prompt("aIbc"), random_images(1, 1)
    with torch.no_grad():
        whole = body(ids, pixel_values=images, use_cache=False).last_hidden_state
        first = body(ids[:, :3], pixel_values=images, use_cache=True)
        with pytest.warns(FutureWarning, match="`past_key_values` is deprecated"):
            rest = body(ids[:, 3:], past_key_values=first.cache, return_dict=False)
    assert isinstance(rest, tuple)
    torch.testing.assert_close(rest[0], whole[:, 3:])
