# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Update the tables of benchmarks/README.md from the figures in benchmarks/results.

    python benchmarks/report.py [--device cuda]

With a device, print the tables of its figures instead: README.md has those of a CPU.

A table is everything between `<!-- table NAME -->` and `<!-- end -->`. NAME is a file of the results without `.json`.
"""

import argparse
import json
import re
from pathlib import Path

import devices
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
    """Update all tables in place, or print those of a device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device",
        type=devices.parse_device_name,
        help="print the tables of this device, such as cuda, and change no file",
    )
    device = parser.parse_args().device
    if device is not None:
        names = sorted(path.stem for path in RESULTS.glob(f"*.{device}.json"))
        if not names:
            raise SystemExit(
                f"There are no figures of the device {device} in {RESULTS.name}. Make them first: "
                f"`python benchmarks/run_all.py --device {device}`."
            )
        for name in names:
            print(f"## {name}\n\n{table(name)}\n")
        return
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
