# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Formats: one [`~data.Reader`] per published layout, in a file of its own whose docstring lists the columns.

To add a format, write such a file and name its reader in `FORMATS`.
"""

from ..reader import Reader
from .image_text_pairs import ImageTextPairs
from .llava import Llava
from .messages import Messages
from .mmc4 import MMC4
from .obelics import Obelics
from .parts import Parts
from .question_answering import QuestionAnswering
from .video_text_pairs import VideoTextPairs


#: The readers by the names that recipes and the command line use.
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
