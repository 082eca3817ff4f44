# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Why an image was not fetched, in words that are counted and can be chosen for another try."""

from typing import Any


REASONS = {
    "not_found": "the site no longer has it (404, 410)",
    "forbidden": "the site refuses it (401, 403, 451)",
    "http_error": "another status that is not a success",
    "server_error": "the site failed (408, 425, 5xx)",
    "rate_limited": "the site asked to come back later than this run waits (429)",
    "timeout": "it did not arrive in time",
    "connection": "no connection, or it broke",
    "dns": "the host has no address",
    "redirects": "it leads in a circle, or nowhere",
    "private_address": "it leads into a private network",
    "bad_url": "it is not an http(s) address",
    "opted_out": "the site asks not to use it for training (X-Robots-Tag)",
    "too_large": "too many bytes or pixels",
    "too_small": "its shorter side has too few pixels",
    "hash": "it is not the file whose hash the row has",
    "not_an_image": "it is a page or another file",
    "damaged": "it is an image that cannot be decoded",
}
"""The reasons, in the order of the report, with what each means."""
TEMPORARY = ("server_error", "rate_limited", "timeout", "connection", "dns")
"""Reasons that another day may change. They are forgotten if a run is resumed, and tried again by `--retry_failed`."""
DROPPED = {
    "dead_image": "an image of it was not fetched",
    "no_image_left": "none of its images was fetched",
    "no_image": "it names no image",
    "no_text": "it has no text",
    "bad_row": "it cannot be read",
}
"""Why a row is not in the output, with what each means."""


class FetchError(Exception):
    """
    An image that was not fetched.

    Args:
        reason (`str`): A key of `REASONS`.
        detail (`str`): What happened.
        can_retry (`bool`, *optional*): Whether the same request may succeed in this run. By default, if the reason is temporary.
        retry_after (`float`, *optional*): Seconds after which the site asks to come back.
    """

    def __init__(self, reason: str, detail: str, can_retry: bool | None = None, retry_after: float | None = None):
        super().__init__(reason, detail)
        self.reason, self.detail, self.retry_after = reason, detail, retry_after
        self.can_retry = reason in TEMPORARY if can_retry is None else can_retry

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    def record(self) -> dict[str, Any]:
        """Return what files keep of it."""
        return {"reason": self.reason, "detail": self.detail}
