# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A local server that may misbehave."""

import socket
import threading


class Server:
    """Server of one port that answers each connection by calling a function with the socket, and counts them."""

    def __init__(self, answer):
        self.answer, self.count = answer, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/a.png"

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            try:
                connection.recv(2**16)
                self.answer(connection)
            except OSError:
                pass  # the client has gone

    def __exit__(self, *_):
        self.socket.close()
