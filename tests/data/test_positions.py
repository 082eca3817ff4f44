# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Reading goes on behind any row of a file with the same rows, and does not read what is before where the file can seek."""

import gzip
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_factory import write_tar
from datasets import ClassLabel, Dataset, Features, Image, Value
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_flamingo.data.positions import Position
from transformers_flamingo.data.rows import read_file


#: The byte ranges that were read of each file.
READS: dict[str, list[range]] = {}


class CountedFile(MemoryFile):
    def _count(self, length: int) -> None:
        READS.setdefault(self.path, []).append(range(self.tell() - length, self.tell()))

    def read(self, size=-1):
        data = super().read(size)
        self._count(len(data))
        return data

    def read1(self, size=-1):
        return self.read(size)

    def readinto(self, buffer):
        length = super().readinto(buffer)
        self._count(length)
        return length

    def __next__(self):
        line = super().__next__()
        self._count(len(line))
        return line


class CountedFileSystem(MemoryFileSystem):
    """Files in memory that note what is read of them."""

    protocol = "counted"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("counted://").lstrip("/")

    def _open(self, path, mode="rb", **kwargs):
        path = self._strip_protocol(path)
        return CountedFile(self, path, self.store[path].getvalue())

    def write(self, name: str, data: bytes) -> str:
        self.store[f"/{name}"] = MemoryFile(self, f"/{name}", data)
        return f"counted://{name}"


@pytest.fixture(scope="module")
def counted():
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    return CountedFileSystem()


def num_bytes(name: str) -> int:
    return sum(map(len, READS.pop(f"/{name}", [])))


def tar_of(samples: list[bytes], **kwargs) -> bytes:
    """Return an archive whose sample `i` has the member `txt` and, if `i` is odd, one that is not read and a long name."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **kwargs) as tar:
        for number, text in enumerate(samples):
            stem = f"{number:05}" + number % 2 * ("x" * 150)
            for suffix, data in {"txt": text, **({"bin": b"?" * 700} if number % 2 else {})}.items():
                info = tarfile.TarInfo(f"{stem}.{suffix}")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    return buffer.getvalue()


MEMBERS = {"txt": Value("string")}
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8)


def contents(texts: list[str]) -> dict[str, bytes]:
    """Return files of all kinds that are read from bytes, with these texts."""
    lines = "\n\n".join(json.dumps({"text": text}) for text in texts)
    quoted = "".join(f'{number},"{text.replace(chr(34), chr(34) * 2)}"\r\n' for number, text in enumerate(texts))
    jsonl, table = "\ufeff".encode() + lines.encode(), b'\xef\xbb\xbf"a\nb",text\n' + quoted.encode() + b"\n7,caf\xe9"
    tar = tar_of([text.encode() for text in texts])
    return {
        "a.jsonl": jsonl,
        "a.csv": table,
        "a.tar": tar,
        "pax.tar": tar_of([text.encode() for text in texts], format=tarfile.PAX_FORMAT, pax_headers={"comment": "ä"}),
        "a.jsonl.gz": gzip.compress(jsonl, 1),
        "a.csv.gz": gzip.compress(table, 1),
        "a.tar.gz": gzip.compress(tar, 1),
        "a.json": json.dumps([{"text": text} for text in texts]).encode(),
    }


def check_all_positions(file: str) -> list:
    """Check that reading from behind each row on gives the rest, and so do the positions of that reading."""
    whole = list(read_file(file, MEMBERS))
    rows = [row for row, _ in whole]
    for number in range(len(whole)):
        rest = list(read_file(file, MEMBERS, start=reloaded(whole[number][1])))
        assert [row for row, _ in rest] == rows[number + 1 :], number
        if len(rest) > 1:
            again = read_file(file, MEMBERS, start=reloaded(rest[len(rest) // 2][1]))
            assert [row for row, _ in again] == rows[number + len(rest) // 2 + 2 :], number
    return whole


def reloaded(position: Position) -> Position:
    """Return a position as it comes out of a checkpoint."""
    return Position(*json.loads(json.dumps(position)))


@settings(max_examples=30)
@given(texts=TEXTS)
def test_from_each_position_on_the_rows_are_the_same(texts, counted):
    for name, data in contents(texts).items():
        file = counted.write(name, data)
        whole = check_all_positions(file)
        assert len(whole) == len(texts) + name.startswith("a.csv")
        can_seek = name in ("a.jsonl", "a.csv", "a.tar")
        assert all(isinstance(end.byte, int) is can_seek for _, end in whole)


def test_lines_archives_and_tables_begin_at_the_byte(counted):
    texts = ["x" * 9_000 for _ in range(20)]
    for name, data in contents(texts).items():
        file = counted.write(name, data)
        rows = list(read_file(file, MEMBERS))
        READS.clear()
        assert len(list(read_file(file, MEMBERS, start=rows[14][1]))) == len(rows) - 15
        if rows[14][1].byte is None:
            assert num_bytes(name) >= len(data)
        else:
            # What is behind the position, a byte as a trial, and the header of a table, which is read in blocks of 8 KiB
            assert num_bytes(name) <= len(data) - rows[14][1].byte + 1 + 8192 * (name == "a.csv")


def labeled(size: int) -> Dataset:
    features = Features({"image": Image(), "text": Value("string"), "label": ClassLabel(names=["cat", "dog"])})
    columns = {
        "image": [{"bytes": bytes([number]) * 3000, "path": None} for number in range(size)],
        "text": [f"text {number}" for number in range(size)],
        "label": [number % 2 for number in range(size)],
    }
    return Dataset.from_dict(columns, features=features)


def test_row_groups_before_the_position_are_not_read(counted):
    buffer = BytesIO()
    labeled(20).to_parquet(buffer, batch_size=6)
    file = counted.write("a.parquet", buffer.getvalue())
    metadata = pq.read_metadata(BytesIO(buffer.getvalue()))
    assert [metadata.row_group(group).num_rows for group in range(4)] == [6, 6, 6, 2]
    whole = check_all_positions(file)
    assert [(row["text"], row["label"], row["__row__"]) for row, _ in whole[:2]] == [
        ("text 0", "cat", 0),
        ("text 1", "dog", 1),
    ]
    for row, group in ((3, 0), (6, 0), (7, 1), (11, 1), (14, 2), (18, 2), (19, 3)):
        READS.clear()
        list(read_file(file, start=whole[row - 1][1]))
        first, *_ = (metadata.row_group(group).column(0),)
        begin = first.dictionary_page_offset if first.has_dictionary_page else first.data_page_offset
        data = [read for read in READS["/a.parquet"] if read.start >= 4 and read.stop <= len(buffer.getvalue()) - 8]
        pages = [read for read in data if read.start < begin]
        assert pages == [], (row, group)


@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_files(tmp_path, kind):
    table = labeled(20).data.table
    with kind(tmp_path / "a.arrow", table.schema) as writer:
        for batch in table.combine_chunks().to_batches(max_chunksize=6):
            writer.write_batch(batch)
    whole = check_all_positions(str(tmp_path / "a.arrow"))
    assert [row["__row__"] for row, _ in whole] == list(range(20))
    assert [row["label"] for row, _ in whole[:2]] == ["cat", "dog"]
    if kind is pa.ipc.new_file:
        return
    # A text of the second batch is not UTF-8: it stops a reading from the beginning, and none from behind it
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data.replace(b"text 8", b"text \xff"))
    with pytest.raises(ValueError, match="a.arrow' cannot be read to its end"):
        list(read_file(str(tmp_path / "a.arrow")))
    assert len(list(read_file(str(tmp_path / "a.arrow"), start=whole[12][1]))) == 7


class _Quiet(SimpleHTTPRequestHandler):
    """It sends whole files, whatever part was asked for."""

    def log_message(self, *args):
        pass


def test_a_file_of_a_server_that_cannot_seek_is_read_through(tmp_path):
    for name, data in contents(["a", "b", "c"]).items():
        (tmp_path / name).write_bytes(data)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name in ("a.jsonl", "a.csv", "a.tar"):
            whole = check_all_positions(f"http://127.0.0.1:{server.server_port}/{name}")
            assert len(whole) == 3 + (name == "a.csv")
            assert all(isinstance(end.byte, int) for _, end in whole)
    finally:
        server.shutdown()
        server.server_close()


def test_a_damaged_header_is_named_by_its_byte_in_the_archive(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, {f"{i}.txt": b"a" for i in range(4)})
    whole = list(read_file(str(path), MEMBERS))
    data = bytearray(path.read_bytes())
    data[3 * 1024 : 3 * 1024 + 10] = b"?" * 10
    path.write_bytes(data)
    for start in (whole[0][1], whole[1][1]):
        with pytest.raises(ValueError, match="nor the end of the archive is at byte 3072"):
            list(read_file(str(path), MEMBERS, start=start))
