# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""No test reaches the network: the Hub is off before transformers is imported."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
