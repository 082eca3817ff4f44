# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The errors of a data row, and of a file that is not what a format reads."""


class BadSampleError(ValueError):
    """A row that cannot be trained on. The message begins with its file and row."""


class ContentError(ValueError):
    """
    A whole file whose content a format does not read: it is not damaged, and fetching it again would not help.

    Args:
        message (`str`): What is wrong, and what to do.
        is_near (`bool`, *optional*, defaults to `False`): Whether the file has the main part of the format, so that this says more of it
            than what other formats say.
    """

    def __init__(self, message: str, is_near: bool = False):
        super().__init__(message)
        self.is_near = is_near
