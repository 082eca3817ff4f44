# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the index of images: what is nearest, what is computed, and what is kept on the disk."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from words import draw_image, example

from transformers_flamingo.data import VideoSegment
from transformers_flamingo.few_shot.demonstrations import Demonstrations
from transformers_flamingo.few_shot.examples import Example
from transformers_flamingo.few_shot.image_index import ImageIndex, _largest, media_fingerprint
from transformers_flamingo.few_shot.retrieval import ImageEmbedder


SUPPORT = [example(i) for i in range(100, 123)]


def on_a_circle(examples, kind):
    angles = np.array([int(e.id) for e in examples]) / 100
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@given(
    values=st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4),
    count=st.integers(1, 8),
)
def test_the_largest_of_equal_values_are_the_first(values, count):
    got = _largest(torch.tensor(values, dtype=torch.float32), count)
    for row, largest, columns in zip(values, *(part.tolist() for part in got), strict=True):
        expected = sorted(range(6), key=lambda column: (-row[column], column))[:count]
        assert columns == expected
        assert largest == [row[column] for column in expected]


@settings(deadline=None)
@given(
    block_size=st.integers(1, 25),
    count=st.integers(1, 23),
    asked=st.lists(st.integers(80, 140), min_size=1, max_size=5),
)
def test_blocks_find_what_a_sort_of_all_finds(block_size, count, asked):
    index = ImageIndex(on_a_circle, SUPPORT, block_size=block_size)
    queries = [example(number) for number in asked]
    rows, similarities = index.search(queries, count)
    vectors = on_a_circle(SUPPORT, "support").astype(np.float32)
    for query, found, near in zip(queries, rows, similarities, strict=True):
        cosines = vectors @ on_a_circle([query], "query")[0].astype(np.float32)
        assert near == pytest.approx(np.sort(cosines)[::-1][:count], abs=1e-6)
        assert cosines[found] == pytest.approx(near, abs=1e-6)
        assert len(set(found.tolist())) == count
        assert index.similarities(query) == pytest.approx(cosines, abs=1e-6)


def test_questions_about_one_image_are_near_together_and_it_is_embedded_once():
    image = draw_image(1)
    shared = [Example(str(number), [image], f"w{number}", "w4") for number in (107, 108, 109)]
    support = [example(103), *shared, example(90)]
    index = ImageIndex(on_a_circle, support, block_size=2)
    rows, similarities = index.search([example(106), example(106)], 5)
    assert rows.tolist() == [[1, 2, 3, 0, 4]] * 2
    assert (index.num_images, index.num_embedded) == (3, 3)
    assert similarities[0, :3] == pytest.approx([np.cos(0.01)] * 3)
    assert index.search([example(106)], 2)[0].tolist() == [[1, 2]]


def test_vectors_are_kept_and_only_new_blocks_are_computed(tmp_path, caplog):
    embed = ImageEmbedder(tiny_flamingo(), tiny_processor(), batch_size=4)
    first = ImageIndex(embed, SUPPORT, directory=tmp_path, block_size=10)
    assert first.count_missing() == 23
    first.build()
    assert first.count_missing() == 0
    assert first.num_embedded == 23
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 3
    assert all(name.endswith(".npy") for name in files)

    # The last block has one more image: it alone is new
    more = ImageIndex(embed, [*SUPPORT, example(123)], directory=tmp_path, block_size=10)
    assert more.count_missing() == 4
    more.build()
    assert more.num_embedded == 4
    assert len(list(tmp_path.iterdir())) == 4
    again = ImageIndex(ImageEmbedder(tiny_flamingo(), tiny_processor()), SUPPORT, directory=tmp_path, block_size=10)
    assert np.array_equal(np.concatenate(list(again.vectors())), np.concatenate(list(first.vectors())))
    assert again.num_embedded == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}.items() >= files.items()

    # Killed while it was written, or cut by a full disk
    path = tmp_path / sorted(files)[0]
    path.write_bytes(path.read_bytes()[:200])
    healed = ImageIndex(embed, SUPPORT, directory=tmp_path, block_size=10).build()
    assert healed.num_embedded in (10, 3)
    assert "is damaged. Its " in caplog.text
    assert np.array_equal(np.concatenate(list(healed.vectors())), np.concatenate(list(first.vectors())))

    # Another encoder has other files
    other = ImageEmbedder(tiny_flamingo(seed=1), tiny_processor(), batch_size=4)
    assert other.fingerprint != embed.fingerprint
    assert ImageIndex(other, SUPPORT, directory=tmp_path, block_size=10).build().num_embedded == 23


def test_processes_share_the_work(tmp_path):
    """Each computes every second block, and reads those of the other."""
    barrier = Barrier(2)
    states = [
        SimpleNamespace(num_processes=2, process_index=i, is_main_process=i == 0, wait_for_everyone=barrier.wait)
        for i in range(2)
    ]
    indexes = [
        ImageIndex(ImageEmbedder(tiny_flamingo(), tiny_processor()), SUPPORT, directory=tmp_path, block_size=5)
        for _ in range(2)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda index, state: index.build(state), indexes, states))
    assert [index.num_embedded for index in indexes] == [13, 10]
    one, other = (np.concatenate(list(index.vectors())) for index in indexes)
    assert np.array_equal(one, other)
    alone = ImageIndex(ImageEmbedder(tiny_flamingo(), tiny_processor()), SUPPORT, block_size=5)
    assert np.concatenate(list(alone.vectors())) == pytest.approx(one, abs=1e-6)


def test_an_index_of_faiss_finds_the_same(tmp_path):
    pytest.importorskip("faiss")
    queries = [example(number) for number in (95, 107, 140)]
    exact, flat = (ImageIndex(on_a_circle, SUPPORT, block_size=4, faiss=kind) for kind in (None, "Flat"))
    (rows, near), (found, similar) = (index.search(queries, 5) for index in (exact, flat))
    assert (
        found[[0, 2]].tolist() == rows[[0, 2]].tolist()
    )  # around the second, examples on both sides are equally near
    assert similar == pytest.approx(near, abs=1e-6)


def test_queries_are_kept_too_unless_they_are_a_stream(tmp_path):
    embed = ImageEmbedder(tiny_flamingo(), tiny_processor())
    index = ImageIndex(embed, SUPPORT, directory=tmp_path)
    assert index.search([example(120)], 1, keeps=False)[0].tolist() == [[20]]
    assert len(list(tmp_path.iterdir())) == 1
    index.search([example(5)], 1)
    assert len(list(tmp_path.iterdir())) == 2


def test_demonstrations_that_were_prepared_are_those_found_one_by_one():
    def uneven(examples, kind):  # no two examples are as near to a query as each other
        angles = np.array([int(e.id) ** 1.01 for e in examples]) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    queries = [example(number) for number in range(95, 130, 3)]
    alone, together = (Demonstrations(SUPPORT, selection="rices", embed=uneven) for _ in range(2))
    assert alone.choose_many(queries, 4) == [alone.choose(query, 4) for query in queries]
    together.prepare(queries, 8)
    for query in queries:
        expected = alone.choose(query, 8)
        assert together.choose(query, 8) == expected
        assert together.choose(query, 3) == expected[-3:]  # the nearest of them, the most similar last


def test_nearest_neighbors_are_those_of_the_whole_training_set():
    support = [Example(str(number), [f"https://x.org/{number}.png"], "w4", "w5") for number in range(3000)]
    eye = np.eye(3000, dtype=np.float32)
    nearest = Demonstrations(support, selection="rices", embed=lambda examples, _: eye[[int(e.id) for e in examples]])
    assert len(nearest.pool) == 3000
    assert len(Demonstrations(support).pool) == 2048
    assert nearest.choose(support[2999], 1)[0].id == "2999"


def test_who_an_image_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    draw_image(1).save(path)
    monkeypatch.chdir(tmp_path)
    assert (
        media_fingerprint("a.png")
        == media_fingerprint("./a.png")
        == media_fingerprint(path)
        == media_fingerprint({"path": "a.png", "bytes": None})
    )
    assert media_fingerprint(draw_image(1)) == media_fingerprint(draw_image(1)) != media_fingerprint(draw_image(2))
    assert media_fingerprint({"bytes": b"x", "path": "a"}) == media_fingerprint({"bytes": b"x", "path": None})
    assert media_fingerprint(VideoSegment("a.png", 0, 1)) != media_fingerprint(VideoSegment("a.png", 0, 2))
    assert media_fingerprint("https://x.org/a.png") == "https://x.org/a.png"
    before = media_fingerprint("a.png")
    draw_image(2).resize((64, 64)).save(path)
    assert media_fingerprint("a.png") != before


def test_errors():
    with pytest.raises(ValueError, match="The 24 nearest of 23 examples"):
        ImageIndex(on_a_circle, SUPPORT).search([example(1)], 24)
    with pytest.raises(ValueError, match="support 't' has no image"):
        ImageIndex(on_a_circle, [Example("t", [], "w4", "w5")]).build()
    with pytest.raises(ValueError, match="query 't' has no image"):
        ImageIndex(on_a_circle, SUPPORT).search([Example("t", [], "w4")], 1)
    with pytest.raises(ValueError, match="embeddings of support '100' and the 22 after it are not finite"):
        ImageIndex(lambda examples, _: np.full((len(examples), 2), np.nan), SUPPORT).build()
