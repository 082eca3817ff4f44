# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The peak of what the allocator of the CPU did."""

import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any


# Otherwise the profiler prints a line whenever it starts and stops. It is read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

from torch.profiler import ProfilerActivity, profile


def allocator_peak(case: Callable[[], Any]) -> int:
    """Return the peak of the bytes that `case` allocates and has not freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        case()
    # One event for each allocation and each release
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
