# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The miniature: an offline world of drawn pictures, in which a tiny Flamingo learns in minutes.

- `world`: scenes, their captions and questions, and the pictures drawn from them
- `data`, `files`: datasets of the world in memory, and on disk in published layouts
- `shipped`: paths of the shipped backbones, `clip/`, `gpt2/` and `few_shot_gpt2/`
- `vision_backbone`, `text_backbone`: how these were trained
- `tokenizer`, `texts`, `text_rows`, `text_evaluation`: words, texts, training rows and measurements of the language model
- `demo`: `flamingo demo`
- `few_shot`, `few_shot_episodes`, `few_shot_training`: `flamingo demo --few-shot`
- `tasks`, `recipes/`, `commands`: what `flamingo evaluate`, `flamingo train` and `flamingo` find through entry points

Only the standard library is imported here: `flamingo --help` imports this package.
"""

from .shipped import read_training_record, text_backbone_path, vision_backbone_path


__all__ = ["read_training_record", "text_backbone_path", "vision_backbone_path"]
