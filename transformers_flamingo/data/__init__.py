# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Data sets for training: rows of published layouts become documents, and documents become rows for the collator.

To add a format, write a [`Reader`] of some tens of lines in a file of its own and name it in `FORMATS`.

```python
reader = FORMATS["mmc4"](min_similarity=0.24)
rows = reader.load("shards/*.jsonl", streaming=True)
rng = np.random.default_rng(0)
samples = (
    render(reader.read(row), processor, rng, where=origin(row), max_length=256, max_images=6) for row in rows
)
```
"""

from .documents import Chunk, interleave, render
from .llava import Llava
from .media import BadSampleError, decode_image, decode_medium, decode_video
from .messages import Messages
from .mmc4 import MMC4
from .obelics import Obelics
from .pairs import ImageTextPairs
from .parts import Parts
from .question_answering import QuestionAnswering
from .sources import Reader, origin
from .video import VideoTextPairs


FORMATS: dict[str, type[Reader]] = {
    "image_text_pairs": ImageTextPairs,
    "obelics": Obelics,
    "mmc4": MMC4,
    "parts": Parts,
    "question_answering": QuestionAnswering,
    "llava": Llava,
    "messages": Messages,
    "video_text_pairs": VideoTextPairs,
}

__all__ = [
    "FORMATS",
    "BadSampleError",
    "Chunk",
    "Reader",
    "decode_image",
    "decode_medium",
    "decode_video",
    "interleave",
    "origin",
    "render",
]
