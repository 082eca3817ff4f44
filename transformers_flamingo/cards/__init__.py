# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Model cards and plots: every number in them comes from the record of a run."""
