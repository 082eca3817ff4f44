# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A local web site of images, some of which are gone, late, broken, moved or not images. It counts the requests of each path."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers a request with what its path has in `server.pages`, and 404 if it has nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.lock:
            self.server.requests[self.path] += 1
            count = self.server.requests[self.path]
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
        self.server.agents.add(self.headers.get("User-Agent"))
        time.sleep(0.002)  # for others to come meanwhile
        with self.server.lock:
            self.server.active -= 1  # before the answer, after which the client may already ask for the next
        page = self.server.pages.get(self.path.partition("?")[0], 404)
        with contextlib.suppress(OSError):  # the client has gone
            if callable(page):
                page(self, count)
            elif isinstance(page, int):
                self.reply(b"", status=page)
            else:
                self.reply(page)

    def reply(self, data: bytes, status: int = 200, **headers: str | None) -> None:
        """Answer with bytes, and end the connection. Names of headers are given with `_` for `-`; those that are `None` are not sent."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), "Connection": "close", **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Write nothing."""


class ImageServer(ThreadingHTTPServer):
    """Server of `pages`: bytes, a status, or a function of the handler and the number of the request of the path, from 1."""

    daemon_threads = True

    def __init__(self, pages: dict[str, bytes | int | Callable[[Handler, int], None]]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.requests, self.agents = pages, Counter(), set()
        self.lock, self.active, self.most_active = threading.Lock(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
