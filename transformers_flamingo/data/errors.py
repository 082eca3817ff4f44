# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The error of a data row."""


class BadSampleError(ValueError):
    """A row that cannot be trained on. The message begins with its file and row."""
