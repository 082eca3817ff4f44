# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run all benchmarks that need no other repository, one after the other, and save their figures.

    python benchmarks/run_all.py [--device cuda] [--workload large] [--only decode.py compiled.py] [--dry-run]

On a GPU the workload is "large" unless another is given. Each script is a process of its own, so memory that one of them leaves is
free for the next. A script that fails does not stop the others; its error is printed, and the exit status is 1 at the end. The
figures are in `benchmarks/results`, and `python benchmarks/report.py --device cuda` prints them as tables.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import devices


# What the scripts measure on a device. Those that read files or start processes (`inputs.py`, `loading.py`) measure the CPU.
SCRIPTS = (
    "decode.py",
    "images_in_prompt.py",
    "beam_search.py",
    "ranking.py",
    "few_shot_cost.py",
    "training_step.py",
    "packing.py",
    "compiled.py",
)


def commands(device: str, workload: str, only: list[str] | None = None) -> list[list[str]]:
    """Return the command of each script."""
    folder = Path(__file__).parent
    options = ["--device", device, "--workload", workload, "--save"]
    return [[sys.executable, str(folder / name), *options] for name in (only or SCRIPTS)]


def main() -> None:
    """Run the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", type=devices.parse_device_name, default="cuda", help="device of torch (default: %(default)s)"
    )
    parser.add_argument("--workload", choices=("small", "large"), help="default: large on a GPU, small on a CPU")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, help="scripts to run (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    arguments = parser.parse_args()
    if not arguments.dry_run:
        try:
            devices.parse_device(arguments.device)
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --device: {error}")
    workload = arguments.workload or ("large" if arguments.device.startswith("cuda") else "small")
    failed = []
    for command in commands(arguments.device, workload, arguments.only):
        print("$", *command, flush=True)
        if arguments.dry_run:
            continue
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(Path(command[1]).name)
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}. The errors are printed above.")


if __name__ == "__main__":
    main()
