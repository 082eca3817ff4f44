# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The miniature language model: its texts and training rows, its training, and the one that ships."""

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from transformers_flamingo_miniature import read_training_record, text_backbone_path
from transformers_flamingo_miniature.commands.miniature_backbones import MiniatureBackbonesArguments
from transformers_flamingo_miniature.shipped import few_shot_text_backbone_path
from transformers_flamingo_miniature.text_backbone import (
    TextBackboneSettings,
    build_text_backbone,
    position_waves,
    train_text_backbone,
)
from transformers_flamingo_miniature.text_evaluation import lookup_accuracy, text_perplexity
from transformers_flamingo_miniature.text_rows import (
    NO_KEY,
    TextRows,
    embed_with_noisy_keys,
    lookup_row,
    plain_share,
)
from transformers_flamingo_miniature.texts import TEXT_KINDS, Episode, all_captions, sample_episode, sample_text
from transformers_flamingo_miniature.tokenizer import NONSENSE_WORDS, build_tokenizer, miniature_vocabulary
from transformers_flamingo_miniature.world import COLORS, SHAPES, answer_prompt


TOKENIZER = build_tokenizer()


def batches(steps: int, seed: int = 0, tokens: int = 48, lengths: tuple[int, int] = (24, 48)) -> TextRows:
    options = {"max_positions": 512, "noise": 0.5, "made_up": 0.5, "seed": seed}
    return TextRows(TOKENIZER, steps, tokens=tokens, lengths=lengths, **options)


def rows(size: int) -> list[dict]:
    """Rows of 24 tokens."""
    return [
        {name: tensor[0] for name, tensor in batch.items()} for batch in batches(size, tokens=24, lengths=(24, 24))
    ]


# Texts.


def test_episode():
    episode = Episode((("red", "dax"), ("blue", "wug"), ("red", "dax")))
    assert episode.text == "red dax. blue wug. red dax."


@pytest.mark.parametrize("keys", ["color", "shape", "pair"])
def test_sampled_episodes_bind_each_key_to_one_word(keys):
    episode = sample_episode(np.random.default_rng(1), keys, ways=3, examples=12)
    assert len(episode.pairs) == 12 and len(set(episode.pairs)) == 3
    assert len({key for key, _ in episode.pairs}) == len({word for _, word in episode.pairs}) == 3


def test_wrong_text_arguments_are_named():
    with pytest.raises(ValueError, match="Unknown keys 'sound': an episode binds words to color, shape, pair"):
        sample_episode(np.random.default_rng(0), "sound")
    with pytest.raises(ValueError, match="Unknown kind of text 'poem': known kinds are caption"):
        sample_text("poem", np.random.default_rng(0))


def test_blind_text_is_uniform():
    # What a model without eyes can know: the answers of random text are uniform.
    rng = np.random.default_rng(0)
    answers = Counter(sample_text("question", rng).rsplit(" ", 1)[1] for _ in range(6000))
    for group in (COLORS, SHAPES):
        counts = np.array([answers[value] for value in group])
        assert counts.min() / counts.sum() > 0.8 / len(group)


def test_all_captions():
    captions = all_captions()
    # 48 pairs x (2 sizes x 4 backgrounds + 4 counts + 4 directions + 40 objects of another shape)
    assert len(captions) == 48 * (8 + 4 + 4 + 40)
    assert "a small red triangle on a noisy background" in captions
    assert "a red circle left of a blue circle" not in captions


# Training rows.


def test_labels_of_look_up_are_the_words():
    row = lookup_row(np.random.default_rng(0), TOKENIZER, length=24, ways=3)
    tokens = TOKENIZER.convert_ids_to_tokens(row["input_ids"].tolist())
    assert tokens[2::3] == ["."] * 8 and set(tokens[1::3]) <= set(NONSENSE_WORDS)
    assert not set(tokens[0::3]) & set(NONSENSE_WORDS)
    assert (
        len(set(tokens[0::3]))
        == len(set(zip(tokens[0::3], tokens[1::3], row["keys"][0::3].tolist(), strict=True)))
        <= 3
    )
    assert torch.equal(row["labels"][1::3], row["input_ids"][1::3])
    for start in (0, 2):
        assert (row["labels"][start::3] == -100).all()
    assert (row["keys"].reshape(8, 3)[:, 1:] == NO_KEY).all()


def test_a_batch_depends_on_seed_and_index_only():
    first, second, other = batches(200), batches(200), batches(200, seed=1)
    list(second)
    for index in (0, 150):
        assert all(torch.equal(first[index][name], second[index][name]) for name in first[0])
    assert not torch.equal(first[0]["input_ids"], other[0]["input_ids"])


def test_rows_grow_and_become_fewer():
    shapes = [tuple(batch["input_ids"].shape) for batch in batches(100, tokens=96)]
    assert shapes[0] == shapes[10] == (4, 24) and shapes[40] == shapes[99] == (2, 48)
    assert len(set(shapes)) > 4
    assert all(length % 3 == 0 and count == 96 // length for count, length in shapes)


def test_training_begins_with_look_up_and_blends_texts_in():
    assert [plain_share(progress) for progress in (0.0, 0.1)] == [0.0, 0.0]
    assert 0 < plain_share(0.2) < plain_share(0.3) < plain_share(0.4) == plain_share(1.0)
    kinds = [
        "look-up" if (row["keys"] != NO_KEY).any() else "plain" if (row["labels"] != -100).all() else "repeat"
        for row in rows(1000)
    ]
    counts = Counter(kinds[:100])
    assert counts["plain"] == 0 and 0.6 < counts["look-up"] / 100 < 0.8
    counts = Counter(kinds[400:])
    assert 0.35 < counts["plain"] / 600 < 0.55 and counts["repeat"] > 40


def test_what_a_row_of_repeated_words_supervises():
    """The labels begin with the second time around, where each word can be looked up."""
    for row in rows(100):
        if (row["keys"] == NO_KEY).all() and (row["labels"] == -100).any():
            period = int((row["labels"] == -100).sum())
            assert 4 <= period <= 16 and (row["labels"][:period] == -100).all()
            assert torch.equal(row["labels"][period:], row["input_ids"][:-period])
            return
    pytest.fail("There is no row of repeated words.")


def test_later_positions_are_trained_by_texts_only():
    drawn = list(rows(400))
    starts = [int(row["position_ids"][0]) for row in drawn]
    assert max(starts) > 400 and max(int(row["position_ids"][-1]) for row in drawn) < 512
    assert all(start == 0 for row, start in zip(drawn, starts, strict=True) if (row["keys"] != NO_KEY).any())


def test_keys_become_vectors_of_their_binding():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(9, 4)
    ids = torch.tensor([[1, 5, 2, 5, 1, 5]]).expand(2, -1)
    keys = torch.tensor([[0, NO_KEY, 1, NO_KEY, 0, NO_KEY]]).expand(2, -1)
    words, vectors = embed_with_noisy_keys(embedding, ids, keys, torch.tensor([False, True]), torch.zeros(2))
    assert torch.equal(words, embedding(ids[0]))
    assert torch.equal(vectors[1::2], words[1::2])
    assert torch.equal(vectors[0], vectors[4]) and not torch.equal(vectors[0], vectors[2])
    assert not torch.isclose(vectors[0::2], words[0::2]).all(dim=-1).any()


def test_noise_is_on_the_keys_only():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(9, 64)
    ids, keys = torch.tensor([[1, 5, 1, 5]]), torch.tensor([[0, NO_KEY, 0, NO_KEY]])
    noisy = embed_with_noisy_keys(embedding, ids, keys, torch.tensor([False]), torch.tensor([0.5]))
    difference = (noisy - embedding(ids))[0]
    assert (difference[1::2] == 0).all()
    assert difference[0].std().item() == pytest.approx(0.5 * embedding.weight[1].std().item(), rel=0.3)


def test_neighboring_positions_differ():
    waves = position_waves(512, 96)
    norm = waves.norm(dim=1)
    torch.testing.assert_close(norm, norm[:1].expand(512))
    steps = (waves[1:] - waves[:-1]).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(511), rtol=1e-3, atol=0)
    assert steps[0] / norm[0] > 0.7
    assert (waves[:, 32:] == 0).all()


def test_two_heads_begin_with_the_attention_of_look_up():
    """The first attends to the token before, the second to what followed the same token."""
    torch.manual_seed(0)
    model = build_text_backbone(TOKENIZER, TextBackboneSettings()).eval()
    model.set_attn_implementation("eager")
    ids = torch.stack([3 + torch.randperm(len(miniature_vocabulary()) - 3)[:12] for _ in range(16)]).repeat(1, 2)
    before, after, _ = model(input_ids=ids, output_attentions=True).attentions
    assert before[:, 0].diagonal(-1, 1, 2).mean() > 0.9
    assert before[:, 1:].diagonal(-1, 2, 3).mean() < 0.2
    # Token 12 + i is token i again; its first occurrence was followed by token i + 1.
    follower = after[:, :, 12:].diagonal(1, 2, 3).mean((0, 2))
    assert follower[0] > 0.2 > 0.1 > follower[1:].max()


# Training.


def test_text_training_is_reproducible_and_loads(tmp_path):
    settings = TextBackboneSettings(steps=2, batch_tokens=96, first_row_length=12, row_length=24, width=64, layers=2)
    arguments = {"settings": settings, "evaluation_size": 8, "progress": False}
    state = torch.get_rng_state()
    records = [train_text_backbone(tmp_path / name, **arguments) for name in ("first", "second")]
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert records[0]["evaluation"] == records[1]["evaluation"]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "first")).__name__ == "GPT2LMHeadModel"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert tokenizer.tokenize("a red bar") == ["a", "red", "bar"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` is 0, but it must be at least 1"),
        ({"layers": 1}, "1 layers and width 96 cannot look anything up"),
        ({"width": 32}, "3 layers and width 32 cannot look anything up"),
        ({"width": 80}, "a multiple of 32"),
        ({"row_length": 513}, "do not fit into 512 positions"),
        ({"row_length": 32}, "examples of 3 tokens"),
        ({"first_row_length": 0}, "Rows of 0 tokens do not fit"),
        ({"batch_tokens": 60}, "`row_length` is 120, but a batch has 60 tokens"),
    ],
)
def test_wrong_text_training_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TextBackboneSettings(**settings)


def test_the_record_of_the_shipped_one_says_the_settings():
    """The defaults are those of the few-shot model's."""
    record = read_training_record(few_shot_text_backbone_path())["hyperparameters"]
    settings = {field.name: record[field.name] for field in fields(TextBackboneSettings)}
    assert TextBackboneSettings(**settings) == TextBackboneSettings()


def test_the_command_has_the_settings_that_the_card_shows():
    card = (few_shot_text_backbone_path() / "README.md").read_text()
    command = "--steps 3000 \\\n        --batch-tokens 2400 --first-row-length 48 --row-length 120\n"
    assert f"flamingo miniature-backbones text DIRECTORY --seed 0 --device cpu {command}" in card
    settings = {"steps": 3000, "batch_tokens": 2400, "first_row_length": 48, "row_length": 120}
    assert MiniatureBackbonesArguments("text", "DIRECTORY", **settings).text_settings() == settings
    assert MiniatureBackbonesArguments("text", "DIRECTORY").text_settings() == {}
    assert "no command trains this one again" in (text_backbone_path() / "README.md").read_text()


# The ones that ship.


@pytest.fixture(scope="module")
def text():
    path = text_backbone_path()
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def test_shipped_text_backbone(text):
    model, tokenizer = text
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert model.config.n_positions >= 512
    record = read_training_record(text_backbone_path())["evaluation"]
    rng = np.random.default_rng(77)
    for kind in TEXT_KINDS[:3]:
        perplexity = text_perplexity(model, tokenizer, [sample_text(kind, rng) for _ in range(200)])
        assert perplexity == pytest.approx(record["perplexity"][kind], rel=0.1)
        assert perplexity < 3.5


def test_shipped_text_backbone_is_blind_but_reads(text):
    model, tokenizer = text
    for question, values in (("what color?", COLORS), ("what shape?", SHAPES)):
        prompt = tokenizer(answer_prompt(question), return_tensors="pt")
        with torch.no_grad():
            probability = model(input_ids=prompt["input_ids"]).logits[0, -1].softmax(-1)
        answers = probability[tokenizer.convert_tokens_to_ids(list(values))]
        assert answers.sum() > 0.98 and answers.max() < 1.5 / len(values)
    rng = np.random.default_rng(5)
    recorded = read_training_record(text_backbone_path())["evaluation"]["lookup"]["color_2_ways"]
    assert lookup_accuracy(model, tokenizer, rng, episodes=200) == pytest.approx(recorded, abs=0.12)
