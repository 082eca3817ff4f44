# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Whether features are kept with `cache_features: auto`."""

import json
import logging
import shutil
from collections import namedtuple

import datasets
import pytest
import torch
from factory import tiny_processor
from PIL import Image
from runs import counted_images, model, source, trainer, write_pairs, write_shards
from transformers.utils import logging as transformers_logging

from transformers_flamingo.training import DataMixture, DataSource


SIZE = 6
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def log(caplog):
    transformers_logging.get_logger("transformers").propagate = True
    caplog.set_level(logging.WARNING)
    yield lambda: [record.message for record in caplog.records if "cache_features: auto" in record.message]
    transformers_logging.get_logger("transformers").propagate = False


def decide(sources, flamingo=None, processor=None, max_steps=100, **settings) -> list[bool]:
    """Return for each source whether its batches have features."""
    flamingo = model() if flamingo is None else flamingo
    mixture = DataMixture(sources, processor or tiny_processor())
    mixture.with_settings(**settings).cache_features(flamingo, dtype="float32", max_steps=max_steps)
    return ["num_frames" in getattr(rows, "column_names", ()) for rows in mixture.rows]


def test_a_training_keeps_the_features_of_what_it_reads_more_than_once(tmp_path, log):
    path = write_pairs(tmp_path / "pairs", SIZE)
    for max_steps, kept in ((3, False), (4, True)):  # of 2 rows
        run = trainer(tmp_path / str(max_steps), [source("a", path, cache_features="auto")], max_steps=max_steps)
        run.train()
        assert ("num_frames" in run.mixture.rows[0].column_names) == kept
    subject = "Data source 'a' has `cache_features: auto`: its features are"
    reason = "each process reads 6 rows, and one process would encode all 6"
    assert log()[0] == f"{subject} not kept, because {reason}."
    assert log()[1].startswith(
        f"{subject} kept (at most about 0.0 MB of {SIZE} images, and the disk of the cache has "
    )


def test_how_often_a_source_is_read_depends_on_the_mixture(tmp_path):
    paths = [write_pairs(tmp_path / name, SIZE) for name in "ab"]
    sources = [source(name, path, cache_features="auto") for name, path in zip("ab", paths, strict=True)]
    assert decide(sources, max_steps=3) == [False, False]
    assert decide(sources, max_steps=7, strategy="round_robin") == [True, False]  # 4 steps, and 3
    assert decide(sources, max_steps=3, gradient_accumulation_steps=2) == [True, True]
    assert decide([source("a", paths[0], cache_features="auto", batch_size=3), sources[1]], max_steps=3) == [
        True,
        False,
    ]
    assert decide(sources, max_steps=None) == [False, False]


def test_what_makes_other_features_of_an_image_is_not_kept(tmp_path, log):
    path = write_pairs(tmp_path / "pairs", SIZE)
    trained = model()
    trained.unfreeze_backbones(language_model=False)
    assert decide([source("a", path, cache_features="auto")], trained) == [False]
    assert "the vision encoder is trained" in log()[-1]

    processor = tiny_processor()
    preprocess = processor.image_processor.preprocess

    def flip_at_random(*args, **kwargs):
        inputs = preprocess(*args, **kwargs)
        if torch.rand(()) < 0.5:
            inputs["pixel_values"] = [image[..., ::-1].copy() for image in inputs["pixel_values"]]
        return inputs

    processor.image_processor.preprocess = flip_at_random
    assert decide([source("a", path, cache_features="auto")], processor=processor) == [False]
    assert "does not always make the same pixels" in log()[-1]

    shards = write_shards(tmp_path / "shards", 2, 3)
    assert decide([source("a", shards, cache_features="auto", streaming=True)]) == [False]
    assert "a stream" in log()[-1]

    rows = [{"image": "https://example.com/1.png", "text": "w5"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    remote = source("a", str(tmp_path / "rows.jsonl"), cache_features="auto", options={"allow_remote": True})
    assert decide([remote]) == [False]
    assert "addresses" in log()[-1]


def test_they_are_kept_if_half_of_the_free_space_holds_them(tmp_path, monkeypatch, log):
    path = write_pairs(tmp_path / "pairs", SIZE)
    auto = [source("a", path, cache_features="auto")]
    pixels = tiny_processor()(images=[[Image.open(tmp_path / "pairs" / "0.png")]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        num_bytes = SIZE * model().get_image_features(pixels).last_hidden_state.nbytes
    for free, kept in ((2 * num_bytes - 1, False), (2 * num_bytes, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(0, 0, free))
        assert decide(auto) == [kept]
    assert "the disk of the cache has 0.0 MB left, of which they may take 50%" in log()[0]
    # A later run reads them from the disk that they have filled
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    flamingo = model()
    with counted_images(flamingo) as seen:
        assert decide(auto, flamingo) == [True]
    assert sum(seen) == 1  # to learn the shape
    assert log()[-1].endswith("its features are kept (those of an earlier run).")


def test_frames_count_and_images_beyond_the_maximum_do_not(tmp_path, log):
    video = {"type": "video", "video": ["0.png", "1.png", "2.png"]}
    write_pairs(tmp_path / "pairs", 4)
    parts = [
        video,
        {"type": "text", "text": "w5"},
        {"type": "image", "image": "3.png"},
        {"type": "text", "text": "w6"},
    ]
    (tmp_path / "pairs" / "rows.jsonl").write_text(json.dumps({"parts": parts}))
    for max_images, number in ((None, 4), (1, 3)):
        options = {"format": "parts", "path": str(tmp_path / "pairs" / "rows.jsonl"), "max_images": max_images}
        assert decide([DataSource(name="a", cache_features="auto", **options)]) == [True]
        assert f" of {number} images" in log()[-1]
