# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Data: rows of published formats become documents, and documents become samples for the collator.

```python
reader = FORMATS["mmc4"](min_similarity=0.24)
rows = reader.load("shards/*.jsonl", streaming=True)
rng = np.random.default_rng(0)
samples = (
    document_to_sample(
        reader.read(row), processor, rng, location=row_location(row), max_length=256, max_images=6
    )
    for row in rows
)
batch = FlamingoDataCollator(processor)(list(itertools.islice(samples, 8)))
```
"""

from .data_collator import FlamingoDataCollator
from .documents import Chunk, document_to_sample, interleave
from .features import EncodedDocuments, add_image_features, encode_documents
from .formats import FORMATS
from .media import BadSampleError, decode_image, decode_video, load_media
from .packing import check_packing, pack
from .reader import Reader, row_location


__all__ = [
    "FORMATS",
    "BadSampleError",
    "Chunk",
    "EncodedDocuments",
    "FlamingoDataCollator",
    "Reader",
    "add_image_features",
    "check_packing",
    "decode_image",
    "decode_video",
    "document_to_sample",
    "encode_documents",
    "interleave",
    "load_media",
    "pack",
    "row_location",
]
