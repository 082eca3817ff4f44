# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The protocol over a whole task: what is written, what it does not depend on, and going on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factory import tiny_flamingo, tiny_processor
from processes import launch
from words import RankedWords, Words, evaluate_together, example, picture, run_words

from transformers_flamingo.evaluation.evaluate import Protocol, evaluate


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("task", [Words(), RankedWords()], ids=lambda task: task.name)
def test_what_is_written(tmp_path, task):
    summary = run_words(tmp_path, task)
    assert json.loads((tmp_path / "results.json").read_text()) == summary
    assert [entry["shots"] for entry in summary["results"]] == [0, 2]
    names = {f"shots-{k}_seed-{s}{blind}.jsonl" for k in (0, 2) for s in (0, 1) for blind in ("", "_blind")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"results.json", "settings.json"}
    for entry in summary["results"]:
        for condition, suffix in (("", ""), ("blind_", "_blind")):
            values = []
            for seed in (0, 1):
                records = lines(tmp_path / f"shots-{entry['shots']}_seed-{seed}{suffix}.jsonl")
                assert [record["id"] for record in records] == [str(i) for i in range(7)]
                values.append(100 * np.mean([record["score"] for record in records]))
                assert entry[f"{condition}scores"][str(seed)] == {"accuracy": pytest.approx(values[-1])}
            assert entry[f"{condition}mean"] == pytest.approx(np.mean(values))
            assert entry[f"{condition}std"] == pytest.approx(np.std(values))
    record = lines(tmp_path / "shots-2_seed-0.jsonl")[3]
    shown = [example(int(i)) for i in record["shots"]]
    separator = task.demonstration_separator
    assert (
        record["prompt"]
        == "".join(f"<image>{e.prompt}{e.answer}<|endofchunk|>{separator}" for e in shown) + "<image>w4 w5"
    )
    text_only = lines(tmp_path / "shots-0_seed-0.jsonl")[3]
    assert len(text_only["shots"]) == 2
    assert text_only["prompt"].count("<image>") == 1
    if task.generation is None:
        assert record["text"] == task.queries()[3].candidates[int(np.argmax(record["likelihoods"]))]
    blind = lines(tmp_path / "shots-2_seed-0_blind.jsonl")
    assert [r["prompt"] for r in blind] == [r["prompt"] for r in lines(tmp_path / "shots-2_seed-0.jsonl")]


@pytest.mark.parametrize("task", [Words(), RankedWords()], ids=lambda task: task.name)
def test_batches_do_not_change_predictions(tmp_path, task):
    run_words(tmp_path / "a", task, batch_size=1, blind=False)
    run_words(tmp_path / "b", task, batch_size=4, blind=False)
    for path in sorted((tmp_path / "a").glob("*.jsonl")):
        for one, other in zip(lines(path), lines(tmp_path / "b" / path.name), strict=True):
            assert one["likelihoods"] == pytest.approx(other["likelihoods"], abs=1e-4)
            assert {**one, "likelihoods": None} == {**other, "likelihoods": None}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = run_words(tmp_path / "whole")
    asked: list[str] = []
    stop_after = 5

    class Stopping(Words):
        def score_each(self, predictions):
            asked.extend(p.example.id for p in predictions)
            if len(asked) >= stop_after:
                raise KeyboardInterrupt
            return super().score_each(predictions)

        def __repr__(self):
            return repr(Words())

    with pytest.raises(KeyboardInterrupt):
        run_words(tmp_path / "killed", Stopping(), batch_size=1)
    (part,) = (tmp_path / "killed").glob("*.part-0.jsonl")
    kept = part.read_text().splitlines(keepends=True)
    assert len(kept) >= 4
    # Killed in the middle of a line
    part.write_text("".join(kept[:3]) + kept[3][:20])
    before = [json.loads(line) for line in kept[:3]]
    for record in before:
        record["text"] = "kept"
    part.write_text("".join(json.dumps(record) + "\n" for record in before) + kept[3][:20])
    run_words(tmp_path / "killed")
    records = lines(tmp_path / "killed" / "shots-0_seed-0.jsonl")
    assert [record["text"] for record in records][:3] == ["kept"] * 3
    expected = lines(tmp_path / "whole" / "shots-0_seed-0.jsonl")
    assert records[3:] == expected[3:]
    assert not list((tmp_path / "killed").glob("*.part-*"))
    assert lines(tmp_path / "killed" / "shots-2_seed-1.jsonl") == lines(tmp_path / "whole" / "shots-2_seed-1.jsonl")
    assert whole["results"][1] == run_words(tmp_path / "killed")["results"][1]


def test_several_processes_share_the_queries_and_predict_the_same(tmp_path):
    run_words(tmp_path / "one")
    options = {"batch_size": 1}
    codes = launch(evaluate_together, str(tmp_path / "two"), stop_after=6, world_size=2, **options)
    assert -9 in codes
    assert (tmp_path / "two" / "shots-0_seed-0.jsonl").is_file()
    assert not (tmp_path / "two" / "results.json").exists()
    assert launch(evaluate_together, str(tmp_path / "two"), world_size=2, **options) == [0, 0]
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    for name in names - {"results.json"}:
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text(), name
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one == two


def test_more_shots_are_added_to_what_is_there_and_other_settings_refused(tmp_path):
    first = run_words(tmp_path, shots=(0,), seeds=(0,))
    time = (tmp_path / "shots-0_seed-0.jsonl").stat().st_mtime_ns
    second = run_words(tmp_path, shots=(0, 1), seeds=(0,))
    assert second["results"][0] == first["results"][0]
    assert (tmp_path / "shots-0_seed-0.jsonl").stat().st_mtime_ns == time
    with pytest.raises(ValueError, match="has predictions with other selection: {'selection': 'random'} there"):
        run_words(tmp_path, selection="fixed")
    with pytest.raises(ValueError, match="other task"):
        run_words(tmp_path, Words(num_support=11))
    # What was measured before stays in the results
    third = run_words(tmp_path, shots=(1, 3), seeds=(1,))
    assert [entry["shots"] for entry in third["results"]] == [0, 1, 3]
    assert third["results"][0] == first["results"][0]
    both = third["results"][1]
    assert set(both["scores"]) == {"0", "1"}
    assert both["mean"] == pytest.approx(np.mean([score["accuracy"] for score in both["scores"].values()]))


def test_predictions_of_another_model_or_other_data_are_not_taken_for_ones_own(tmp_path):
    run_words(tmp_path, shots=(0,), seeds=(0,))
    with pytest.raises(ValueError, match="other weights"):
        evaluate(tiny_flamingo(gates=0.6), tiny_processor(), Words(), tmp_path, Protocol(shots=(0,), support_size=10))

    class Edited(Words):
        def queries(self):
            return [replace(query, references=5) for query in super().queries()]

        def __repr__(self):
            return repr(Words())

    with pytest.raises(ValueError, match="other examples"):
        run_words(tmp_path, Edited(), shots=(0,), seeds=(0,))


def test_a_marker_in_the_data_is_found_before_anything_is_computed(tmp_path):
    class Marked(Words):
        def support(self):
            return [replace(shown, answer="w<image>") for shown in super().support()]

    with pytest.raises(ValueError, match="words, example '100': the text 'w<image>' contains"):
        run_words(tmp_path / "out", Marked())
    assert not (tmp_path / "out").exists()


def test_images_change_answers_and_blind_ones_are_blind(tmp_path):
    run_words(tmp_path, RankedWords(), shots=(2,), seeds=(0,))
    seen, blind = (lines(tmp_path / f"shots-2_seed-0{suffix}.jsonl") for suffix in ("", "_blind"))
    assert all(a["likelihoods"] != b["likelihoods"] for a, b in zip(seen, blind, strict=True))

    class Recoloured(RankedWords):
        def queries(self):
            return [replace(query, media=[picture(int(query.id) + 50)]) for query in super().queries()]

        def __repr__(self):
            return "recoloured"

    run_words(tmp_path / "other", Recoloured(), shots=(2,), seeds=(0,))
    assert lines(tmp_path / "other" / "shots-2_seed-0_blind.jsonl") == blind
    other = lines(tmp_path / "other" / "shots-2_seed-0.jsonl")
    assert all(a["likelihoods"] != b["likelihoods"] for a, b in zip(seen, other, strict=True))


def test_prompt_ensembling_averages_over_orders(tmp_path):
    run_words(tmp_path / "one", RankedWords(), shots=(2,), seeds=(0,), blind=False)
    run_words(tmp_path / "two", RankedWords(), shots=(2,), seeds=(0,), blind=False, num_orders=2)
    one, two = (lines(tmp_path / name / "shots-2_seed-0.jsonl") for name in ("one", "two"))
    assert [record["shots"] for record in one] == [record["shots"] for record in two]
    assert all(a["likelihoods"] != b["likelihoods"] for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("selection", ["fixed", "rices"])
def test_other_selections(tmp_path, selection):
    summary = run_words(tmp_path, RankedWords(), selection=selection, shots=(3,), seeds=(0,))
    records = lines(tmp_path / "shots-3_seed-0.jsonl")
    assert len({tuple(record["shots"]) for record in records}) == 1 or selection == "rices"
    assert summary["protocol"]["balanced"] is True


def test_fewer_queries(tmp_path):
    summary = run_words(tmp_path, num_queries=3, shots=(1,))
    assert summary["num_queries"] == 3
    chosen = [[record["id"] for record in lines(tmp_path / f"shots-1_seed-{seed}.jsonl")] for seed in (0, 1)]
    assert chosen[0] == chosen[1]


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="`shots` is \\(\\)"):
        Protocol(shots=())
    with pytest.raises(ValueError, match="`num_orders` is 0"):
        Protocol(num_orders=0)
    with pytest.raises(ValueError, match="11 demonstrations are asked for, and words has 10"):
        run_words(tmp_path, shots=(11,))

    class Missing(Words):
        def queries(self):
            return [replace(query, media=[str(tmp_path / f"{query.id}.png")]) for query in super().queries()]

    with pytest.raises(FileNotFoundError, match="words: 7 images or videos are missing, such as .*0.png"):
        run_words(tmp_path / "missing", Missing())
    assert not (tmp_path / "missing").exists()
