# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""No test reaches the network: the Hub is off before transformers is imported."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings


# No test asserts a time, and a busy machine may take any time for an example.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
