# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The commands that this distribution adds to `flamingo`, one module each (protocol: `transformers_flamingo.utils.plugins`).

Modules here import only the standard library at their top: `flamingo --help` imports them all.
"""

MAX_SEED = 2**32 - 1  # the largest that numpy takes
