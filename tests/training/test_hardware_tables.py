# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The tables of the hardware page are what its script computes: some of their rows, because all take minutes."""

import importlib.util
from itertools import islice
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    """Import the script that writes the tables."""
    spec = importlib.util.spec_from_file_location("hardware_tables", ROOT / "docs" / "figures" / "hardware_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("table", "number"), [("parameters", None), ("inference", None), ("savings", 2)])
def test_rows_are_current(script, table, number):
    text = script.PAGE.read_text(encoding="utf-8")
    make_rows, columns = script.TABLES[table]
    for cells in islice(make_rows("1b"), number):
        assert script.line(cells) in text, "Write the page again: python docs/figures/hardware_tables.py"
        assert len(cells) == len(columns)


def test_the_page_has_every_shape_in_every_table(script):
    text = script.PAGE.read_text(encoding="utf-8")
    for table, (_, columns) in script.TABLES.items():
        rows = text.split(f"<!-- begin {table} -->\n")[1].split(f"<!-- end {table} -->")[0].splitlines()
        assert rows[0] == script.line(columns)
        assert {row.split(" | ")[0].strip("| ") for row in rows[2:]} == set(script.SIZES), table


def test_rows_of_a_shape_are_replaced_and_in_order(script):
    text = "a\n<!-- begin batches -->\n<!-- end batches -->\nb"
    for shape, row in (("9b", "| 9b | x |"), ("1b", "| 1b | y |"), ("9b", "| 9b | z |")):
        text = script.update(text, "batches", shape, [row])
    assert text.splitlines()[4:] == ["| 1b | y |", "| 9b | z |", "<!-- end batches -->", "b"]
