# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo evaluate`."""

from transformers_flamingo_cli import main
from transformers_flamingo_miniature.demo import build_miniature_flamingo


def test_evaluate_writes_scores_plots_and_a_card(tmp_path, capsys):
    model, processor = build_miniature_flamingo()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    options = ["--shots", "0", "2", "--seeds", "0", "--num-queries", "4", "--option", "num_support=8", "num_queries=9"]
    arguments = ["--task", "miniature_shapes", "miniature_questions", *options, "--output-dir", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "model"), *arguments]) == 0
    assert "miniature_shapes, subset of 4 of 7 queries, 2 shots: accuracy " in capsys.readouterr().out
    for task in ("miniature_shapes", "miniature_questions"):
        assert {"results.json", "settings.json", "shots.png", "shots-2_seed-0_blind.jsonl"} <= {
            path.name for path in (tmp_path / "out" / task).iterdir()
        }
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| miniature\\_shapes, subset of 4 of 7 queries | accuracy, subset | test | 4 | 0 | random" in card
        and "2 shots" in card
    )
    assert main(["evaluate", str(tmp_path / "model"), "--task", "cocoa"]) == 1
    assert "no task 'cocoa'" in capsys.readouterr().err
