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

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .columns import row_location
    from .data_collator import FlamingoDataCollator
    from .detection import Detection, detect_format
    from .documents import Chunk, interleave
    from .encoding import encode_images
    from .errors import BadSampleError
    from .features import EncodedDocuments, add_image_features, encode_documents
    from .formats import FORMATS
    from .image_decoding import blank_image, decode_image
    from .media import load_media
    from .packing import check_packing, pack
    from .reader import Reader
    from .samples import document_to_sample
    from .video_decoding import EvenlySpaced, FixedRate, VideoSegment, decode_video

# The names that are imported when they are asked for, as in transformers: opening an image needs no `datasets`, which reads tables
_NAMES = {
    "columns": ["row_location"],
    "data_collator": ["FlamingoDataCollator"],
    "detection": ["Detection", "detect_format"],
    "documents": ["Chunk", "interleave"],
    "encoding": ["encode_images"],
    "errors": ["BadSampleError"],
    "features": ["EncodedDocuments", "add_image_features", "encode_documents"],
    "formats": ["FORMATS"],
    "image_decoding": ["blank_image", "decode_image"],
    "media": ["load_media"],
    "packing": ["check_packing", "pack"],
    "reader": ["Reader"],
    "samples": ["document_to_sample"],
    "video_decoding": ["EvenlySpaced", "FixedRate", "VideoSegment", "decode_video"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


__all__ = [
    "FORMATS",
    "BadSampleError",
    "Chunk",
    "Detection",
    "EncodedDocuments",
    "EvenlySpaced",
    "FixedRate",
    "FlamingoDataCollator",
    "Reader",
    "VideoSegment",
    "add_image_features",
    "blank_image",
    "check_packing",
    "decode_image",
    "decode_video",
    "detect_format",
    "document_to_sample",
    "encode_documents",
    "encode_images",
    "interleave",
    "load_media",
    "pack",
    "row_location",
]
