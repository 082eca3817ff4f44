# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The paper's ablations over the miniature world, each trained for the same steps: a table of what each costs.

    flamingo miniature-data miniature-data --num-pictures 2000 --num-videos 200
    python benchmarks/ablations.py --data miniature-data --steps 250 --output runs/ablations --table docs/ablations.md

A run that is there already is not repeated. One seed, few steps, a tiny world: a table of the switches at work, and no
repetition of the paper's.
"""

import argparse
import json
from pathlib import Path

from transformers_flamingo.training import read_recipe, run_recipe


ABLATIONS = Path(__file__).parent / "ablations"
COLUMNS = {
    "captions: loss": "eval_captions_loss",
    "blind": "eval_captions_blind_loss",
    "captions: word F1": "eval_captions_word_f1",
    "questions: exact match": "eval_questions_exact_match",
    "blind ": "eval_questions_blind_exact_match",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of `flamingo miniature-data`")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--output", required=True)
    parser.add_argument("--table", required=True, help="Markdown file to write")
    arguments = parser.parse_args()
    names = ["miniature", *sorted(map(str, ABLATIONS.glob("*.yaml")))]
    rows = []
    for name in names:
        directory = Path(arguments.output) / f"{Path(name).stem}-{arguments.steps}"
        metrics = directory / "report" / "metrics.json"
        if not metrics.is_file():
            options = {"max_steps": arguments.steps, "data_root": arguments.data, "output_dir": directory}
            options |= {"eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True}
            run_recipe(read_recipe(name, [f"--{key}={value}" for key, value in options.items()]))
        scores = json.loads(metrics.read_text())["scores"]
        rows.append([Path(name).stem, *(f"{scores[key]:.3f}" for key in COLUMNS.values())])
        print(rows[-1], flush=True)
    header = ["recipe", *COLUMNS]
    lines = [
        "# The paper's ablations over the miniature world",
        "",
        f"{arguments.steps} steps each, one seed, 200 held-out rows. Written by `benchmarks/ablations.py`: the switches at work, in a "
        "tiny world after few steps, and no repetition of the paper's table 3. Of three layers, every second is the one in the middle.",
        "",
        *(f"| {' | '.join(map(str.strip, row))} |" for row in (header, ["---"] * len(header), *rows)),
    ]
    Path(arguments.table).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
