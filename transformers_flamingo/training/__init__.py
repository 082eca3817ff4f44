# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training on the stock `Trainer`."""

from .adapters import lora_config
from .callbacks import GateHistoryCallback
from .data_collator import FlamingoDataCollator
from .optimization import parameter_groups


__all__ = ["FlamingoDataCollator", "GateHistoryCallback", "lora_config", "parameter_groups"]
