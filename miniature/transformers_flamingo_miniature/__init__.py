# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The miniature: an offline world of drawn pictures, in which a tiny Flamingo learns in minutes.

- `world`: scenes, captions, questions, and the pictures drawn from them
- `data`: `datasets` data sets of the world (needs the `train` extra)
- `backbones`: where the two shipped backbones are, `clip/` and `gpt2/`
- `vision_backbone`, `text_backbone`: how these two were trained; `tokenizer`: their words
"""

from .backbones import read_training_record, text_backbone_path, vision_backbone_path


__all__ = ["read_training_record", "text_backbone_path", "vision_backbone_path"]
