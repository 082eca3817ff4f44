# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training on the stock `Trainer`."""

from ..data.data_collator import FlamingoDataCollator
from ..data.features import add_image_features
from ..data.packing import check_packing
from ..utils.trainable import load_trainable
from .adapters import lora_config
from .arguments import FlamingoTrainingArguments, ModelArguments
from .build import build_model
from .callbacks import GateHistoryCallback
from .checkpointing import get_last_checkpoint
from .data_source import DataSource
from .found_data import fill_recipe
from .held_out import GenerationEvalDataset
from .image_use import ImageUseMeasurement, measure_image_use
from .image_use_callback import ImageUseCallback
from .interruption import TrainingInterrupted
from .memory import TrainingMemory, estimate_training_memory
from .mixture import DataMixture
from .optimization import parameter_groups
from .recipe import Recipe, make_recipe_parser, parse_recipe, read_recipe
from .recipe_check import check_data, check_recipe
from .run import run_recipe
from .sharding import full_state_dict, shard_model
from .trainer import FlamingoTrainer


__all__ = [
    "DataMixture",
    "DataSource",
    "FlamingoDataCollator",
    "FlamingoTrainer",
    "FlamingoTrainingArguments",
    "GateHistoryCallback",
    "GenerationEvalDataset",
    "ImageUseCallback",
    "ImageUseMeasurement",
    "ModelArguments",
    "Recipe",
    "TrainingInterrupted",
    "TrainingMemory",
    "add_image_features",
    "build_model",
    "check_data",
    "check_packing",
    "check_recipe",
    "estimate_training_memory",
    "fill_recipe",
    "full_state_dict",
    "get_last_checkpoint",
    "load_trainable",
    "lora_config",
    "make_recipe_parser",
    "measure_image_use",
    "parameter_groups",
    "parse_recipe",
    "read_recipe",
    "run_recipe",
    "shard_model",
]
