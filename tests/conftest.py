# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What holds in each process of the tests, set before torch and transformers are imported: no network, no shared cache, one thread."""

import gc
import os
import shutil
import tempfile


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Datasets and code that a test caches are neither seen by the tests of another process nor left in the cache of the user.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="flamingo-tests-")
# The workers of pytest-xdist share the cores, and each of their processes would start as many threads as there are cores. So it is
# without workers too: a test computes the same to the last bit when it runs alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings


CACHE = os.environ["HF_HOME"]

# No test asserts a time, and a busy machine may take any time for an example.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Keep what is imported out of garbage collections, of which each training makes one: a third of the time of a tiny one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Remove the cache of this process."""
    shutil.rmtree(CACHE, ignore_errors=True)
