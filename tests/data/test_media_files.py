# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Files and addresses that a data row may name."""

import copy
import os
import pickle

import fsspec
import pytest
from data_factory import number_of, png
from loopback import Server

from transformers_flamingo.data import FORMATS, BadSampleError, FixedRate, decode_image, decode_video, load_media
from transformers_flamingo.data import media_files as data_files
from transformers_flamingo.data.columns import FILE, ROW
from transformers_flamingo.data.media_files import MediaPath, open_media, resolve_media_path


LOCATION = "pairs.jsonl, row 3"


@pytest.fixture
def folders(tmp_path):
    """Make `data` with an image, and next to it a file that its rows must not see."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a.png").write_bytes(png(5))
    (tmp_path / "secret.png").write_bytes(png(9))
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "inner.png").symlink_to(tmp_path / "data" / "a.png")
    (tmp_path / "data-other").mkdir()
    (tmp_path / "data-other" / "a.png").write_bytes(png(9))
    return tmp_path


def read(path: str, media_root: str | None, **options):
    """Decode the image of a row with this path."""
    reader = FORMATS["image_text_pairs"](media_root=media_root, **options)
    (chunk,) = reader.read({"image": path, "text": "a", FILE: "rows/pairs.jsonl", ROW: 3})
    return decode_image(chunk.item, LOCATION)


@pytest.mark.parametrize("path", ["a.png", "sub/../a.png", "./a.png", "inner.png", "{root}/data/a.png"])
def test_paths_inside_media_root(path, folders):
    assert number_of(read(path.format(root=folders), str(folders / "data"))) == 5


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "sub/../../secret.png", "link.png", "{root}/secret.png", "../data-other/a.png", "/etc/passwd"],
)
def test_paths_out_of_media_root_are_refused(path, folders):
    with pytest.raises(
        BadSampleError, match=r"^pairs.jsonl, row 3: the image '.*' cannot be read .*outside `media_root`"
    ):
        read(path.format(root=folders), str(folders / "data"))


def test_a_media_root_that_is_a_link(folders):
    (folders / "root").symlink_to(folders / "data")
    assert number_of(read("a.png", str(folders / "root"))) == 5


@pytest.mark.parametrize("decode", [decode_image, lambda *args: decode_video(*args, FixedRate(1, 2))])
def test_only_regular_files(decode, folders):
    os.mkfifo(folders / "fifo")
    for path, what in ((folders / "fifo", "a pipe"), ("/dev/zero", "a device"), (folders, "a folder")):
        for item in (str(path), {"bytes": None, "path": str(path)}):
            with pytest.raises(BadSampleError, match=f"^pairs.jsonl, row 3: .*it is {what}, not a regular file"):
                decode(item, LOCATION)


def test_a_limit_of_size(folders, monkeypatch):
    with open(folders / "large.mp4", "wb") as file:
        file.truncate(2**36)  # which takes no space
    with pytest.raises(BadSampleError, match=f"{2**36} bytes, more than the limit of {2**35}"):
        decode_video(str(folders / "large.mp4"), LOCATION, FixedRate(1, 2))
    with pytest.raises(BadSampleError, match=f"{2**36} bytes, more than the limit of {2**30}"):
        decode_image(str(folders / "large.mp4"), LOCATION)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "zip://a.png::http://127.0.0.1:9/a.zip",
        "local:///etc/passwd",
        "simplecache::s3://a/b.png",
        "memory://a.png",
        "ftp://127.0.0.1:9/a.png",
        "http://127.0.0.1:9/a::b",
    ],
)
def test_addresses_that_no_row_may_name(address):
    for options in ({}, {"allow_remote": True}):
        with pytest.raises(BadSampleError, match="row 3: the image .* it is an address that no row may name"):
            read(address, None, **options)


def test_addresses_only_where_the_source_allows_them():
    def answer(connection):
        data = png(7)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    with Server(answer) as server:
        for media_root in (None, "images"):
            with pytest.raises(BadSampleError, match="row 3: .*the source does not allow those.*`allow_remote: true`"):
                read(server.url, media_root)
        with pytest.raises(BadSampleError, match="the source does not allow those"):
            decode_image(server.url, LOCATION)
        row = {"bytes": None, "path": server.url, "allow_remote": True}
        with pytest.raises(BadSampleError, match="the source does not allow those"):
            decode_image(row, LOCATION)
        assert server.count == 0
        assert number_of(read(server.url, None, allow_remote=True)) == 7
        assert server.count == 1


def test_an_address_has_a_deadline_and_a_number_of_attempts(monkeypatch):
    monkeypatch.setattr(data_files, "REMOTE_SECONDS", 0.3)
    late = pytest.raises(BadSampleError, match="row 3: .*did not arrive within 0.3 seconds")
    with Server(lambda connection: connection.recv(1)) as server, late:
        read(server.url, None, allow_remote=True)
    monkeypatch.setattr("transformers_flamingo.files_flamingo.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(data_files, "REMOTE_SECONDS", 30)
    with Server(lambda c: c.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")) as server:
        with pytest.raises(BadSampleError, match="row 3: .*500"):
            read(server.url, None, allow_remote=True)
        assert server.count == data_files.REMOTE_ATTEMPTS


def test_images_next_to_rows_on_a_server(monkeypatch):
    """The user named the folder of the rows, so its files are read, but a row cannot lead out of it."""
    monkeypatch.setattr(data_files, "REMOTE_PROTOCOLS", ("memory",))
    with fsspec.open("memory://set/images/a.png", "wb") as file:
        file.write(png(7))
    with open_media(resolve_media_path("images/a.png", "memory://set")) as file:
        assert file.read() == png(7)
    monkeypatch.setattr(data_files, "MAX_REMOTE_BYTES", 10)
    with pytest.raises(ValueError, match="more than the limit of 10 bytes"):
        open_media(resolve_media_path("images/a.png", "memory://set"))
    for path in ("../other/a.png", "/etc/passwd", "images/../../a.png"):
        with pytest.raises(ValueError, match="leads out of 'memory://set'"):
            open_media(resolve_media_path(path, "memory://set"))


def test_a_path_keeps_the_permissions_of_its_source():
    path = MediaPath("http://127.0.0.1:9/a", "root", True)
    for again in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path)):
        assert (again, again.root, again.allow_remote) == (str(path), "root", True)


def test_a_path_object_is_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    assert number_of(load_media(tmp_path / "a.png", "row")) == 5
    assert [number_of(frame) for frame in load_media([tmp_path / "a.png"], "row")] == [5]
    with pytest.raises(BadSampleError, match=r"row: the image '.*b\.png' cannot be read"):
        load_media(tmp_path / "b.png", "row")
