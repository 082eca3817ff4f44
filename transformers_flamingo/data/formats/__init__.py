# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Formats: one [`~data.Reader`] per published layout, in its own file, whose docstring lists the columns.

To add a format, write such a file and name its reader in `FORMATS`.
"""

from ..reader import Reader
from .cauldron import Cauldron
from .coco_captions import CocoCaptions
from .fiftyone import FiftyOne
from .image_classes import ImageClasses
from .image_text_pairs import ImageTextPairs
from .label_studio import LabelStudio
from .llava import Llava
from .messages import Messages
from .mmc4 import MMC4
from .obelics import Obelics
from .parts import Parts
from .prompt_completion import PromptCompletion
from .question_answering import QuestionAnswering
from .video_text_pairs import VideoTextPairs
from .vqav2 import Vqav2


FORMATS: dict[str, type[Reader]] = {
    "image_text_pairs": ImageTextPairs,
    "obelics": Obelics,
    "mmc4": MMC4,
    "parts": Parts,
    "question_answering": QuestionAnswering,
    "llava": Llava,
    "messages": Messages,
    "prompt_completion": PromptCompletion,
    "cauldron": Cauldron,
    "video_text_pairs": VideoTextPairs,
    "image_classes": ImageClasses,
    "coco_captions": CocoCaptions,
    "vqav2": Vqav2,
    "label_studio": LabelStudio,
    "fiftyone": FiftyOne,
}
"""The readers by the names that recipes and the command line use."""
