# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import functools

import pytest
import torch
from factory import IMAGE_SIZE, TEXT_CONFIGS, random_images, tiny_config, tiny_flamingo, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.data.packing import pack
from transformers_flamingo.training import FlamingoDataCollator, check_packing


ALIBI_FROM_MASK = {"bloom": {}, "falcon_alibi": {"alibi": True}}  # they would need the mask of padding, too
EAGER_ALONE = ("mpt", "gptj", "gpt_neo")
MODELS = [(text, "eager") for text in TEXT_CONFIGS if text not in ALIBI_FROM_MASK]
MODELS += [(text, "sdpa") for text, _ in MODELS if text not in EAGER_ALONE]


@functools.cache
def model(text: str = "gpt2", attention: str = "eager") -> FlamingoModel:
    return tiny_flamingo(text, text_kwargs={"attn_implementation": attention})


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 4, 24, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(20, 40))
def test_rows_hold_each_document_once_and_are_few(lengths, capacity):
    rows = pack(lengths, capacity)
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert rows == sorted(sorted(row) for row in rows)
    sizes = sorted(sum(lengths[document] for document in row) for row in rows)
    assert sizes[-1] <= capacity
    # First fit leaves no two rows that would fit into one
    assert len(sizes) == 1 or 2 * sum(sizes) > capacity * len(sizes)


def test_rows_are_few_and_of_like_length():
    assert pack([3, 9, 5, 1, 2], 10) == [[0, 2, 4], [1, 3]]
    assert pack([4] * 7, 20) == [[0, 2, 4, 6], [1, 3, 5]]  # and not five and two
    assert pack([6, 5, 3, 3, 3], 10) == [[0], [1, 4], [2, 3]]
    # Each into the shortest row, the last would not fit any more: 5 + 4 and 5 + 3 + 3
    assert pack([5, 5, 4, 3, 3], 10) == [[0, 1], [2, 3, 4]]


documents = st.lists(
    st.tuples(
        st.lists(st.integers(1, 9), min_size=1, max_size=3),  # words before, between and after the images
        st.booleans(),  # words first, so that some see no image
    ).filter(lambda document: document != ([1], True)),  # nothing predicts a word alone
    min_size=2,
    max_size=5,
)


@pytest.mark.parametrize(("text", "attention"), MODELS)
@settings(max_examples=4)
@given(layout=documents)
def test_a_document_has_the_logits_that_it_has_alone(text, attention, layout):
    rows = []
    for index, (lengths, starts_with_words) in enumerate(layout):
        chunks = [" ".join(f"w{3 + (7 * index + i * n) % 90}" for i in range(n)) for n in lengths]
        marked = "<image>".join(chunks if starts_with_words else ["", *chunks])
        rows.append({"text": marked, "image_features": features(marked.count("<image>"), seed=index)})
    processor, flamingo = tiny_processor(), model(text, attention)
    packed = FlamingoDataCollator(processor, max_length=40, packing=True)(rows)
    starts = [(r, t) for r, row in enumerate(packed["position_ids"].tolist()) for t, p in enumerate(row) if p == 0]
    with torch.no_grad():
        logits = flamingo(**packed).logits
        for row in rows:
            alone = FlamingoDataCollator(processor)([row])
            ids = alone["input_ids"][0]
            places = [(r, t) for r, t in starts if torch.equal(packed["input_ids"][r, t : t + len(ids)], ids)]
            differences = [
                (logits[r, t : t + len(ids)] - flamingo(**alone).logits[0]).abs().max().item() for r, t in places
            ]
            assert min(differences) < 2e-5


@pytest.mark.parametrize(("text", "attention"), MODELS)
def test_nothing_of_a_document_reaches_another(text, attention):
    flamingo = model(text, attention)
    collator = FlamingoDataCollator(tiny_processor(), max_length=32, packing=True)

    def logits(word: str, seed: int) -> torch.Tensor:
        first = {"text": f"{word} <image>{word} w7 {word}<image>{word}", "image_features": features(2, seed=seed)}
        second = {"text": "w9 w8<image>w7 w9 w8", "image_features": features(1, seed=5)}
        third = {"text": "w20 w21 w22"}
        batch = collator([first, second, third])
        assert len(batch["input_ids"]) == 1
        with torch.no_grad():
            return flamingo(**batch).logits[0]

    before, other_text, other_images = logits("w5", 1), logits("w6", 1), logits("w5", 2)
    for after in (other_text, other_images):
        assert torch.equal(before[7:], after[7:])
        assert (before[2:7] - after[2:7]).abs().amax(dim=-1).min() > 1e-6


def test_pixels_of_a_document_stay_in_it():
    flamingo = model()
    rows = [{"image": Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE)), "text": t} for t in ("<image>w5 w6", "w7 <image>w8")]
    batch = FlamingoDataCollator(tiny_processor(), max_length=8, packing=True)(rows)
    with torch.no_grad():
        before, after = (
            flamingo(**{**batch, "pixel_values": torch.stack([first, batch["pixel_values"][0, 1]])[None]}).logits[0]
            for first in random_images(2)
        )
    assert torch.equal(before[3:], after[3:])
    assert (before[:3] - after[:3]).abs().amax(dim=-1).min() > 1e-4


@pytest.mark.parametrize(("text", "attention"), MODELS)
def test_a_model_that_keeps_documents_apart_passes_and_stays_as_it_was(text, attention):
    flamingo = tiny_flamingo(text, text_kwargs={"attn_implementation": attention})
    flamingo.train()
    flamingo.resampler.eval()
    modes = [module.training for module in flamingo.modules()]
    random = torch.get_rng_state()
    check_packing(flamingo)
    assert [module.training for module in flamingo.modules()] == modes
    assert all(parameter.grad is None for parameter in flamingo.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("text", ALIBI_FROM_MASK)
def test_a_model_that_cannot_take_packed_documents_is_refused(text):
    flamingo = tiny_flamingo(text.removesuffix("_alibi"), text_kwargs=ALIBI_FROM_MASK[text])
    with pytest.raises(ValueError, match=r"cannot keep apart the documents .*Turn off `packing`"):
        check_packing(flamingo)


@pytest.mark.parametrize("text", ["gpt2", "opt", "opt_350m", "mpt", "gemma3"])
def test_a_leak_is_found(text, monkeypatch):
    # As with an attention that does not look at positions
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)
    with pytest.raises(ValueError, match="the second document of a row depends on the first"):
        check_packing(tiny_flamingo(text))


@pytest.mark.parametrize("model_type", ["bart", "marian"])
def test_positions_that_are_counted_from_the_edge_of_the_row_are_refused(model_type):
    """Nothing leaks there, but the second document would be learned at positions that it never has alone."""
    fields = {
        "vocab_size": 99,
        "d_model": 32,
        "decoder_layers": 12,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
    }
    fields |= {"max_position_embeddings": 64, "is_decoder": True, "is_encoder_decoder": False, "init_std": 0.2}
    text = AutoConfig.for_model(model_type, **fields, pad_token_id=0, decoder_start_token_id=1)
    config = tiny_config()
    config = FlamingoConfig.from_vision_text_configs(
        config.vision_config, text, image_token_id=98, end_of_chunk_token_id=97, resampler_num_layers=1
    )
    with pytest.raises(ValueError, match="its positions do not start again"):
        check_packing(FlamingoModel(config))
