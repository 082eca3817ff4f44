# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Ignore unknown marks: those of transformers' test suite are registered in its conftest.py, which does not run here."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnknownMarkWarning")
