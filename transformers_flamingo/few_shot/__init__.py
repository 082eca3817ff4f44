# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Answers to queries after a few examples: choosing the examples, building the prompts, and computing many of them quickly."""
