# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A stock language model gets the images of one call, and nothing is left behind."""

import functools
import threading

import pytest
import torch
from factory import (
    DROPS_KEYWORDS,
    END_OF_CHUNK,
    IMAGE,
    VOCAB_SIZE,
    open_gates,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_text_config,
)
from flamingos import assert_close, far, run, shared_model
from transformers import AutoConfig, AutoModelForCausalLM

from transformers_flamingo import FlamingoConfig, FlamingoModel


@pytest.mark.parametrize("text", DROPS_KEYWORDS)
def test_a_language_model_that_drops_keywords_is_never_compiled_without_its_images(text):
    model = tiny_flamingo(text)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="did not pass the images down"):
        torch.compile(model, backend="eager", fullgraph=True)(
            input_ids=prompt("aIb"), pixel_values=random_images(1, 1), use_cache=False
        )
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("model_type", "kwargs", "message"),
    [
        ("ctrl", {"n_embd": 32, "n_head": 4, "n_layer": 2}, "no list of 2 decoder layers"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "keeps no keys and values"),
        ("openai-gpt", {"n_embd": 32, "n_head": 4, "n_layer": 2}, "keeps no keys and values"),
    ],
)
def test_a_language_model_that_cannot_be_conditioned_is_a_clear_error(model_type, kwargs, message):
    config = FlamingoConfig(
        vision_config=tiny_config().vision_config,
        text_config=AutoConfig.for_model(model_type, vocab_size=VOCAB_SIZE, **kwargs),
        image_token_id=IMAGE,
        end_of_chunk_token_id=END_OF_CHUNK,
    )
    with pytest.raises(ValueError, match=f"cannot be conditioned on images: .*{message}"):
        FlamingoModel(config)


def test_calls_do_not_remember_each_other():
    model = shared_model()
    first, second = random_images(1, 1, seed=1), random_images(1, 1, seed=2)
    ids = prompt("aIbcd")
    before = run(model, ids, first).logits
    run(model, ids, second)
    run(model, prompt("abc"))
    model.generate(input_ids=ids, pixel_values=second, max_new_tokens=3)
    assert torch.equal(run(model, ids, first).logits, before)


@pytest.mark.parametrize("text", ["gpt2", "gpt_neo"])
def test_two_threads_get_what_they_get_alone(text):
    model = tiny_flamingo(text)
    ids = [prompt("aIbcI"), prompt("IabIc")]
    images = [random_images(1, 2, seed=1), random_images(1, 2, seed=2)]

    def generate(i):
        return model.generate(
            input_ids=ids[i], pixel_values=images[i], max_new_tokens=12, min_new_tokens=12, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip

    alone = [generate(i) for i in range(2)]
    assert far(torch.stack(alone[0].logits), torch.stack(alone[1].logits))
    results = [[], []]
    barrier = threading.Barrier(2)

    def work(i):
        barrier.wait()
        for _ in range(4):
            results[i].append(generate(i))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(results[i]) == 4
        for result in results[i]:
            assert torch.equal(result.sequences, alone[i].sequences)
            assert_close(torch.stack(result.logits), torch.stack(alone[i].logits))


def attributes(model):
    """Everything that modules hold besides parameters, buffers and children, as something that can be compared."""
    skip = {"_parameters", "_buffers", "_modules", "config", "generation_config"}
    return {name: {k: repr(v) for k, v in m.__dict__.items() if k not in skip} for name, m in model.named_modules()}


@pytest.mark.parametrize("where", ["language_model.transformer.h.1", "gated_cross_attention.1", "resampler.layers.0"])
@pytest.mark.parametrize("text", ["gpt2", "gpt_neo"])
def test_an_interrupted_call_leaves_nothing(where, text):
    model = tiny_flamingo(text)
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before = run(model, ids, images).logits
    with torch.no_grad():
        bare = model.language_model(ids).logits
    held = attributes(model)

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = model.get_submodule(where).register_forward_pre_hook(interrupt)
    for call in (model, functools.partial(model.generate, max_new_tokens=2)):
        with pytest.raises(KeyboardInterrupt):
            call(input_ids=ids, pixel_values=images)
    handle.remove()
    assert attributes(model) == held
    assert torch.equal(run(model, ids, images).logits, before)
    with torch.no_grad():
        assert torch.equal(model.language_model(ids).logits, bare)


@pytest.mark.parametrize("text", ["gpt2", "llama", "gpt_neo"])
def test_the_language_model_alone_stays_stock(text):
    """Called by itself, also after multimodal calls, it is the plain language model: no image, no gated block."""
    model = shared_model(text)
    bare = AutoModelForCausalLM.from_config(tiny_text_config(text)).eval()
    bare.load_state_dict(model.language_model.state_dict())
    run(model, prompt("aIb"), random_images(1, 1))
    with torch.no_grad():
        assert torch.equal(model.language_model(prompt("abc")).logits, bare(prompt("abc")).logits)
        got, expected = (m.generate(prompt("abc"), max_new_tokens=5) for m in (model.language_model, bare))
    assert torch.equal(got, expected)


def test_two_models_may_share_one_language_model():
    """Each applies its own blocks, at its own layers."""
    first = tiny_flamingo(seed=1)
    config = tiny_config(cross_attention_layers=[1])
    torch.manual_seed(2)
    alone = open_gates(FlamingoModel(config)).eval()
    alone.language_model.load_state_dict(first.language_model.state_dict())
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before, expected = run(first, ids, images).logits, run(alone, ids, images).logits
    second = FlamingoModel(config, language_model=first.language_model)
    second.load_state_dict(alone.state_dict())
    second.eval()
    assert_close(run(first, ids, images).logits, before)
    assert_close(run(second, ids, images).logits, expected)
