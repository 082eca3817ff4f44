# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`generate()`: every way of decoding gives with a cache what it gives without one, each image is encoded once, and a
conversation continues from a returned cache.
"""

import copy

import pytest
import torch
from decoding import (
    LENGTH,
    NEW,
    assert_close,
    families,
    first_turn,
    left_padded,
    lively,
    media_layers,
    shared_model,
    uncached_greedy,
)
from factory import (
    END_OF_CHUNK,
    EOS,
    IMAGE,
    VOCAB_SIZE,
    open_gates,
    prompt,
    random_images,
    tiny_flamingo,
    tiny_text_config,
)
from transformers import (
    AutoModelForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
    set_seed,
)
from transformers.generation.streamers import BaseStreamer

from transformers_flamingo import FlamingoConfig, FlamingoModel


@families
def test_greedy_equals_forward_passes_over_the_whole_text(text):
    model = shared_model(text)
    ids, images = prompt("aIbcdIef", "IabIcdef"), random_images(2, 2)
    expected, expected_logits = uncached_greedy(model, ids, images)
    output = model.generate(
        input_ids=ids, pixel_values=images, return_dict_in_generate=True, output_logits=True, **LENGTH
    )
    assert output.sequences.tolist() == expected.tolist()
    assert_close(torch.stack(output.logits, dim=1), expected_logits)
    # The images matter, also after the prompt.
    blank = model.generate(
        input_ids=ids, pixel_values=-images, return_dict_in_generate=True, output_logits=True, **LENGTH
    )
    assert (torch.stack(blank.logits, dim=1) - expected_logits).abs().amax((0, 2)).min() > 1e-2


@families
def test_a_left_padded_batch_equals_its_samples_one_by_one(text):
    model = shared_model(text)
    inputs = left_padded()
    batch = model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **LENGTH)
    for b in range(3):
        real = inputs["attention_mask"][b].bool()
        n = int(inputs["frame_attention_mask"][b].sum())
        images = inputs["pixel_values"][b : b + 1, :n] if n else None
        expected, logits = uncached_greedy(model, inputs["input_ids"][b : b + 1, real], images)
        assert batch.sequences[b, 8:].tolist() == expected[0, -NEW:].tolist()
        assert_close(torch.stack(batch.logits, dim=1)[b], logits[0])


MODES = {
    "greedy": {},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "top_k": {"do_sample": True, "top_k": 10},
    "top_p": {"do_sample": True, "top_p": 0.8, "temperature": 2.0, "num_return_sequences": 2},
    "beam_sample": {"do_sample": True, "num_beams": 3},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "prompt_lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma3"])
def test_cached_equals_uncached(mode, text):
    model = shared_model(text)
    inputs = left_padded()
    if mode == "prompt_lookup":  # one sample at a time
        inputs = {name: value[:1] for name, value in inputs.items()}
    results = []
    for use_cache in (True, False):
        if mode == "prompt_lookup" and not use_cache:
            # Assisted decoding needs a cache; it must not change what greedy gives.
            mode = "greedy"
        set_seed(0)
        results.append(
            model.generate(
                **inputs,
                **MODES[mode],
                **LENGTH,
                use_cache=use_cache,
                return_dict_in_generate=True,
                output_scores=True,
                output_logits=True,
            )
        )
    cached, uncached = results
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    assert cached.sequences.shape == (
        len(inputs["input_ids"]) * MODES[mode].get("num_return_sequences", 1),
        8 + NEW,
    )
    for a, b in zip(cached.scores, uncached.scores, strict=True):
        finite = b > -1e30
        assert torch.equal(a > -1e30, finite)
        assert_close(a[finite], b[finite])
    for a, b in zip(cached.logits, uncached.logits, strict=True):
        assert_close(a, b)


def test_a_seed_decides_a_sample():
    model = shared_model()
    inputs = left_padded()
    draws = []
    for seed in (0, 0, 1):
        set_seed(seed)
        draws.append(model.generate(**inputs, do_sample=True, temperature=3.0, **LENGTH).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_beams_beat_greedy():
    """The score of the best beam is the log-probability that forward passes give to it, and no worse than greedy's."""
    model = shared_model()
    ids, images = prompt("aIbcI"), random_images(1, 2)

    def score(sequence):
        with torch.no_grad():
            logits = model(input_ids=sequence, pixel_values=images).logits[:, 4:-1]
        logits[..., [IMAGE, END_OF_CHUNK, EOS]] = float("-inf")
        return logits.log_softmax(-1).gather(2, sequence[:, 5:, None]).sum().item()

    kwargs = {"input_ids": ids, "pixel_values": images, **LENGTH}
    greedy = model.generate(**kwargs)
    beam = model.generate(**kwargs, num_beams=4, length_penalty=0.0, return_dict_in_generate=True, output_scores=True)
    assert score(beam.sequences) >= score(greedy) - 1e-4
    # The same beams, each sample of a batch its own.
    twice = model.generate(
        input_ids=torch.cat([ids, prompt("IIabc")]),
        pixel_values=torch.cat([images, random_images(1, 2, seed=5)]),
        num_beams=4, length_penalty=0.0, **LENGTH,
    )  # fmt: skip
    assert twice[0].tolist() == beam.sequences[0].tolist()


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])
@pytest.mark.parametrize("num_assistant_tokens", [2, 5])
def test_assisted_decoding_equals_greedy(text, num_assistant_tokens):
    model = shared_model(text)
    torch.manual_seed(7)
    ids, images = prompt("aIbcdI"), random_images(1, 2)
    length = {"max_new_tokens": 12, "min_new_tokens": 12}
    expected = model.generate(input_ids=ids, pixel_values=images, **length)
    # A stranger, whose candidates are nearly all refused, and the model's own language model.
    for assistant in (AutoModelForCausalLM.from_config(tiny_text_config(text)).eval(), model.language_model):
        assistant.generation_config.num_assistant_tokens = num_assistant_tokens
        got = model.generate(input_ids=ids, pixel_values=images, assistant_model=assistant, **length)
        assert got.tolist() == expected.tolist()


def test_prompt_lookup_equals_greedy_where_it_finds_images():
    """Candidates are copied from the prompt, `<image>` among them: they are refused and leave nothing behind."""
    model = shared_model()
    # An n-gram of what is generated comes before `<image>` in the prompt.
    ids, images = prompt("aIbIcI"), random_images(1, 3)
    length = {"max_new_tokens": 14, "min_new_tokens": 14}
    expected = model.generate(input_ids=ids, pixel_values=images, **length)
    token = expected[0, 6].item()
    ids = torch.cat([torch.tensor([[token, IMAGE, token, IMAGE]]), ids], dim=1)
    images = random_images(1, 5)
    expected = model.generate(input_ids=ids, pixel_values=images, **length)
    got = model.generate(
        input_ids=ids, pixel_values=images, prompt_lookup_num_tokens=4, max_matching_ngram_size=1, **length
    )
    assert got.tolist() == expected.tolist()


def biased(token_id: int, bias: float = 1e4, text: str = "llama") -> FlamingoModel:
    """A model whose largest logit is always that of `token_id`."""
    model = lively(text, text_kwargs={"tie_word_embeddings": False})
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(VOCAB_SIZE).index_fill_(0, torch.tensor([token_id]), bias))
    return model


@pytest.mark.parametrize("mode", ["greedy", "beam", "top_k"])
def test_image_is_never_generated_by_default(mode):
    model = biased(IMAGE)
    kwargs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1), **LENGTH}
    assert IMAGE not in model.generate(**kwargs, **MODES[mode])[:, 3:]
    assert IMAGE not in model.generate(input_ids=prompt("abc"), **MODES[mode], **LENGTH)


@pytest.mark.parametrize("nothing", [None, []])
@pytest.mark.parametrize("use_cache", [True, False])
def test_image_is_generated_when_asked_for_and_keeps_the_last_image_in_view(nothing, use_cache):
    model = biased(IMAGE, bias=0.0)
    ids, images = prompt("aIbc"), random_images(1, 1)

    def processor(ids, scores):  # `<image>` in the second step
        if ids.shape[1] == 5:
            scores = torch.full_like(scores, -1e9).index_fill_(1, torch.tensor([IMAGE]), 0.0)
        return scores

    def logits(images):
        output = model.generate(
            input_ids=ids, pixel_values=images, suppress_tokens=nothing, logits_processor=[processor],
            use_cache=use_cache, return_dict_in_generate=True, output_logits=True, do_sample=False, **LENGTH,
        )  # fmt: skip
        assert output.sequences[0, 5] == IMAGE
        return torch.stack(output.logits), output.sequences

    first, sequence = logits(images)
    second, _ = logits(-images)
    assert (first - second)[2:].abs().amax((1, 2)).min() > 1e-3
    # What follows the generated marker is as if the marker were a word: by hand, with the image's latents.
    latents = model.get_image_features(images).pooler_output
    with torch.no_grad():
        by_hand = model(
            input_ids=sequence[:, :-1],
            mm_encoder_outputs={"image": {"pooler_output": latents}},
            media_index=torch.tensor([[0] + [1] * (sequence.shape[1] - 2)]),
        ).logits
    assert_close(first[:, 0], by_hand[0, 3:])


@pytest.mark.parametrize("token_id", [END_OF_CHUNK, EOS])
def test_stops_at_the_end_of_a_chunk_and_at_the_end_of_text(token_id):
    model = biased(token_id)
    kwargs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1)}
    assert model.generate(**kwargs, max_new_tokens=NEW)[0, 3:].tolist() == [token_id]
    assert model.generate(**kwargs, max_new_tokens=NEW, num_beams=2)[0, 3:].tolist() == [token_id]
    # A user's own end wins.
    assert model.generate(**kwargs, max_new_tokens=NEW, eos_token_id=5)[0, 3:].tolist() == [token_id] * NEW


@pytest.mark.parametrize("how", ["given", "joined"])
def test_stops_where_the_language_model_stops(how, tmp_path):
    source = tiny_flamingo("llama")
    text = source.language_model
    text.generation_config.eos_token_id = [EOS, 7]  # as `<|eot_id|>` of Llama 3, `<end_of_turn>` of Gemma
    text.generation_config.pad_token_id = 5
    text.generation_config.suppress_tokens = [9]
    if how == "given":
        model = FlamingoModel(source.config, vision_model=source.vision_model, language_model=text)
    else:
        text.save_pretrained(tmp_path / "text")
        source.vision_model.save_pretrained(tmp_path / "vision")
        model = FlamingoModel.from_vision_text_pretrained(
            tmp_path / "vision", tmp_path / "text", image_token_id=IMAGE, end_of_chunk_token_id=END_OF_CHUNK
        )
    model.save_pretrained(tmp_path / "flamingo")
    for flamingo in (model, FlamingoModel.from_pretrained(tmp_path / "flamingo")):
        assert flamingo.generation_config.eos_token_id == [END_OF_CHUNK, EOS, 7]
        assert flamingo.generation_config.pad_token_id == 5
        assert flamingo.generation_config.suppress_tokens == [9, IMAGE]
    head = torch.nn.Linear(32, VOCAB_SIZE)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(VOCAB_SIZE) == 7)
    model.eval().set_output_embeddings(head)
    assert model.generate(input_ids=prompt("ab"), max_new_tokens=NEW)[0, 2:].tolist() == [7]


def test_sampling_of_the_language_model_is_not_taken_over():
    """It was chosen for chats; a caption is decoded greedily unless asked otherwise."""
    source = tiny_flamingo("llama")
    source.language_model.generation_config.do_sample = True
    source.language_model.generation_config.temperature = 0.6
    model = FlamingoModel(source.config, vision_model=source.vision_model, language_model=source.language_model)
    assert not model.generation_config.do_sample and model.generation_config.temperature in (None, 1.0)


def first_logits(model: FlamingoModel, **kwargs) -> torch.Tensor:
    kwargs = {"max_new_tokens": 3, "output_logits": True, "return_dict_in_generate": True, "eos_token_id": -1} | kwargs
    return torch.stack(model.generate(**kwargs).logits, dim=1)


@pytest.mark.parametrize("text", ["gpt2", "llama", "mpt"])
@pytest.mark.parametrize("media_index", [[1, 1, 1, 1], [2, 2, 1, 1], [0, 0, 2, 2], [1, 1, 2, 0]])
def test_media_index_of_the_prompt_is_honored(text, media_index):
    model, images = shared_model(text), random_images(1, 2)
    kwargs = {"input_ids": prompt("IaIb"), "pixel_values": images, "media_index": torch.tensor([media_index])}
    logits = first_logits(model, **kwargs)
    sequence = model.generate(**kwargs, max_new_tokens=3, eos_token_id=-1)
    # By hand, all at once: a generated token sees what the last token of the prompt sees
    kwargs["media_index"] = torch.tensor([[*media_index, media_index[-1], media_index[-1]]])
    with torch.no_grad():
        expected = model(**{**kwargs, "input_ids": sequence[:, :-1]}).logits[:, 3:]
    assert_close(logits, expected)
    assert (expected - model(input_ids=sequence[:, :-1], pixel_values=images).logits[:, 3:]).abs().max() > 0.1


@pytest.mark.parametrize("other", [{"use_cache": False}, {"num_beams": 3, "num_return_sequences": 3}])
def test_media_index_is_honored_without_a_cache_and_by_beams(other):
    model = shared_model()
    kwargs = {
        "input_ids": prompt("IaIb", "_aIb"),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]),
        "pixel_values": random_images(2, 2),
        "frame_attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "media_index": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]),
        **LENGTH,
    }
    if "num_beams" in other:
        got = model.generate(**kwargs, **other)
        assert got.tolist() == model.generate(**kwargs, **other, use_cache=False).tolist()
    else:
        assert model.generate(**kwargs, **other).tolist() == model.generate(**kwargs).tolist()


def test_media_index_that_names_a_missing_image_is_refused():
    kwargs = {"input_ids": prompt("IaIb"), "pixel_values": random_images(1, 2), "max_new_tokens": 1}
    with pytest.raises(ValueError, match="`media_index` is 3 at token 3 of sample 0, which has 2 images"):
        shared_model().generate(**kwargs, media_index=torch.tensor([[1, 1, 2, 3]]))
    with pytest.raises(ValueError, match=r"`media_index` has shape \(1, 3\), but the text has \(1, 4\)"):
        shared_model().generate(**kwargs, media_index=torch.tensor([[1, 1, 2]]))
    cache = shared_model()(input_ids=prompt("abc"), use_cache=True).cache
    with pytest.raises(ValueError, match="`media_index` counts the images of one call"):
        shared_model().generate(**kwargs, media_index=torch.tensor([[1, 1, 2, 2]]), cache=cache)


def test_default_generation_config_survives_a_save(tmp_path):
    model = biased(IMAGE)
    model.get_output_embeddings().bias = None
    model.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path)
    assert loaded.generation_config.eos_token_id == [END_OF_CHUNK, EOS]
    assert loaded.generation_config.suppress_tokens == [IMAGE]
    assert loaded.generation_config.pad_token_id == 0


@families
def test_text_only_prompts(text):
    model = shared_model(text)
    ids = prompt("abcdef", "fedcba")
    expected, expected_logits = uncached_greedy(model, ids, None)
    output = model.generate(input_ids=ids, return_dict_in_generate=True, output_logits=True, **LENGTH)
    assert output.sequences.tolist() == expected.tolist()
    assert_close(torch.stack(output.logits, dim=1), expected_logits)


def test_without_attention_mask_pad_tokens_in_the_prompt_are_no_problem():
    model = shared_model()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    with_mask = model.generate(input_ids=ids, pixel_values=images, attention_mask=torch.ones_like(ids), **LENGTH)
    assert model.generate(input_ids=ids, pixel_values=images, **LENGTH).tolist() == with_mask.tolist()
    assert model.generate(ids, pixel_values=images, **LENGTH).tolist() == with_mask.tolist()


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_inputs_embeds(text, use_cache, num_beams):
    model = shared_model(text)
    ids, images = prompt("aIbIc", "IIabc"), random_images(2, 2)
    expected = model.generate(input_ids=ids, pixel_values=images, num_beams=num_beams, **LENGTH)
    embeds = model.get_input_embeddings()(ids)
    kwargs = {"pixel_values": images, "num_beams": num_beams, "use_cache": use_cache, **LENGTH}
    got = model.generate(inputs_embeds=embeds, **kwargs)
    assert got.tolist() == expected[:, 5:].tolist()
    both = model.generate(input_ids=ids, inputs_embeds=embeds, **kwargs)
    assert both.tolist() == expected.tolist()


def test_video():
    model = shared_model()
    ids = prompt("aIbIc", "___Ia")
    mask = torch.tensor([[1] * 5, [0] * 3 + [1] * 2])
    video = random_images(2, 2, 6)
    frames = torch.tensor([[[1] * 6, [1] + [0] * 5], [[1, 1] + [0] * 4, [0] * 6]])
    batch = model.generate(
        input_ids=ids, attention_mask=mask, pixel_values=video, frame_attention_mask=frames, num_beams=2, **LENGTH
    )
    second = model.generate(input_ids=ids[1:, 3:], pixel_values=video[1:, :1, :2], num_beams=2, **LENGTH)
    assert batch[1, 5:].tolist() == second[0, 2:].tolist()
    expected, _ = uncached_greedy(model, ids[:1], video[:1], frame_attention_mask=frames[:1])
    assert model.generate(
        input_ids=ids[:1], pixel_values=video[:1], frame_attention_mask=frames[:1], **LENGTH
    ).tolist() == expected.tolist()  # fmt: skip


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 3, "num_return_sequences": 3}, {"use_cache": False}])
def test_precomputed_features_and_latents(kwargs):
    model = shared_model()
    inputs = left_padded()
    expected = model.generate(**inputs, **kwargs, **LENGTH).tolist()
    pixels, frames = inputs.pop("pixel_values"), inputs.pop("frame_attention_mask")
    features = model.get_image_features(pixels, frames)
    for image, extra in (
        (features, {}),
        ({"pooler_output": features.pooler_output}, {"frame_attention_mask": frames}),
        ({"last_hidden_state": features.last_hidden_state}, {"frame_attention_mask": frames}),
    ):
        given = {"image": image}
        got = model.generate(**inputs, mm_encoder_outputs=given, **extra, **kwargs, **LENGTH)
        assert got.tolist() == expected
        # The caller's own are as they were, for the next call.
        assert list(given) == ["image"] and given["image"] is image
        assert features.pooler_output.shape[0] == 3
    given = {"image": None}
    got = model.generate(
        **inputs, pixel_values=pixels, frame_attention_mask=frames, mm_encoder_outputs=given, **kwargs, **LENGTH
    )
    assert got.tolist() == expected and given == {"image": None}


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_model_without_a_vision_encoder(num_beams):
    torch.manual_seed(0)
    config = FlamingoConfig(
        vision_hidden_size=20,
        text_config=tiny_text_config(initializer_range=0.3),
        resampler_num_layers=1,
        resampler_num_latents=5,
    )
    model = open_gates(FlamingoModel(config)).eval()
    image_id = config.image_token_id
    ids = torch.tensor([[5, image_id, 6, 7], [image_id, 5, 9, 8]])
    features = torch.randn(2, 1, 11, 20)
    kwargs = {"num_beams": num_beams, "return_dict_in_generate": True, "output_logits": True, **LENGTH}
    cached, uncached = (
        model.generate(
            input_ids=ids,
            mm_encoder_outputs={"image": {"last_hidden_state": features}},
            use_cache=use_cache,
            **kwargs,
        )
        for use_cache in (True, False)
    )
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    other = model.generate(input_ids=ids, mm_encoder_outputs={"image": {"last_hidden_state": -features}}, **kwargs)
    assert (torch.stack(cached.logits) - torch.stack(other.logits)).abs().max() > 1e-2


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_beams": 4},
        {"do_sample": True, "num_return_sequences": 3},
        {"use_cache": False},
        {"use_cache": False, "num_beams": 3},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=str,
)
def test_each_image_is_encoded_once(kwargs):
    model = lively()
    encoded, resampled = [], []
    model.vision_model.register_forward_pre_hook(
        lambda m, args, kwargs: encoded.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    model.resampler.register_forward_pre_hook(lambda m, args: resampled.append(len(args[0])))
    inputs = left_padded()
    if "prompt_lookup_num_tokens" in kwargs:
        inputs = {name: value[:1] for name, value in inputs.items()}
    model.generate(**inputs, **kwargs, **LENGTH)
    num_images = int(inputs["frame_attention_mask"].sum())
    assert (encoded, resampled) == ([num_images], [num_images])


@pytest.mark.parametrize(
    "kwargs",
    [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 4}],
    ids=str,
)
def test_beams_and_sequences_share_their_prompt_and_its_images(kwargs):
    """The prompt is computed once, and a gated block reads keys and values of one image for each sample and step."""
    model = lively("llama")
    rows = max(kwargs.get("num_beams", 1), kwargs.get("num_return_sequences", 1))
    tokens, images = [], []
    model.get_input_embeddings().register_forward_pre_hook(lambda m, args: tokens.append(tuple(args[0].shape)))
    attention = model.gated_cross_attention[1].attention
    attend = attention.attend

    def counted(query, key, value, attention_mask=None):
        images.append(len(key))
        return attend(query, key, value, attention_mask)

    attention.attend = counted
    inputs = left_padded()
    output = model.generate(**inputs, **kwargs, **LENGTH, return_dict_in_generate=True)
    num_samples, length = inputs["input_ids"].shape
    assert tokens == [(num_samples, length)] + [(num_samples * rows, 1)] * (NEW - 1)
    assert images[1:] == [num_samples] * (NEW - 1)
    sizes = {tuple(layer.keys.shape[:1] + layer.keys.shape[2:3]) for layer in media_layers(output.cache)}
    assert sizes == {(num_samples, model.config.resampler_num_latents)}


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_a_prompt_in_chunks_gives_what_the_whole_gives(size, kwargs):
    model = lively()
    kwargs = {**kwargs, **LENGTH, "return_dict_in_generate": True, "output_logits": True}
    for inputs in (left_padded(), {"input_ids": prompt("abcdef")}):
        whole, parts = (model.generate(**inputs, prefill_chunk_size=s, **kwargs) for s in (None, size))
        assert parts.sequences.tolist() == whole.sequences.tolist()
        assert_close(torch.stack(parts.logits), torch.stack(whole.logits))


def test_chunks_are_parts_of_the_text_with_the_images_that_they_mark():
    model = lively()
    seen = []
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(
            (
                kwargs["input_ids"].shape[1],
                [int(n) for n in kwargs["mm_encoder_outputs"]["image"].image_attention_mask.sum(dim=1)]
                if kwargs.get("mm_encoder_outputs")
                else [],
            )
        ),
        with_kwargs=True,
    )
    ids, images = prompt("aIIbcd", "IabcId"), random_images(2, 2)
    model.generate(input_ids=ids, pixel_values=images, prefill_chunk_size=2, max_new_tokens=1)
    assert seen == [(2, [1, 1]), (2, [1, 0]), (2, [0, 1])]


@pytest.mark.parametrize("whole", [True, False])
def test_a_conversation_continues_in_chunks(whole):
    model = lively()
    ids, images = prompt("aIbcdIef"), random_images(1, 2)
    first = {"max_new_tokens": 1, "return_dict_in_generate": True, "do_sample": False}
    expected = model.generate(input_ids=ids, pixel_values=images, **LENGTH)[0, ids.shape[1] :]
    cache = model.generate(input_ids=ids[:, :4], pixel_values=images[:, :1], **first).cache
    kwargs = {"pixel_values": images} if whole else {"pixel_values": images[:, 1:]}
    continued = model.generate(
        input_ids=ids if whole else ids[:, 4:],
        attention_mask=torch.ones_like(ids),
        cache=cache,
        prefill_chunk_size=2,
        **kwargs,
        **LENGTH,
    )
    assert continued[0, -len(expected) :].tolist() == expected.tolist()


def test_chunks_need_markers():
    model = shared_model()
    kwargs = {"pixel_values": random_images(1, 1), "prefill_chunk_size": 2, "max_new_tokens": 2}
    with pytest.raises(ValueError, match="`prefill_chunk_size` was given with images and with"):
        model.generate(input_ids=prompt("aIbcd"), media_index=torch.tensor([[0, 1, 1, 1, 1]]), **kwargs)
    with pytest.raises(ValueError, match="`prefill_chunk_size` was given with images and with"):
        model.generate(inputs_embeds=model.get_input_embeddings()(prompt("aIbcd")), **kwargs)


def test_continuous_batching_is_for_text():
    model = shared_model()
    with pytest.raises(
        ValueError, match=r"The texts \[1\] have `<image>` markers, but continuous batching takes tokens alone"
    ):
        model.generate_batch([prompt("ab")[0].tolist(), prompt("aIb")[0].tolist()])


def test_streamers_get_what_generate_returns():
    class Collect(BaseStreamer):
        def __init__(self):
            self.tokens, self.ended = [], False

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            self.ended = True

    model, streamer = shared_model(), Collect()
    ids = prompt("aIbc")
    output = model.generate(input_ids=ids, pixel_values=random_images(1, 1), streamer=streamer, **LENGTH)
    assert streamer.ended and streamer.tokens == output[0].tolist()


@pytest.mark.parametrize("num_beams", [1, 2])
def test_attentions_and_hidden_states(num_beams):
    model = lively()
    model.set_attn_implementation("eager")
    output = model.generate(
        input_ids=prompt("aIbc"), pixel_values=random_images(1, 1), return_dict_in_generate=True,
        output_attentions=True, output_hidden_states=True, num_beams=num_beams, **LENGTH,
    )  # fmt: skip
    assert len(output.attentions) == len(output.hidden_states) == NEW
    assert [len(step) for step in output.hidden_states] == [4] * NEW
    assert output.attentions[0][0].shape == (num_beams, 4, 4, 4)
    assert output.attentions[-1][0].shape == (num_beams, 4, 1, 4 + NEW - 1)


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma3"])
@pytest.mark.parametrize("num_old", [0, 1, 2])
@pytest.mark.parametrize("new_text", ["efg", "eIf", "IIe"])
@pytest.mark.parametrize("what", ["all", "new_images", "new_text_and_images"])
def test_a_conversation_continues_from_its_cache(text, num_old, new_text, what):
    model = shared_model(text)
    sequence, old_images, cache = first_turn(model, num_old)
    num_new = new_text.count("I")
    new_images = random_images(1, num_new, seed=9) if num_new else None
    ids = torch.cat([sequence, prompt(new_text)], dim=1)
    all_images = [images for images in (old_images, new_images) if images is not None]
    all_images = torch.cat(all_images, dim=1) if all_images else None
    expected, expected_logits = uncached_greedy(model, ids, all_images)

    inputs = {"input_ids": ids, "pixel_values": all_images if what == "all" else new_images}
    if what == "new_text_and_images":
        # What the cache lacks: the last generated token, and the new text. The mask tells that there is more.
        num_past = cache.get_seq_length()
        inputs["input_ids"] = ids[:, num_past:]
        inputs["attention_mask"] = torch.ones_like(ids)
    output = model.generate(**inputs, cache=cache, return_dict_in_generate=True, output_logits=True, **LENGTH)
    assert output.sequences[0, -NEW:].tolist() == expected[0, -NEW:].tolist()
    assert_close(torch.stack(output.logits, dim=1), expected_logits)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_padded_conversation_continues_with_images_for_some(num_beams):
    model = shared_model()
    inputs = left_padded()
    first = model.generate(**inputs, return_dict_in_generate=True, **LENGTH)
    new = prompt("eIf", "efg", "fIe")
    ids = torch.cat([first.sequences, new], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, NEW + 3, dtype=torch.long)], dim=1)
    new_images, new_mask = random_images(3, 1, seed=9), torch.tensor([[1], [0], [1]])
    all_images = torch.zeros(3, 3, *new_images.shape[2:])
    all_mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 0]])
    all_images[0] = torch.cat([inputs["pixel_values"][0], new_images[0]])
    all_images[1, 0] = inputs["pixel_values"][1, 0]
    all_images[2, 0] = new_images[2, 0]
    kwargs = {"input_ids": ids, "attention_mask": mask, "num_beams": num_beams, **LENGTH}
    expected = model.generate(
        pixel_values=all_images, frame_attention_mask=all_mask, use_cache=False, **kwargs
    ).tolist()
    shapes = []
    handle = model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    for images, images_mask in ((new_images, new_mask), (all_images, all_mask)):
        # A row of the cache for each conversation, whose new text is computed once for all beams, or for each beam
        for repeats in sorted({1, num_beams}):
            cache = copy.deepcopy(first.cache)
            cache.batch_repeat_interleave(repeats)
            shapes.clear()
            got = model.generate(pixel_values=images, frame_attention_mask=images_mask, cache=cache, **kwargs)
            assert got.tolist() == expected
            assert shapes[0] == (3 * repeats, 4)
    handle.remove()


def test_continuing_with_the_wrong_number_of_images_is_an_error():
    model = shared_model()
    sequence, _, cache = first_turn(model, 2)
    ids = torch.cat([sequence, prompt("eIf")], dim=1)
    for images in (None, random_images(1, 2)):
        with pytest.raises(ValueError, match="sample 0: 1 markers, [02] images"):
            model.generate(input_ids=ids, pixel_values=images, cache=copy.deepcopy(cache), max_new_tokens=2)


def test_interrupted_generation_leaves_the_model_as_it_was():
    class Stop(StoppingCriteria):
        def __call__(self, ids, scores, **kwargs):
            raise KeyboardInterrupt

    model = shared_model()
    kwargs = {"input_ids": prompt("aIbc"), "pixel_values": random_images(1, 1), **LENGTH}
    expected = model.generate(**kwargs)
    with pytest.raises(KeyboardInterrupt):
        model.generate(**kwargs, stopping_criteria=StoppingCriteriaList([Stop()]))
    assert model.generate(**kwargs).tolist() == expected.tolist()
    # Text alone, afterwards, sees no image.
    ids = prompt("abcd")
    assert model.generate(ids, **LENGTH).tolist() == uncached_greedy(model, ids, None)[0].tolist()
