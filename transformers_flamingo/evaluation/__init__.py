# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Few-shot evaluation as in the paper and OpenFlamingo."""
