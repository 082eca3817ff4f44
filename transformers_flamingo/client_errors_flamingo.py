# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Tell a server whose fault an error is.

`transformers serve` answers any exception with 500 and without words, but for the `HTTPException` of Starlette, on which it is built.
In its process, a `ValueError` about what a client sent is therefore that, too: 400, with its message.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any


def blames_the_client(function: Callable) -> Callable:
    """Decorate a function whose `ValueError`s are about its arguments, so that a server answers them with 400."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            # Not imported: it is not a dependency, and in all other processes a `ValueError` is what callers expect
            if "transformers.cli.serving.server" not in sys.modules:
                raise
            http_exception = sys.modules["starlette.exceptions"].HTTPException
            if isinstance(error, http_exception):
                raise
            raise _bad_request_type(http_exception)(str(error)) from error

    return wrapped


@functools.cache
def _bad_request_type(http_exception: type[Exception]) -> type[Exception]:
    """Make the type of a `ValueError` that Starlette answers with 400."""

    class BadRequestError(http_exception, ValueError):
        """A `ValueError` about what a client sent."""

        def __init__(self, message: str):
            super().__init__(status_code=400, detail=message)

        def __str__(self) -> str:
            return self.detail

    return BadRequestError
