# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check which rows a mixture gives to which process and worker."""

import json
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from itertools import islice

import pytest
import torch
from factory import END_OF_CHUNK, tiny_processor
from PIL import Image
from runs import numbers, source, words, write_pairs, write_shards

from transformers_flamingo.data import BadSampleError
from transformers_flamingo.training import DataMixture, DataSource, micro_batch
from transformers_flamingo.training.micro_batch import MixtureSettings


# There are more workers than cores in a test
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    return {
        "pairs": write_pairs(root / "pairs", 12),
        "other": write_pairs(root / "other", 7, first=100),
        "shards": write_shards(root / "shards", 4, 6),
        "odd_shards": write_shards(root / "odd", 3, 5),
        "broken": write_pairs(root / "broken", 8, broken=(2, 5)),
        "broken_shards": write_shards(root / "broken_shards", 2, 8, broken=(2, 3, 11)),
        "all_broken": write_pairs(root / "all_broken", 3, broken=(0, 1, 2)),
    }


def mixture(*sources) -> DataMixture:
    return DataMixture(list(sources), tiny_processor())


def take(mixture: DataMixture, count: int, num_workers: int = 0, **kwargs) -> list:
    return list(islice(mixture.with_settings(**kwargs).loader(num_workers), count))


def same(a, b) -> bool:
    return (
        (a.source, len(a.skipped)) == (b.source, len(b.skipped))
        and a.inputs.keys() == b.inputs.keys()
        and all(torch.equal(a.inputs[name], b.inputs[name]) for name in a.inputs)
    )


@pytest.mark.parametrize(
    ("strategy", "steps", "sources"),
    [
        ("accumulate", 1, [0, 1, 2, 0, 1, 2]),
        ("accumulate", 2, [0, 1, 2, 0, 1, 2]),
        ("round_robin", 1, [0, 1, 2, 0, 1, 2]),
        ("round_robin", 2, [0, 0, 1, 1, 2, 2, 0, 0]),
    ],
)
def test_the_strategy_says_which_source_makes_a_micro_batch(paths, strategy, steps, sources):
    entries = [source(name, paths["pairs"]) for name in "abc"]
    mixed = mixture(*entries).with_settings(strategy=strategy, gradient_accumulation_steps=steps)
    sources_of = [mixed.source_of(b) for b in range(24)]
    assert [index for index, _ in sources_of][: len(sources)] == sources
    for index in range(3):
        assert [number for of_source, number in sources_of if of_source == index] == list(range(8))


def test_each_epoch_has_each_row_once_in_its_own_order(paths):
    batches = take(mixture(source("a", paths["pairs"], batch_size=3)), 8)
    rows = [number for batch in batches for number in numbers(batch.inputs["input_ids"])]
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12))
    assert rows[:12] != rows[12:]
    assert rows[:12] != list(range(12))
    assert all(batch.inputs["pixel_values"].shape[:2] == (3, 1) for batch in batches)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"strategy": "accumulate"}, 12),  # 6 of 2 rows for the larger source, and as many of the smaller one
        ({"strategy": "accumulate", "gradient_accumulation_steps": 4}, 12),
        ({"strategy": "round_robin"}, 12),
        ({"strategy": "round_robin", "gradient_accumulation_steps": 4}, 16),  # 8, as a turn is 4
        ({"strategy": "accumulate", "num_processes": 2}, 6),
    ],
)
def test_one_pass_reads_every_row(paths, settings, count):
    mixed = mixture(source("pairs", paths["pairs"]), source("other", paths["other"])).with_settings(**settings)
    assert mixed.num_batches_of_one_pass() == count
    processes = range(settings.get("num_processes", 1))
    batches = [batch for process in processes for batch in take(mixed, count, process=process)]
    assert {n for batch in batches for n in numbers(batch.inputs["input_ids"])} == {*range(12), *range(100, 107)}
    assert mixture(source("pairs", paths["shards"], streaming=True)).num_batches_of_one_pass() is None


def test_the_seed_decides(paths):
    mixed = mixture(source("a", paths["pairs"], batch_size=12))
    first, again, other = (take(mixed, 1, seed=seed)[0] for seed in (1, 1, 2))
    assert same(first, again)
    assert numbers(first.inputs["input_ids"]) != numbers(other.inputs["input_ids"])


@pytest.mark.parametrize(("streaming", "num_workers"), [(False, 0), (True, 0), (True, 2)])
@pytest.mark.parametrize("files", ["shards", "odd_shards"])
def test_processes_share_a_source_without_overlap(paths, streaming, files, num_workers):
    size = {"shards": 24, "odd_shards": 15}[files]
    entry = source("a", paths[files], batch_size=1, streaming=streaming)
    seen = Counter()
    for process in range(2):
        batches = take(mixture(entry), size // 2, num_workers, process=process, num_processes=2)
        seen.update(number for batch in batches for number in numbers(batch.inputs["input_ids"]))
    if files == "shards" or not num_workers:
        # 15 rows for 2 processes: one process has a row more, and they take 7 each
        assert set(seen.values()) == {1}
    assert set(seen) <= set(range(size))
    assert len(seen) >= size - 3


def test_two_processes_take_the_rows_of_one_with_twice_the_batch(paths):
    whole = take(mixture(source("a", paths["pairs"], batch_size=4)), 5)
    halves = [
        take(mixture(source("a", paths["pairs"], batch_size=2)), 5, process=rank, num_processes=2) for rank in (0, 1)
    ]
    for batch, *parts in zip(whole, *halves, strict=True):
        rows = [number for part in parts for number in numbers(part.inputs["input_ids"])]
        assert numbers(batch.inputs["input_ids"]) == rows


def test_workers_change_nothing_but_who_does_the_work(paths):
    mixed = mixture(source("a", paths["pairs"]), source("b", paths["other"]))
    alone = take(mixed, 9)
    for num_workers in (1, 2, 3):
        assert all(same(a, b) for a, b in zip(alone, take(mixed, 9, num_workers), strict=True))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("strategy", ["accumulate", "round_robin"])
def test_it_resumes_where_it_was_stopped(paths, num_workers, strategy):
    kwargs = {"strategy": strategy, "gradient_accumulation_steps": 2, "skip_bad_samples": True}
    mixed = mixture(
        source("a", paths["pairs"]),
        source("b", paths["broken_shards"], streaming=True),
        source("c", paths["odd_shards"], streaming=True, shuffle_buffer_size=3, batch_size=3),
    )
    whole = take(mixed, 40, num_workers, **kwargs)
    for stop in (1, 2, 7, 25):
        states = {}
        for batch in whole[:stop]:
            if batch.stream is not None:
                states.setdefault(batch.source, {})[batch.stream[0]] = batch.stream[1]
        rest = take(mixed, 40 - stop, num_workers, start=stop, streams=states, **kwargs)
        assert all(same(a, b) for a, b in zip(whole[stop:], rest, strict=True)), stop


@pytest.mark.parametrize("num_sources", [1, 2])
def test_all_of_a_stream_is_read_whatever_the_number_of_workers(paths, num_sources):
    # Of two sources, two workers make one each
    entries = [source(f"s{i}", paths["shards"], streaming=True, batch_size=4) for i in range(num_sources)]
    for num_workers in (0, 1, 2):
        batches = take(mixture(*entries), 6 * num_sources, num_workers)
        for index in range(num_sources):
            rows = [n for b in batches if b.source == index for n in numbers(b.inputs["input_ids"])]
            assert sorted(rows) == list(range(24)), num_workers


def test_torch_draws_the_same_numbers_afterwards(paths):
    mixed = mixture(source("a", paths["pairs"]), source("b", paths["shards"], streaming=True))
    torch.manual_seed(0)
    expected = torch.rand(3)
    for num_workers in (0, 2):
        torch.manual_seed(0)
        take(mixed, 3, num_workers)
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "streaming", "location"), [("broken", False, r"row [25]: "), ("broken_shards", True, "sample '00002': ")]
)
def test_a_bad_row_is_an_error_that_names_source_file_and_row(paths, name, streaming, location):
    path = paths[name].replace("*", "000")
    entry = source("laion", paths[name], streaming=streaming, shuffle_buffer_size=0 if streaming else None)
    with pytest.raises(BadSampleError, match=location) as error:
        take(mixture(entry), 4)
    with pytest.raises(BadSampleError) as of_worker:
        take(mixture(entry), 4, num_workers=1)
    assert str(of_worker.value) == str(error.value)
    assert "in build" in of_worker.value.__notes__[0]  # the traceback of the worker
    assert "Data source 'laion'" in str(error.value)
    assert path in str(error.value)


@pytest.mark.parametrize(("name", "streaming", "bad"), [("broken", False, {2, 5}), ("broken_shards", True, {2, 3})])
def test_bad_rows_are_replaced_and_reported_if_they_are_to_be_skipped(paths, name, streaming, bad):
    batches = take(mixture(source("a", paths[name], streaming=streaming)), 4, skip_bad_samples=True)
    rows = [number for batch in batches for number in numbers(batch.inputs["input_ids"])]
    messages = [row.message for batch in batches for row in batch.skipped]
    assert len(rows) == 8
    assert not bad & set(rows)
    assert len(messages) >= 2
    assert all("cannot be decoded" in message for message in messages)


def write_negative(path) -> None:
    """Replace an image by one that can be decoded, but that the processor refuses."""
    Image.new("F", (8, 8), -5.0).save(path, "TIFF")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_that_only_the_processor_refuses_is_a_bad_row_too(tmp_path, monkeypatch, streaming):
    path = write_pairs(tmp_path / "pairs", 6)
    write_negative(tmp_path / "pairs" / "3.png")
    mixed = mixture(source("laion", path, streaming=streaming, batch_size=6))
    with pytest.raises(
        BadSampleError, match=r"Data source 'laion': .*metadata.jsonl, row 3: it cannot be collated .*-5.0"
    ):
        take(mixed, 1)
    batches = take(mixed, 2, skip_bad_samples=True)
    rows = [number for batch in batches for number in numbers(batch.inputs["input_ids"])]
    assert len(rows) == 12 and 3 not in rows
    assert all("row 3: it cannot be collated" in row.message for batch in batches for row in batch.skipped)
    assert all(batch.skipped for batch in batches)

    for number in range(6):
        write_negative(tmp_path / "pairs" / f"{number}.png")
    monkeypatch.setattr(micro_batch, "MAX_CONSECUTIVE_BAD_ROWS", 20)
    with pytest.raises(BadSampleError, match="20 consecutive rows .*cannot be trained on.*it cannot be collated"):
        take(mixture(source("a", path, streaming=streaming, batch_size=1)), 1, skip_bad_samples=True)


def test_a_document_of_one_token_is_a_bad_row(tmp_path):
    documents = [[{"type": "text", "text": "w5"}], [{"type": "text", "text": "w6 w7"}]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"parts": parts}) + "\n" for parts in documents))
    entry = DataSource(name="a", format="parts", path=str(tmp_path), batch_size=2, max_length=1)
    with pytest.raises(
        BadSampleError, match="Data source 'a': .*a.jsonl, row [01]: nothing to learn from: .*first token"
    ):
        take(mixture(entry), 1)
    [batch] = take(mixture(replace(entry, max_length=2)), 1, packing=True)
    # "w5<|endofchunk|>" and "w6 w7": the second token of each
    assert sorted(batch.inputs["labels"].flatten().tolist()) == [-100, -100, 7, END_OF_CHUNK]


def test_a_shard_that_is_cut_ends_a_stream_with_its_name(tmp_path):
    path = write_shards(tmp_path / "shards", 2, 6)
    shard = tmp_path / "shards" / "001.tar"
    shard.write_bytes(shard.read_bytes()[: 5 * 2048])  # five samples of two members
    mixed = mixture(source("laion", path, streaming=True, shuffle_buffer_size=0))
    with pytest.raises(ValueError, match="Data source 'laion': .*001.tar' cannot be read to its end"):
        take(mixed, 6, skip_bad_samples=True)
    assert len(take(mixed, 4, skip_bad_samples=True)) == 4
    with pytest.raises(ValueError, match="Data source 'laion' cannot be opened .*001.tar' cannot be read to its end"):
        mixture(source("laion", path))


def test_a_sample_that_is_not_utf8_is_counted(tmp_path):
    path = write_shards(tmp_path / "shards", 1, 4)
    shard = tmp_path / "shards" / "000.tar"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(words(2).encode(), b"\xff" * len(words(2))))
    for streaming in (False, True):
        entry = source("a", path, streaming=streaming, batch_size=4)
        with pytest.raises(BadSampleError, match="000.tar, sample '00002': its member 'txt' is not UTF-8"):
            take(mixture(entry), 1)
        [batch] = take(mixture(entry), 1, skip_bad_samples=True)
        assert set(numbers(batch.inputs["input_ids"])) <= {0, 1, 3}
        assert len(batch.skipped) >= 1 and all("not UTF-8" in row.message for row in batch.skipped)


def test_a_source_of_nothing_but_bad_rows_is_an_error(paths):
    with pytest.raises(BadSampleError, match=r"Data source 'a': 1000 consecutive rows \(\d+ different ones\)"):
        take(mixture(source("a", paths["all_broken"])), 1, skip_bad_samples=True)


def test_budgets_are_those_of_the_source(paths):
    (batch,) = take(mixture(source("a", paths["pairs"], batch_size=12, max_length=4)), 1)
    assert batch.inputs["input_ids"].shape[1] == 4


def test_settings_change_one_by_one_and_the_original_keeps_its_own(paths):
    mixed = mixture(source("a", paths["pairs"], max_length=16))
    seeded = mixed.with_settings(seed=3, start=2)
    packed = seeded.with_settings(packing=True)
    assert (packed.settings.seed, packed.settings.start, packed.settings.packing) == (3, 2, True)
    assert (seeded.settings.seed, seeded.settings.packing) == (3, False)
    assert mixed.settings == MixtureSettings()
    assert packed.rows is mixed.rows
    with pytest.raises(FrozenInstanceError):
        mixed.settings.seed = 1


def test_names_are_unique(paths):
    with pytest.raises(ValueError, match=r"\['a', 'a'\]"):
        mixture(source("a", paths["pairs"]), source("a", paths["other"]))


def test_more_readers_than_rows_is_an_error(paths):
    entry = source("tiny", paths["odd_shards"], streaming=True)
    with pytest.raises(ValueError, match="Data source 'tiny': there are fewer rows than processes"):
        take(mixture(entry), 1, process=19, num_processes=20)


@pytest.mark.parametrize(("name", "is_slow"), [("shards", False), ("odd_shards", True)])
def test_a_stream_with_too_few_files_for_its_readers_is_said_once(paths, name, is_slow, caplog):
    for process in range(2):
        take(mixture(source("a", paths[name], streaming=True)), 1, process=process, num_processes=2)
    assert caplog.text.count("has 3 files for 2 readers") == is_slow


class CountedReads:
    """A dataset that counts how often it is read."""

    def __init__(self, rows):
        self.rows, self.reads = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.reads.append([index])
        return self.rows[index]

    def __getitems__(self, indices):
        self.reads.append(indices)
        return self.rows.__getitems__(indices)


def test_a_micro_batch_is_one_read_across_epochs_too_and_one_for_each_row_that_replaces_a_bad_one(paths):
    mixed = mixture(source("a", paths["pairs"], batch_size=5))
    mixed.rows[0] = rows = CountedReads(mixed.rows[0])
    take(mixed, 3)
    assert [len(indices) for indices in rows.reads] == [5, 5, 5]
    assert sorted([index for indices in rows.reads for index in indices][:12]) == list(range(12))

    mixed = mixture(source("a", paths["broken"], batch_size=8))
    mixed.rows[0] = rows = CountedReads(mixed.rows[0])
    [batch] = take(mixed, 1, skip_bad_samples=True)
    assert [len(indices) for indices in rows.reads] == [8, *([1] * len(batch.skipped))] and batch.skipped
