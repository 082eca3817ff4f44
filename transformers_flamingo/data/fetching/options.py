# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What `fetch_data` can be told."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from .client import OPT_OUT_DIRECTIVES
from .failures import REASONS


# The options that the content of the shards depends on
_CONTENT = (
    *("split", "url_column", "text_column", "hash_column", "min_similarity", "dead_images"),
    *("max_shortest_side", "min_shortest_side", "rows_per_shard", "max_rows"),
)
_MINIMA = {
    **dict.fromkeys(("rows_per_shard", "concurrency", "max_per_host", "max_bytes", "min_shortest_side"), 1),
    **dict.fromkeys(("max_shortest_side", "max_rows"), 1),
    "retries": 0,
}


@dataclass(kw_only=True)
class FetchOptions:
    """
    Options of [`fetch_data`].

    Args:
        source (`str`): The list: a file, a folder or a pattern.
        output_dir (`str`): The folder of the shards, empty or of an earlier run with the same list and options.
        split (`str`, *optional*): Read only files with this word in their name, as in [`~data.Reader.load`].
        url_column, text_column, hash_column (`str`, *optional*):
            Columns of a list of pairs, by default found by their names. `hash_column="none"` checks no hash.
        dead_images (`str`, *optional*, defaults to `"drop_image"`):
            What becomes of a page with an image that was not fetched: it loses this image (`"drop_image"`), or is dropped
            (`"drop_page"`), or the run ends (`"error"`). A pair without its image is dropped, and so is a page without any.
        min_similarity (`float`, *optional*, defaults to 0.24): Images of MMC4 with a lower `matched_sim` are not fetched.
        max_shortest_side (`int`, *optional*): Larger images are resized to this many pixels on their shorter side.
        min_shortest_side (`int`, *optional*, defaults to 1): Smaller images are dropped.
        max_bytes (`int`, *optional*, defaults to 32 MiB): Maximum size of a file.
        timeout (`float`, *optional*, defaults to 10.0): Seconds for a file.
        retries (`int`, *optional*, defaults to 2): Maximum number of further tries after a temporary failure.
        concurrency (`int`, *optional*, defaults to 32): Number of files that are fetched at the same time.
        max_per_host (`int`, *optional*, defaults to 4): Maximum number of them from the same host.
        rows_per_shard (`int`, *optional*, defaults to 2000): Rows of the list in each shard.
        max_rows (`int`, *optional*): Read at most this many rows, for a try.
        cache_dir (`str`, *optional*): Keep all fetched files here, and look here first.
        user_agent (`str`, *optional*): What the sites are told, by default the name and version of this package.
        opt_out_directives (`list[str]`, *optional*): Directives of `X-Robots-Tag` that are obeyed.
        allow_private_hosts (`bool`, *optional*, defaults to `False`): Fetch from private networks, too.
        retry_failed (`list[str]`, *optional*):
            Try again what failed in complete shards, for these reasons; an empty list is for all temporary ones.

    Raises:
        ValueError: a value is out of its range.
    """

    source: str
    output_dir: str
    split: str | None = field(default=None, metadata={"help": "Read only files with this word in their name."})
    url_column: str | None = field(
        default=None, metadata={"help": "Column of the addresses (default: url, image_url, URL, coco_url, ...)."}
    )
    text_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the captions; none for rows without (default: text, caption, captions, TEXT, ...)."
        },
    )
    hash_column: str | None = field(
        default=None,
        metadata={"help": "Column of the hashes of the files; none for no check (default: sha256, md5, ...)."},
    )
    dead_images: Literal["drop_image", "drop_page", "error"] = field(
        default="drop_image",
        metadata={
            "help": "What becomes of a page with an image that is not fetched: it loses this image, or is dropped, or the run ends. A pair without its image is dropped."
        },
    )
    min_similarity: float = field(default=0.24, metadata={"help": "Of MMC4: lowest matched_sim of an image."})
    max_shortest_side: int | None = field(
        default=None,
        metadata={"help": "Resize larger images to this many pixels of their shorter side (default: keep the files)."},
    )
    min_shortest_side: int = field(default=1, metadata={"help": "Drop images whose shorter side has fewer pixels."})
    max_bytes: int = field(default=2**25, metadata={"help": "Drop files with more bytes."})
    timeout: float = field(default=10.0, metadata={"help": "Seconds for a file."})
    retries: int = field(default=2, metadata={"help": "Maximum number of further tries after a temporary failure."})
    concurrency: int = field(default=32, metadata={"help": "Number of files that are fetched at the same time."})
    max_per_host: int = field(default=4, metadata={"help": "Maximum number of them from the same host."})
    rows_per_shard: int = field(default=2000, metadata={"help": "Rows of the list in each shard."})
    max_rows: int | None = field(default=None, metadata={"help": "Read only this many rows of the list, for a try."})
    cache_dir: str | None = field(
        default=None, metadata={"help": "Keep all fetched files in this folder, for runs with other options."}
    )
    user_agent: str | None = field(
        default=None, metadata={"help": "What the sites are told (default: name and version of this package)."}
    )
    opt_out_directives: list[str] | None = None
    allow_private_hosts: bool = field(
        default=False, metadata={"help": "Fetch from loopback and private networks, too."}
    )
    retry_failed: list[str] | None = None

    def __post_init__(self):
        if self.opt_out_directives is None:
            self.opt_out_directives = list(OPT_OUT_DIRECTIVES)
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"`{name}` is {value}, but it must be at least {minimum}.")
        if self.timeout <= 0:
            raise ValueError(f"`timeout` is {self.timeout}, but it must be above 0.")
        if self.dead_images not in ("drop_image", "drop_page", "error"):
            raise ValueError(f"`dead_images` is {self.dead_images!r}. It is 'drop_image', 'drop_page' or 'error'.")
        if self.user_agent is not None and not self.user_agent.strip():
            raise ValueError("`user_agent` is empty. Give a name, and an address where you can be reached.")
        wrong = [reason for reason in self.retry_failed or [] if reason not in REASONS]
        if wrong:
            raise ValueError(f"`retry_failed` has {wrong[0]!r}. Reasons are {', '.join(REASONS)}.")

    @property
    def agent(self) -> str:
        """Return what the sites are told."""
        return (
            self.user_agent
            or f"transformers-flamingo/{version('transformers-flamingo')} (fetches images for training)"
        )

    @property
    def cache_path(self) -> Path:
        """Return the folder of the cache."""
        return Path(self.cache_dir)

    def content(self) -> dict[str, Any]:
        """Return what a resumed run must have again."""
        return {name: getattr(self, name) for name in _CONTENT}
