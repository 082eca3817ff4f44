# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Lists of URLs, as LAION, CC3M, COCO, OBELICS and MMC4 are published: their images are fetched once, into shards to train on.

```python
report = fetch_data(FetchOptions(source="laion.parquet", output_dir="laion"))
report["images"]  # {"named": 10000, "fetched": 8713, "failed": {"not_found": 1021, ...}, ...}
```
"""

from .failures import DROPPED, REASONS, TEMPORARY
from .fetch import FetchInterrupted, Progress, fetch_data
from .options import FetchOptions
from .shards import NOTES, ShardRecord


__all__ = [
    "DROPPED",
    "NOTES",
    "REASONS",
    "TEMPORARY",
    "FetchInterrupted",
    "FetchOptions",
    "Progress",
    "ShardRecord",
    "fetch_data",
]
