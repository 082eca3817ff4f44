# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Files and addresses are read only if they are regular, end, and arrive in time."""

import os
import socket
import sys
import time

import pytest
from loopback import Server

from transformers_flamingo import files_flamingo
from transformers_flamingo.files_flamingo import fetch, read_regular_file, run_within
from transformers_flamingo.images_flamingo import open_image


@pytest.mark.parametrize(
    ("path", "what"),
    [("fifo", "a pipe"), ("folder", "a folder"), ("/dev/zero", "a device"), ("socket", "a socket")],
)
def test_only_regular_files_are_opened(path, what, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        full = os.path.join(tmp_path, path)
        if what == "a socket":  # which the system refuses to open
            with pytest.raises(ValueError, match=r"Image 0 \('.*socket'\) cannot be read: .*No such device"):
                open_image(full, "Image 0")
            return
        with pytest.raises(ValueError, match=rf"Image 0 \('.*'\) cannot be read: it is {what}, not a regular file"):
            open_image(full, "Image 0")
    link = tmp_path / "link.png"
    link.symlink_to(full)
    with pytest.raises(ValueError, match=f"it is {what}, not a regular file"):
        read_regular_file(link)


def test_a_file_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(2**40)  # which takes no space
    with pytest.raises(ValueError, match=rf"{2**40} bytes, more than the limit of {2**30}"):
        open_image(path, "Image 0")
    monkeypatch.setattr(files_flamingo, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match="more than the limit of 10 bytes"):
        read_regular_file("/proc/self/status")  # of which the system says that it has 0 bytes


OK = b"HTTP/1.1 200 OK\r\n"


def silence(connection):
    time.sleep(3)


def drip_body(connection):
    connection.sendall(OK + b"\r\n")
    for _ in range(300):
        connection.sendall(b"x")
        time.sleep(0.01)


def drip_headers(connection):
    for _ in range(300):
        connection.sendall(b"H")
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [silence, drip_body, drip_headers])
def test_a_download_has_a_deadline(answer, monkeypatch):
    monkeypatch.setattr(files_flamingo, "FETCH_SECONDS", 0.3)
    message = r"Image 0 \('http://.*'\) cannot be fetched: it did not arrive within 0.3 s"
    with Server(answer) as server, pytest.raises(ValueError, match=message):
        open_image(server.url, "Image 0")


def test_a_download_has_a_limit_of_size():
    sent = []

    def flood(connection):
        connection.sendall(OK + b"\r\n")
        while True:
            sent.append(connection.send(b"x" * 2**16))

    with Server(flood) as server, pytest.raises(ValueError, match="more than the limit of 100000 bytes"):
        fetch(server.url, max_bytes=100_000)
    assert sum(sent) < 2**24


def test_a_download_is_retried_only_after_a_temporary_failure(monkeypatch):
    monkeypatch.setattr(files_flamingo, "RETRY_SECONDS", 0.01)

    def busy_once(connection):
        status = b"HTTP/1.1 503 Busy\r\n" if server.count == 1 else OK
        connection.sendall(status + b"Content-Length: 3\r\n\r\nabc")

    monkeypatch.setitem(sys.modules, "httpx", None)  # which no requirement of the package installs
    with Server(busy_once) as server:
        assert fetch(server.url, attempts=2) == b"abc"
        assert server.count == 2
    with Server(lambda c: c.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")) as server:
        with pytest.raises(ConnectionError, match="503"):
            fetch(server.url, attempts=3)
        assert server.count == 3
    with Server(lambda c: c.sendall(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")) as server:
        with pytest.raises(ConnectionError, match="404"):
            fetch(server.url, attempts=3)
        assert server.count == 1


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://127.0.0.1:99999/a"])
def test_what_is_not_an_address_is_named(url):
    with pytest.raises(ValueError, match="Image 0 .* cannot be read"):
        open_image(url, "Image 0")


def test_a_redirect_leads_to_addresses_only():
    redirect = b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    with Server(lambda c: c.sendall(redirect)) as server, pytest.raises(ValueError, match="not an address"):
        open_image(server.url, "Image 0")


def test_the_error_of_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        run_within(5, lambda: 1 / 0)
    assert run_within(5, lambda: 3) == 3
