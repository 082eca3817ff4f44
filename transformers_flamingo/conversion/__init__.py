# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Convert checkpoints of OpenFlamingo and flamingo-mini to a directory for `from_pretrained`."""

from .flamingo_mini import convert_flamingo_mini
from .mapping import format_table
from .open_flamingo import convert_open_flamingo


__all__ = ["convert_flamingo_mini", "convert_open_flamingo", "format_table"]
