# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Helpers of several folders: loading, weight files, literal text, plugins, versions, and errors and logs without secrets."""
