# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`benchmarks/real_pictures`: made-up words, episodes to train on and to measure with, and their scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from real_pictures import FOLDER, imported_scripts, needs_folder

from transformers_flamingo.data import FORMATS, document_to_sample
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.training import read_recipe


pytestmark = needs_folder

HOUSES = ("google", "twitter", "facebook", "apple")


@pytest.fixture(scope="module")
def real():
    with imported_scripts() as scripts:
        yield scripts


def make_rows(kind: str, number: int, views: int, houses=HOUSES[:3]) -> list[dict]:
    """Make rows of captions: `number` things by each house, with augmented views."""
    return [
        {"image": f"images/{house}/{kind}{n}-{view}.png", "text": f"{kind} {n}", "house": house, "view": view}
        for view in range(views + 1)
        for house in houses
        if view == 0 or house != "apple"
        for n in range(number)
    ]


@pytest.fixture(scope="module")
def data(real, tmp_path_factory) -> Path:
    """A prepared folder with 9 things to train on, and 10 held out, each in one color."""
    folder = tmp_path_factory.mktemp("prepared")
    train, held_out = make_rows("apple", 9, 2), make_rows("bear", 10, 2, HOUSES)
    for row in [*train, *held_out]:
        path = folder / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        color = (25 * int(row["text"].split()[1]), 20 * HOUSES.index(row["house"]), 40 * row["view"])
        Image.new("RGB", (8, 8), color).save(path)
    real.pictures.write_rows(folder / "train.jsonl", train)
    real.pictures.write_rows(folder / "held_out.jsonl", held_out)
    record = {"test_house": "apple", "names": 9, "views": 2, "rows": {"train": len(train), "test": 9}}
    (folder / "prepared.json").write_text(json.dumps(record))
    return folder


def test_words_are_fixed_and_those_of_names_are_left_out(real):
    words = real.episodes.make_words(["red apple"])
    assert words == real.episodes.make_words(["red apple"])
    assert (len(words.train), len(words.test)) == (2000, 400)
    assert (words.train[0], words.test[0]) == ("kowef", "zuvav")
    assert len({*words.train, *words.test}) == 2400
    fewer = real.episodes.make_words(["a Kowef", "big-zuvav"])
    assert (fewer.train, fewer.test) == (words.train[1:], words.test[1:])


@given(seed=st.integers(0, 2**31), max_ways=st.integers(2, 8), max_shots=st.integers(2, 40))
def test_training_episodes(real, seed, max_ways, max_shots):
    things = real.episodes.pictures_by_name(make_rows("thing", 9, 2))
    words = real.episodes.make_words([]).train
    draw = real.episodes.draw_training_episode
    episode = draw(things, words, np.random.RandomState(seed), max_ways=max_ways, max_shots=max_shots)
    assert 2 <= len(episode.words) == len(set(episode.words)) <= max_ways
    assert 2 <= len(episode.shots) <= max_shots
    # One word for each thing, a new picture of it each time, and a query that the shots can answer
    pairs = {(example.word, example.name) for example in episode.examples}
    assert len(pairs) == len(dict(pairs)) == len({name for _, name in pairs})
    images = [example.image for example in episode.examples]
    assert len(set(images)) == len(images)
    assert all(f"/thing{example.name.split()[1]}-" in example.image for example in episode.examples)
    assert episode.query.word in {example.word for example in episode.shots}
    assert {word for word, _ in pairs} <= set(episode.words) <= set(words)


@given(seed=st.integers(0, 2**31), ways=st.integers(2, 8), shots=st.integers(0, 40), views=st.integers(0, 2))
def test_evaluation_episodes(real, seed, ways, shots, views):
    rows = make_rows("bear", 10, views, HOUSES)
    group = real.episodes.pictures_by_name
    shots_of, queries_of = (group([row for row in rows if (row["house"] == "apple") == own]) for own in (False, True))
    words = real.episodes.make_words([]).test
    rng = np.random.RandomState(seed)
    episode = real.episodes.draw_evaluation_episode(shots_of, queries_of, words, ways, shots, rng)
    assert len(episode.shots) == shots and len(set(episode.words)) == ways
    counts = [sum(example.word == word for example in episode.shots) for word in episode.words]
    assert max(counts) - min(counts) <= 1  # so each is shown if there are enough shots
    assert episode.query.word in episode.words
    assert episode.query.image.startswith("images/apple/")
    assert not any("/apple/" in example.image for example in episode.shots)
    for name in {example.name for example in episode.shots}:
        images = [example.image for example in episode.shots if example.name == name]
        # First the drawings of three houses, then views, and nothing twice before all were shown
        assert len(set(images)) == min(len(images), 3 * (views + 1))
        assert all(image.endswith("-0.png") for image in images[:3])
        assert len({image.split("/")[1] for image in images[:3]}) == min(3, len(images))


def test_the_query_is_each_way_about_equally_often(real, data):
    episodes = real.episodes.draw_evaluation_episodes(data, 2, 2, 400)
    assert episodes == real.episodes.draw_evaluation_episodes(data, 2, 2, 400)
    first = sum(episode.query.word == episode.shots[0].word for episode in episodes)
    listed = sum(episode.query.word == episode.words[0] for episode in episodes)
    # Binomial with a standard deviation of 10
    assert abs(first - 200) < 30 and abs(listed - 200) < 30


def test_impossible_episodes_are_errors(real, data):
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match="11 ways and 4 shots cannot be drawn from 10 things"):
        real.episodes.draw_evaluation_episodes(data, 11, 4, 1)
    with pytest.raises(ValueError, match="at least 2 things, words and shots, but there are 1 things"):
        real.episodes.draw_training_episode({"a": []}, ["x", "y"], rng)
    single = real.episodes.pictures_by_name(make_rows("thing", 3, 0, HOUSES[:1]))
    with pytest.raises(ValueError, match="a single picture"):
        real.episodes.draw_training_episode(single, ["x", "y"], rng)
    with pytest.raises(ValueError, match="`--described-share` is 2"):
        real.episodes.write_episodes(data, described_share=2)
    with pytest.raises(ValueError, match="two or more episodes"):
        real.few_shots.pictures_of_others([None])
    with pytest.raises(ValueError, match="`max_ways` is 1 and `max_shots` is 16"):
        real.episodes.write_episodes(data, max_ways=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "1"], "`--episodes` is 1"),
        (["--shots", "4", "-1"], "`--shots` has -1"),
        (["--ways", "2", "11"], "11 ways and 0 shots cannot be drawn from 10 things"),
        (["--batch-size", "0"], "`--batch-size` is 0"),
    ],
)
def test_options_of_scores_are_checked_before_the_model_is_read(real, data, tmp_path, options, message):
    arguments = ["./gone", "--data", str(data), "--output", str(tmp_path / "output"), "--parts", "few_shots", *options]
    with pytest.raises(ValueError, match=message):
        real.score.score(real.score.make_parser().parse_args(arguments))
    assert not (tmp_path / "output").exists()


def test_scores_need_data_that_were_prepared_to_the_end(real, tmp_path):
    arguments = ["./gone", "--data", str(tmp_path), "--output", str(tmp_path / "output")]
    with pytest.raises(FileNotFoundError, match=r"no .*prepared.json.* Prepare the data first"):
        real.score.score(real.score.make_parser().parse_args(arguments))


def test_training_rows_have_the_text_of_evaluation_prompts(real, data):
    """What the recipe trains on is the prompt of the engine and the word after it, with the same pictures."""
    processor, reader = tiny_processor(), FORMATS["messages"]()
    counts = real.episodes.write_episodes(data, 30, 10, described_share=0.5)
    assert counts == {"episodes_train": 30, "lookups_train": 10}
    things = real.episodes.pictures_by_name(real.pictures.read_rows(data / "train.jsonl"))
    words = real.episodes.make_words(real.episodes.names_of(data)).train
    kinds = set()
    for seed, name in enumerate(counts):
        rng = np.random.RandomState([seed])
        rows = reader.load(str(data / f"{name}.jsonl"))
        stored = real.pictures.read_rows(data / f"{name}.jsonl")
        for row, fields in zip(rows, stored, strict=True):
            episode = real.episodes.draw_training_episode(things, words, rng)
            rng.randint(1, len(episode.examples)), rng.random_sample()
            sample = document_to_sample(
                reader.read(row), processor, np.random.default_rng(0), location="row", leading_space_probability=1
            )
            described = fields["described"]
            kinds.add((name, described > 0, described == len(episode.shots)))
            images = [example.image for example in episode.examples]
            assert fields["images"] == images[described:] and len(sample["images"]) == len(images) - described
            prompt = real.few_shots.make_prompt(episode, images, processor, data)
            text = f"{prompt.text} {episode.query.word}{processor.end_of_chunk_token}"
            for example in episode.examples[:described]:
                text = text.replace(processor.image_token, f" {example.name}", 1)
            assert sample["text"] == text
            assert [item.key for item in prompt.media] == images
            learned = [sample["text"][start:end] for start, end in sample["supervised"]]
            assert learned == [f" {example.word}<|endofchunk|>" for example in episode.examples[described:]]
    assert kinds >= {("episodes_train", False, False), ("episodes_train", True, False), ("lookups_train", True, True)}


def test_the_nearest_shot(real):
    example = real.episodes.Example
    shots = (example("x", "a", "0"), example("y", "b", "1"))
    features = {"0": torch.tensor([1.0, 0.0]), "1": torch.tensor([0.0, 1.0]), "2": torch.tensor([5.0, 4.0])}
    right, wrong = (real.episodes.Episode((*shots, example(word, "?", "2")), ("y", "x")) for word in "xy")
    guessed = real.episodes.Episode(wrong.examples[2:], ("y", "x"))
    assert real.few_shots.nearest_accuracy([right, right, right, wrong], features) == 0.75
    assert real.few_shots.nearest_accuracy([right, guessed], features) == 0.75


class Matcher:
    """An engine that gives the word of the shot with the color of the query, and encodes nothing."""

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    def rank(self, prompts, candidates, *, length_normalized):
        """Rank by the color of the pictures, which tells the thing."""
        assert not length_normalized
        end, image_token = self.processor.end_of_chunk_token, self.processor.image_token
        scores = []
        for prompt, row in zip(prompts, candidates, strict=True):
            *shown, query = (Image.open(item.data).getpixel((0, 0))[0] for item in prompt.media)
            words = [chunk.removeprefix(image_token) + end for chunk in prompt.prefix.split(end)[:-1]]
            found = [word for word, color in zip(words, shown, strict=True) if color == query]
            scores.append([float(candidate in found[:1]) for candidate in row])
        return scores


def test_a_model_that_looks_is_right_and_permuted_pictures_give_chance(real, data):
    engine = Matcher(tiny_flamingo(), tiny_processor())
    scores, details = real.few_shots.measure_few_shots(
        engine, data, test_house="apple", ways=(2, 4), shots=(0, 4, 16), count=200
    )
    assert (scores["things"], scores["pictures_of_each_thing"], scores["episodes"]) == (10, 9, 200)
    assert [(score["ways"], score["shots"]) for score in scores["scores"]] == [
        (w, s) for w in (2, 4) for s in (0, 4, 16)
    ]
    for score in scores["scores"]:
        assert score["right"] == (1 if score["shots"] else pytest.approx(1 / score["ways"], abs=0.1))
        assert score["permuted"] == pytest.approx(1 / score["ways"], abs=0.1)
    assert len(details) == 6 * 200 and details[-1]["answer"] == details[-1]["words"][-1]


def test_scores_of_a_tiny_model(real, data, tmp_path):
    """A tiny random model goes through the script: each picture is encoded once, and table and plot are written."""
    model, output = tmp_path / "model", tmp_path / "output"
    tiny_flamingo().save_pretrained(model)
    tiny_processor().save_pretrained(model)
    page = tmp_path / "page.md"
    page.write_text("<!-- real-pictures few-shots -->\n<!-- end -->\n")
    options = ["--parts", "few_shots", "--episodes", "4", "--ways", "2", "3", "--shots", "0", "2", "5"]
    arguments = [str(model), "--data", str(data), "--output", str(output), *options]
    arguments += ["--docs", str(page), "--name", "few-shots"]
    record = real.score.score(real.score.make_parser().parse_args(arguments))
    assert record == json.loads((output / "score.json").read_text())
    assert record["command"].endswith("--parts few_shots --ways 2 3 --shots 0 2 5 --episodes 4")
    assert all(0 <= score["neighbors"] <= 1 for score in record["few_shots"]["scores"])
    lines = page.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[:2] == ["| words | pictures | 0 shots | 2 shots | 5 shots |", "|---|---|---|---|---|"]
    assert len(table) == 2 + 6 and {line.count("|") for line in table} == {6}
    (picture,) = [line for line in lines if line.startswith("![")]
    assert (tmp_path / picture.split("(")[1].rstrip(")")).is_file()


def test_pictures_are_encoded_once_and_ranked_to_the_end_of_the_chunk(real, data):
    engine = FewShotEngine(tiny_flamingo(), tiny_processor(), batch_size=4, shares_prefix=False)
    episodes = real.episodes.draw_evaluation_episodes(data, 2, 4, 6)
    own = [real.few_shots.own_images(episode) for episode in episodes]
    for images in (own, real.few_shots.pictures_of_others(episodes)):
        answers = real.few_shots.rank_words(engine, episodes, images, data)
        assert all(answer in episode.words for answer, episode in zip(answers, episodes, strict=True))
    assert engine.num_encoded == len({image for images in own for image in images})


def test_the_recipe_trains_on_what_is_written():
    recipe = read_recipe(str(FOLDER / "few_shots.yaml"))
    files = {source.name: (Path(source.path).name, source.format) for source in recipe.data}
    assert files == {
        "names": ("train.jsonl", "image_text_pairs"),
        "lookups": ("lookups_train.jsonl", "messages"),
        "episodes": ("episodes_train.jsonl", "messages"),
    }
    assert all(source.cache_features and source.leading_space_probability == 1 for source in recipe.data)
