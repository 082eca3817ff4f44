# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Pretrain your own backbones for [`FlamingoModel.from_vision_text_pretrained`]: a vision encoder, by contrasting images with
captions, and a causal language model. Both are trained by the stock `Trainer`, from random weights or from pretrained ones.

```python
pretrain_vision(
    VisionPretrainingArguments(
        data_path="captions/*.tar",
        vision_config={"model_type": "clip_vision_model", "image_size": 64, "patch_size": 8, "hidden_size": 256, ...},
        text_config={"model_type": "clip_text_model", "hidden_size": 256, ...},
    ),
    TrainingArguments("vision", per_device_train_batch_size=256, max_steps=10_000, learning_rate=1e-3),
)
pretrain_text(
    TextPretrainingArguments(data_path="texts/*.jsonl", text_config={"model_type": "gpt2", "n_embd": 256, ...}),
    TrainingArguments("text", max_steps=10_000),
)
FlamingoModel.from_vision_text_pretrained("vision", "text")
```
"""

from .arguments import TextPretrainingArguments, VisionPretrainingArguments
from .contrastive import ContrastiveCollator, ContrastiveTrainer, contrastive_loss
from .recipe import make_pretraining_parser, read_pretraining_recipe
from .text import pretrain_text, train_language_model
from .vision import pretrain_vision


__all__ = [
    "ContrastiveCollator",
    "ContrastiveTrainer",
    "TextPretrainingArguments",
    "VisionPretrainingArguments",
    "contrastive_loss",
    "make_pretraining_parser",
    "pretrain_text",
    "pretrain_vision",
    "read_pretraining_recipe",
    "train_language_model",
]
