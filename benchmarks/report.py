# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Update the tables of benchmarks/README.md from the figures in benchmarks/results.

    python benchmarks/report.py

A table is everything between `<!-- table NAME -->` and `<!-- end -->`. NAME is a file of the results without `.json`.
"""

import argparse
import json
import re
from pathlib import Path

from common import RESULTS, markdown


README = Path(__file__).parent / "README.md"


def table(name: str) -> str:
    """Format the results of a file as a line with their origin and a Markdown table."""
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    machine = f"{result['machine']}, {threads}, {result['clock']}"
    source = f"`{result['command']}`: {machine}, torch {result['torch']}, {result['date']}."
    return f"{source}\n\n{markdown(result['rows'])}"


def main() -> None:
    """Update all tables in place."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = README.read_text(encoding="utf-8")
    text = re.sub(
        r"<!-- table (\S+) -->\n.*?<!-- end -->",
        lambda found: f"<!-- table {found[1]} -->\n{table(found[1])}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
