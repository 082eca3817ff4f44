# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the order in which readers take the rows of a stream, and that a reader goes on with the same rows where it stopped."""

import gzip
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from datasets import Dataset, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_flamingo.data import FORMATS
from transformers_flamingo.data.row_stream import RowFilter, RowStream
from transformers_flamingo.training import stream_shard
from transformers_flamingo.training.stream_shard import StreamOrder, StreamShard


MEMBERS = {"txt": Value("string")}


def write(folder: Path, kind: str, sizes: list[int]) -> RowStream:
    """Write files of so many rows, whose texts are their numbers."""
    folder.mkdir()
    first = 0
    for index, size in enumerate(sizes):
        texts = [str(number) for number in range(first, first + size)]
        first += size
        path = folder / f"{index:02}.{kind}"
        if kind == "parquet":
            Dataset.from_dict({"text": texts}).to_parquet(path, batch_size=3)
            continue
        data = "".join(f"{json.dumps({'text': text})}\n" for text in texts).encode()
        if "tar" in kind:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                for text in texts:
                    info = tarfile.TarInfo(f"{text}.txt")
                    info.size = len(text)
                    tar.addfile(info, io.BytesIO(text.encode()))
            data = buffer.getvalue()
        path.write_bytes(gzip.compress(data, 1) if kind.endswith("gz") else data)
    return RowStream(sorted(map(str, folder.iterdir())), MEMBERS if "tar" in kind else None)


def number_of(row: dict) -> int:
    return int(json.loads(row["__json__"])["text"] if "__json__" in row else row.get("text") or row["txt"])


class Counted(RowStream):
    """A stream that counts the rows that it reads."""

    num_read = Counter()

    def read(self, file, *args):
        for found in super().read(file, *args):
            self.num_read[file] += 1
            yield found


def shard(stream: RowStream, order: StreamOrder, state: dict | None = None) -> StreamShard:
    return StreamShard("laion", 0, stream, order, state)


def take(reader: StreamShard, count: int) -> list[int]:
    return [number_of(row) for row in islice(iter(reader.next_row, None), count)]


def one_pass(stream: RowStream, order: StreamOrder, epoch: int) -> list[int]:
    """Return the rows that a reader takes in a pass."""
    reader = shard(stream, order)
    rows = []
    while reader.epoch <= epoch:
        row = reader.next_row()
        if reader.epoch == epoch:
            rows.append(number_of(row))
    return rows


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Files that are written once for all examples."""
    root, made = tmp_path_factory.mktemp("streams"), {}

    def get(kind: str, sizes: tuple[int, ...]) -> RowStream:
        if (kind, sizes) not in made:
            made[kind, sizes] = write(root / str(len(made)), kind, list(sizes))
        return made[kind, sizes]

    return get


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)
ORDERS = st.builds(
    StreamOrder,
    seed=st.integers(0, 99),
    source=st.integers(0, 3),
    buffer_size=st.sampled_from([0, 1, 2, 3, 7, 100]),
    num_readers=st.integers(1, 3),
)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["jsonl", "tar", "tar.gz", "parquet"]),
    sizes=SIZES,
    order=ORDERS,
    data=st.data(),
)
def test_a_reader_that_stops_anywhere_goes_on_with_the_same_rows(kind, sizes, order, data, streams):
    stream = streams(kind, sizes)
    if sum(sizes) < order.num_readers:
        return
    order = replace(order, reader=data.draw(st.integers(0, order.num_readers - 1)))
    count = 2 * sum(sizes) + 3
    whole, reader, states = [], shard(stream, order), []
    for _ in range(count):
        whole += take(reader, 1)
        states.append(json.loads(json.dumps(reader.state_dict())))
        assert len(reader._waiting) <= max(order.buffer_size, 1)
    assert [whole[0], states[0]] == [
        take(again := shard(stream, order), 1)[0],
        json.loads(json.dumps(again.state_dict())),
    ]
    stops = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4)))
    for stop in stops:
        resumed = shard(stream, order, states[stop])
        assert take(resumed, count - stop - 1) == whole[stop + 1 :], stop
    # Stopped again and again, from the state of a reader that was resumed itself
    rows, state = [], None
    for begin, end in zip([0, *stops], [*stops, count], strict=True):
        resumed = shard(stream, order, state)
        rows += take(resumed, end - begin)
        state = json.loads(json.dumps(resumed.state_dict())) if end else None
    assert rows == whole


@settings(max_examples=40)
@given(sizes=SIZES, order=ORDERS)
def test_each_pass_has_each_row_once_whatever_the_number_of_readers(sizes, order, streams):
    stream = streams("jsonl", sizes)
    if sum(sizes) < order.num_readers:
        return
    for epoch in range(3):
        rows = [n for r in range(order.num_readers) for n in one_pass(stream, replace(order, reader=r), epoch)]
        assert sorted(rows) == list(range(sum(sizes)))


def test_files_and_rows_have_a_new_order_in_each_pass(streams):
    stream = streams("jsonl", (20,) * 8)
    files = [[number // 20 for number in one_pass(stream, StreamOrder(3, 0, 1), epoch)[::20]] for epoch in range(3)]
    assert all(sorted(order) == list(range(8)) for order in [*files, *map(set, files)])
    assert len({tuple(order) for order in [*files, list(range(8))]}) == 4
    # Within a file, a buffer of one row changes nothing, and no buffer changes nothing at all
    in_order = one_pass(stream, StreamOrder(3, 0, 1), 0)
    assert in_order == [number for file in files[0] for number in range(20 * file, 20 * file + 20)]
    assert [one_pass(stream, StreamOrder(3, 0, 0), epoch) for epoch in range(2)] == [list(range(160))] * 2
    # A buffer moves each row, by less than its size
    shuffled = [one_pass(stream, StreamOrder(3, 0, 30), epoch) for epoch in range(2)]
    place = {number: index for index, number in enumerate(in_order)}
    moves = [index - place[number] for index, number in enumerate(shuffled[0])]
    assert sum(move != 0 for move in moves) > 140 and max(map(abs, moves)) < 30
    assert shuffled[0] != shuffled[1]
    # What decides: the seed, the source, and the reader
    others = [StreamOrder(4, 0, 30), StreamOrder(3, 1, 30)]
    assert all(one_pass(stream, order, 0) != shuffled[0] for order in others)
    assert one_pass(stream, StreamOrder(3, 0, 30), 0) == shuffled[0]


def test_readers_have_own_files_where_there_are_enough(streams):
    few, many = streams("jsonl", (4, 4, 4)), streams("jsonl", (3,) * 9)
    for stream, own in ((few, False), (many, True)):
        orders = [StreamOrder(0, 0, 5, reader, 2) for reader in range(2)]
        rows = [set(one_pass(stream, order, 0)) for order in orders]
        size = 4 if stream is few else 3
        files = [{number // size for number in of_reader} for of_reader in rows]
        assert (files[0].isdisjoint(files[1])) is own
        assert sorted(map(len, rows)) == ([12, 15] if own else [6, 6])
    # In the next pass the other reader has one file more
    assert [len(one_pass(many, StreamOrder(0, 0, 5, 0, 2), epoch)) for epoch in range(2)] == [15, 12]
    assert StreamOrder(0, 0, 1, 0, 3).has_own_files(3) and not StreamOrder(0, 0, 1, 0, 3).has_own_files(11)


@pytest.mark.parametrize("num_readers", [1, 2])
@pytest.mark.parametrize("kind", ["jsonl", "tar", "parquet", "tar.gz"])
def test_resuming_reads_at_most_a_buffer_again(kind, num_readers, streams, monkeypatch):
    stream = streams(kind, (120,) * 3)
    order = StreamOrder(5, 0, 10, 0, num_readers)
    whole = one_pass(stream, order, 0)
    for stop in (1, 50, len(whole) - 20):
        reader = shard(stream, order)
        take(reader, stop)
        files = order.files(stream.files, 0)
        counted = Counted(stream.files, stream.members)
        monkeypatch.setattr(Counted, "num_read", Counter())
        resumed = shard(counted, order, reader.state_dict())
        assert take(resumed, 1) == whole[stop : stop + 1]
        # Up to a buffer behind the row, of which the other readers have their share, and up to one before it
        assert sum(counted.num_read.values()) <= 2 * 10 * num_readers
        # No file that is done is opened
        done = max(0, stop - 10) * num_readers // 120
        assert all(counted.num_read[file] == 0 for file in files[:done])


def test_a_buffer_that_is_large_is_said_once(streams, monkeypatch, caplog):
    stream = streams("jsonl", (20,) * 8)
    monkeypatch.setattr(stream_shard, "LARGE_BUFFER", 10 * len('{"text": "100"}') + 10 * len(stream.files[0]))
    for buffer_size, is_large in ((10, False), (100, True)):
        caplog.clear()
        reader = shard(stream, StreamOrder(0, 0, buffer_size))
        take(reader, 320)
        assert reader._num_bytes == sum(waiting.num_bytes for waiting in reader._waiting)
        assert caplog.text.count("Data source 'laion': the ") == is_large
        assert (f"Lower `shuffle_buffer_size`, now {buffer_size}," in caplog.text) is is_large


def test_rows_that_are_filtered_out_are_not_counted(streams):
    stream = replace(streams("jsonl", (6, 6)), row_filter=RowFilter(lambda row: number_of(row) % 3 == 0))
    order = StreamOrder(0, 0, 2)
    assert sorted(one_pass(stream, order, 0)) == [0, 3, 6, 9]
    whole = take(shard(stream, order), 9)
    for stop in range(1, 9):
        reader = shard(stream, order)
        take(reader, stop)
        assert take(shard(stream, order, reader.state_dict()), 9 - stop) == whole[stop:]


def test_a_file_without_rows_ends_no_reader_that_has_others_in_another_pass(streams):
    stream = replace(streams("jsonl", (6, 6)), row_filter=RowFilter(lambda row: number_of(row) < 6))
    for reader in range(2):
        order = StreamOrder(0, 0, 0, reader, 2)
        assert take(shard(stream, order), 6) == list(range(6))
    nothing = replace(stream, row_filter=RowFilter(lambda row: False))
    with pytest.raises(ValueError, match="Data source 'laion': there are fewer rows than processes times workers"):
        shard(nothing, StreamOrder(0, 0, 1)).next_row()


def test_a_stream_of_a_format_skips_what_load_skips(tmp_path):
    pages = [
        {"text_list": ["a"], "image_info": [image] if image else []} for image in (None, {"image_base64": "aaaa"})
    ]
    for page in pages:
        for image in page["image_info"]:
            image.update(matched_text_index=0, matched_sim=0.3)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    reader = FORMATS["mmc4"]()
    expected = list(reader.load(str(tmp_path)))
    stream = reader.open_stream(str(tmp_path))
    assert len(expected) == 1
    assert list(stream) == list(reader.load(str(tmp_path), streaming=True)) == expected


def test_a_change_of_the_files_changes_their_description(tmp_path):
    stream = write(tmp_path / "a", "jsonl", [3, 2])
    described = stream.describe_files()
    assert described["files"] == 2 and described["bytes"] == sum(Path(file).stat().st_size for file in stream.files)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = [str(tmp_path / "b" / Path(file).name) for file in stream.files]
    assert replace(stream, files=moved).describe_files() == described
    Path(moved[0]).write_text(Path(moved[0]).read_text() + "{}\n")
    changed = replace(stream, files=moved).describe_files()
    assert changed["digest"] != described["digest"] and changed["bytes"] == described["bytes"] + 3
    assert replace(stream, files=moved[:1]).describe_files()["files"] == 1
