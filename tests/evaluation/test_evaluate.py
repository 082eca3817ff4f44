# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the protocol over a whole task: the written files, independence of batches and processes, and resuming after a kill."""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from processes import launch
from words import RankedWords, Words, draw_image, evaluate_together, example, run_words

from transformers_flamingo.data import VideoSegment
from transformers_flamingo.evaluation.checks import fingerprint_examples
from transformers_flamingo.evaluation.config import EvaluationConfig
from transformers_flamingo.evaluation.evaluate import evaluate
from transformers_flamingo.evaluation.metrics import vqa_accuracy
from transformers_flamingo.evaluation.report import card_scores, describe_queries
from transformers_flamingo.few_shot import engine as engine_module
from transformers_flamingo.few_shot.demonstrations import Demonstrations
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import Example
from transformers_flamingo.few_shot.retrieval import ImageEmbedder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("task", [Words(), RankedWords()], ids=lambda task: task.name)
def test_what_is_written(tmp_path, task):
    summary = run_words(tmp_path, task)
    assert json.loads((tmp_path / "results.json").read_text()) == summary
    assert [entry["shots"] for entry in summary["results"]] == [0, 2]
    names = {f"shots-{k}_seed-{s}{blind}.jsonl" for k in (0, 2) for s in (0, 1) for blind in ("", "_blind")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"results.json", "settings.json", ".lock"}
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


def test_a_killed_run_resumes_where_it_stopped(tmp_path, monkeypatch):
    whole = run_words(tmp_path / "whole")
    asked: list[str] = []
    stop_after = 5

    class Stopping(Words):
        def postprocess(self, text):
            asked.append(text)
            if len(asked) > stop_after:
                raise KeyboardInterrupt
            return super().postprocess(text)

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


def test_runs_of_one_seed_share_what_their_prompts_have_in_common(tmp_path, monkeypatch):
    calls = []
    generate = FewShotEngine.generate

    def watch(self, prompts, settings):
        calls.append([len(prompt.prefix_media) for prompt in prompts])
        return generate(self, prompts, settings)

    monkeypatch.setattr(FewShotEngine, "generate", watch)
    run_words(tmp_path, shots=(4, 0, 2), seeds=(0,), blind=False, batch_size=2)
    assert calls == [[0] * 7, [2, 4] * 7]
    two, four = (lines(tmp_path / f"shots-{k}_seed-0.jsonl") for k in (2, 4))
    assert all(a["shots"] == b["shots"][:2] for a, b in zip(two, four, strict=True))
    # Some predictions of one of the runs are missing
    kept = (tmp_path / "shots-4_seed-0.jsonl").read_bytes()
    (tmp_path / "shots-4_seed-0.jsonl").write_bytes(b"".join(kept.splitlines(keepends=True)[:3]))
    calls.clear()
    run_words(tmp_path, shots=(4, 0, 2), seeds=(0,), blind=False, batch_size=2)
    assert calls == [[4] * 4]
    assert (tmp_path / "shots-4_seed-0.jsonl").read_bytes() == kept


def test_a_killed_group_of_runs_resumes_where_it_stopped(tmp_path):
    options = {"shots": (1, 2), "seeds": (0,), "blind": False, "batch_size": 1}
    run_words(tmp_path / "whole", **options)
    count = 0

    class Stopping(Words):
        def postprocess(self, text):
            nonlocal count
            count += 1
            if count > 11:  # the second step of four queries in two runs
                raise KeyboardInterrupt
            return super().postprocess(text)

        def __repr__(self):
            return repr(Words())

    with pytest.raises(KeyboardInterrupt):
        run_words(tmp_path / "killed", Stopping(), **options)
    assert [len(lines(part)) for part in sorted((tmp_path / "killed").glob("*.part-0.jsonl"))] == [6, 5]
    count = 0
    run_words(tmp_path / "killed", Stopping(), **options)
    assert count == 3
    for path in (tmp_path / "whole").glob("*.jsonl"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


def test_queries_that_share_a_draw_are_computed_together(tmp_path):
    summary = run_words(tmp_path / "shared", queries_per_draw=3, shots=(2,), seeds=(0,), blind=False)
    shown = [tuple(record["shots"]) for record in lines(tmp_path / "shared" / "shots-2_seed-0.jsonl")]
    assert len(set(shown)) == 3
    assert summary["protocol"]["queries_per_draw"] == 3
    assert "random from 10 for 3 queries each" in card_scores(summary)[0]["demonstrations"]
    with pytest.raises(ValueError, match="predictions with other queries_per_draw"):
        run_words(tmp_path / "shared", shots=(2,), seeds=(0,), blind=False)


def test_questions_about_one_file_share_its_encoding_and_their_demonstrations(tmp_path, monkeypatch):
    for number in range(3):
        draw_image(number).save(tmp_path / f"{number}.png")
    encoded = []
    encode = engine_module.encode_images

    def watch(model, processor, images, **kwargs):
        images = list(images)
        encoded.append(len(images))
        return encode(model, processor, images, **kwargs)

    monkeypatch.setattr(engine_module, "encode_images", watch)

    class Questions(RankedWords):
        def queries(self):
            return [
                replace(query, media=[str(tmp_path / f"{i % 3}.png")]) for i, query in enumerate(super().queries())
            ]

        def __repr__(self):
            return "questions"

    options = {"shots": (2,), "seeds": (0,), "blind": False, "support_size": None}
    for draw_by, number in (("image", 3), ("query", 7)):
        encoded.clear()
        run_words(tmp_path / draw_by, Questions(num_support=2), draw_by=draw_by, **options)
        assert sum(encoded) == 3 + 2
        run_words(tmp_path / f"{draw_by} of 12", Questions(), draw_by=draw_by, **options)
        records = lines(tmp_path / f"{draw_by} of 12" / "shots-2_seed-0.jsonl")
        assert len({tuple(record["shots"]) for record in records}) == number
        assert [record["id"] for record in records] == [str(i) for i in range(7)]


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
    with pytest.raises(ValueError, match="has predictions with other selection: saved {'selection': 'random'}"):
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


def test_predictions_of_another_model_or_other_data_are_not_reused(tmp_path):
    run_words(tmp_path, shots=(0,), seeds=(0,))
    with pytest.raises(ValueError, match="other weights"):
        evaluate(
            tiny_flamingo(gates=0.6),
            tiny_processor(),
            Words(),
            tmp_path,
            EvaluationConfig(shots=(0,), support_size=10),
        )

    class Edited(Words):
        def queries(self):
            return [replace(query, references=5) for query in super().queries()]

        def __repr__(self):
            return repr(Words())

    with pytest.raises(ValueError, match="other examples"):
        run_words(tmp_path, Edited(), shots=(0,), seeds=(0,))


@pytest.mark.parametrize("kind", ["path", "frames", "video", "bytes"])
def test_an_image_that_was_replaced_is_other_data(kind, tmp_path):
    file = tmp_path / "image.png"

    def fingerprint(number: int) -> str:
        draw_image(number).save(file)
        os.utime(file, ns=(number, number))
        media = {
            "path": str(file),
            "frames": [str(file), str(file)],
            "video": VideoSegment(str(file)),
            "bytes": {"bytes": file.read_bytes(), "path": "image.png"},
        }[kind]
        return fingerprint_examples([Example(id="0", media=[media], prompt="w4")])

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


def test_candidates_that_examples_share_are_read_once():
    class Counting(list):
        reads = 0

        def __repr__(self):
            Counting.reads += 1
            return super().__repr__()

    names = Counting(["w4", "w5"])
    examples = [Example(str(number), [], "w4", candidates=names) for number in range(50)]
    first = fingerprint_examples(examples)
    assert Counting.reads == 1
    # Equal lists are equal, whether they are shared or not, and others are others
    assert first == fingerprint_examples([replace(e, candidates=["w4", "w5"]) for e in examples])
    assert first != fingerprint_examples([*examples[:-1], replace(examples[-1], candidates=["w5", "w4"])])


def test_a_folder_has_one_name(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Named(Words):
        data: str = "."

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("x")
    names = ("x", "./x", "x/", str(tmp_path / "x"), "link")
    assert len({Named(data=name).describe() for name in names}) == 1
    assert Named(data="x").describe() != Named(data="y").describe()
    assert "hub.test//x'" in Named(data="hf://hub.test//x").describe()
    run_words(tmp_path / "out", Named(data="x"), shots=(0,), seeds=(0,), num_queries=2, blind=False)
    run_words(tmp_path / "out", Named(data="./x"), shots=(0,), seeds=(0,), num_queries=2, blind=False)


def test_a_marker_in_the_data_is_found_before_anything_is_computed(tmp_path):
    class Marked(Words):
        def support(self):
            return [replace(shown, answer="w<image>") for shown in super().support()]

    with pytest.raises(ValueError, match="words, example '100': the text 'w<image>' contains '<image>'"):
        run_words(tmp_path / "out", Marked())
    assert not (tmp_path / "out").exists()


def test_images_change_answers_and_blind_ones_are_blind(tmp_path):
    run_words(tmp_path, RankedWords(), shots=(2,), seeds=(0,))
    seen, blind = (lines(tmp_path / f"shots-2_seed-0{suffix}.jsonl") for suffix in ("", "_blind"))
    assert all(a["likelihoods"] != b["likelihoods"] for a, b in zip(seen, blind, strict=True))

    class Recolored(RankedWords):
        def queries(self):
            return [replace(query, media=[draw_image(int(query.id) + 50)]) for query in super().queries()]

        def __repr__(self):
            return "recolored"

    run_words(tmp_path / "other", Recolored(), shots=(2,), seeds=(0,))
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
    assert summary["protocol"]["balanced"] is (selection == "fixed")


def test_the_nearest_images_are_encoded_once_and_the_same_for_every_seed(tmp_path, capsys):
    options = {
        "selection": "rices",
        "shots": (2,),
        "support_size": -1,
        "blind": False,
        "rices_index": str(tmp_path / "index"),
    }
    summary = run_words(tmp_path / "a", RankedWords(), **options)
    assert summary["protocol"]["seeds"] == [0]
    assert not (tmp_path / "a" / "shots-2_seed-1.jsonl").exists()
    assert (summary["protocol"]["support_size"], summary["protocol"]["balanced"]) == (12, False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()}
    assert len(files) == 2  # of the support and of the queries
    assert "ranked-words: of 12 images to choose from, 12 are embedded first.\n" in capsys.readouterr().err
    again = run_words(tmp_path / "b", RankedWords(), **options)
    assert "ranked-words: of 12 images to choose from, 0 are embedded first.\n" in capsys.readouterr().err
    assert again["results"] == summary["results"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()} == files
    # A random pool, or several orders, are other ones for each seed
    assert run_words(tmp_path / "c", RankedWords(), **{**options, "support_size": 10})["protocol"]["seeds"] == [0, 1]
    assert run_words(tmp_path / "d", RankedWords(), **options, num_orders=2)["protocol"]["seeds"] == [0, 1]
    assert run_words(tmp_path / "e", **options, num_orders=2)["protocol"]["seeds"] == [0]


def test_what_a_run_will_cost_is_said_first_and_its_time_after_the_first_batch(tmp_path, capsys):
    run_words(tmp_path, shots=(0, 2), seeds=(0, 1), batch_size=1)
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("words: ")]
    assert lines[0].startswith(
        "words: 7 queries x 2 (shots 0, 2) x 2 (seeds 0, 1) x 2 (with images, blind) = 56 prompts, each about 17 to 19 tokens to "
        "compute; about 27 images to encode."
    )
    assert re.fullmatch(r"words: about \d+ s for the rest, judged by the first 4 prompts\.", lines[1])
    (tmp_path / "shots-2_seed-1.jsonl").unlink()
    run_words(tmp_path, shots=(0, 2), seeds=(0, 1))
    assert "images to encode. 49 of the prompts are answered already." in capsys.readouterr().err


def test_a_limit_above_what_there_is_is_none(tmp_path):
    options = {"shots": (1,), "seeds": (0,), "blind": False}
    first = run_words(tmp_path, num_queries=7, support_size=12, num_orders=6, **options)
    for values in ({"num_queries": -1, "support_size": -1}, {"num_queries": 1000, "support_size": 2048}):
        assert run_words(tmp_path, **values, **options)["results"] == first["results"]
    with pytest.raises(ValueError, match="other num_queries, queries, examples"):
        run_words(tmp_path, num_queries=6, support_size=-1, **options)


def test_fewer_queries(tmp_path):
    summary = run_words(tmp_path, num_queries=3, shots=(1,))
    assert summary["num_queries"] == 3
    chosen = [[record["id"] for record in lines(tmp_path / f"shots-1_seed-{seed}.jsonl")] for seed in (0, 1)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("place", ["prompt", "answer", "candidates"])
@pytest.mark.parametrize("token", ["<image>", "<|endofchunk|>", "<pad>", "<eos>", "<bos>"])
def test_no_text_of_the_data_may_have_a_special_token(tmp_path, place, token):
    text = f"w5 {token} w6"

    class Marked(RankedWords):
        def queries(self):
            marked = {place: ["w10 w20", text] if place == "candidates" else text, "references": 0}
            return [replace(query, **marked) for query in super().queries()]

    with pytest.raises(ValueError, match=f"ranked-words, example '0': the text .* contains '{re.escape(token)}'"):
        run_words(tmp_path / "out", Marked())


def test_a_subset_says_so(tmp_path):
    whole, part = run_words(tmp_path / "whole", shots=(0,)), run_words(tmp_path / "part", shots=(0,), num_queries=3)
    assert (whole["num_queries"], whole["num_available"], whole["is_subset"]) == (7, 7, False)
    assert (part["num_queries"], part["num_available"], part["is_subset"]) == (3, 7, True)
    assert describe_queries(whole) == "words"
    assert describe_queries(part) == "words, subset of 3 of 7 queries"
    assert json.loads((tmp_path / "part" / "results.json").read_text())["is_subset"] is True

    class Benchmark(Words):
        split_sizes = {"test": 5000}

    class Smaller(Words):
        split_sizes = {"test": 5}

    custom = run_words(tmp_path / "custom", Benchmark(), shots=(0,))  # custom data under the name of a benchmark
    assert (custom["split"], custom["num_available"], custom["is_subset"]) == ("test", 5000, True)
    assert describe_queries(custom) == "words, subset of 7 of 5,000 queries"
    assert (
        describe_queries(run_words(tmp_path / "more", Smaller(), shots=(0,)))
        == "words, other data: 7 queries instead of 5"
    )


def test_the_protocol_in_the_results_is_what_had_an_effect(tmp_path):
    generated = run_words(tmp_path / "a", shots=(0,), seeds=(0,), num_orders=2, support_size=-1, blind=False)
    assert (generated["protocol"]["num_orders"], generated["protocol"]["support_size"]) == (1, 12)
    ranked = run_words(
        tmp_path / "b", RankedWords(), shots=(0,), seeds=(0,), num_orders=2, support_size=5, blind=False
    )
    assert (ranked["protocol"]["num_orders"], ranked["protocol"]["support_size"]) == (2, 5)


def test_a_second_evaluation_into_one_folder_is_refused(tmp_path):
    refused = []

    class Nested(Words):
        def postprocess(self, text):
            if not refused:
                with pytest.raises(
                    BlockingIOError, match="Another evaluation is writing into .*accelerate launch"
                ) as error:
                    run_words(tmp_path, shots=(0,))
                refused.append(error)
            return super().postprocess(text)

        def __repr__(self):
            return repr(Words())

    run_words(tmp_path, Nested(), shots=(0,))
    assert refused
    run_words(tmp_path, shots=(0,))  # the lock is free again


def test_the_lock_of_a_killed_evaluation_is_free(tmp_path):
    assert launch(evaluate_together, str(tmp_path), stop_after=3, batch_size=1, world_size=2)[0] == -9
    run_words(tmp_path, batch_size=1)


def other_results(**values) -> str:
    entry = {"shots": 0, "mean": 1.0, "std": 0.0, "scores": {"0": {"accuracy": 1.0}}, **values}
    protocol = {"shots": [0], "seeds": [0]}
    facts = {"task": "words", "metric": "accuracy", "weights": "x", "protocol": protocol}
    return json.dumps({**facts, "results": [entry]})


DAMAGED_RESULTS = [
    *("", "{", '{"task": "words"}', "[]", "null", "\x00" * 50, "[" * 100_000),
    *(other_results(shots="0"), other_results(mean=None), other_results(std="0"), other_results(scores={"0": {}})),
    other_results(blind_mean=1.0),
]


@pytest.mark.parametrize("content", DAMAGED_RESULTS, ids=lambda content: content[:200])
def test_damaged_results_are_set_aside_and_computed_again(tmp_path, content):
    first = run_words(tmp_path, shots=(0,), blind=False)
    (tmp_path / "results.json").write_text(content)
    time = (tmp_path / "shots-0_seed-0.jsonl").stat().st_mtime_ns
    assert run_words(tmp_path, shots=(0,), blind=False) == first
    assert (tmp_path / "shots-0_seed-0.jsonl").stat().st_mtime_ns == time
    assert (tmp_path / "results.json.damaged").read_text() == content


def test_damaged_predictions_are_answered_again(tmp_path, caplog):
    run_words(tmp_path, shots=(0,), seeds=(0,), blind=False)
    path = tmp_path / "shots-0_seed-0.jsonl"
    whole = path.read_bytes()
    kept = whole.split(b"\n")
    kept[2] = kept[2][:10]
    kept[4] = b'{"id": "4"}'
    path.write_bytes(b"\n".join(kept).replace(b"w4 w5", b"w4 \xff", 1))
    run_words(tmp_path, shots=(0,), seeds=(0,), blind=False)
    assert path.read_bytes() == whole
    assert "3 damaged lines" in caplog.text


@pytest.mark.parametrize("change", [{"text": None}, {"text": 3}, {"likelihoods": "x"}, {"likelihoods": [None]}])
def test_a_prediction_of_another_type_is_answered_again(tmp_path, change):
    run_words(tmp_path, shots=(0,), seeds=(0,), blind=False)
    path = tmp_path / "shots-0_seed-0.jsonl"
    whole = path.read_bytes()
    first, rest = whole.split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(first), **change}).encode() + b"\n" + rest)
    run_words(tmp_path, shots=(0,), seeds=(0,), blind=False)
    assert path.read_bytes() == whole


def test_damaged_settings_are_named_before_anything_is_computed(tmp_path):
    run_words(tmp_path, shots=(0,), blind=False)
    for content in ("{", "[]", "[" * 100_000):
        (tmp_path / "settings.json").write_text(content)
        with pytest.raises(ValueError, match=r"settings\.json' is damaged"):
            run_words(tmp_path, shots=(0,), blind=False)


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run_words(tmp_path / "file" / "out")


def test_a_prompt_that_is_too_long_is_found_before_an_image_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(FewShotEngine, "encode", lambda *_: pytest.fail("an image was encoded"))

    class Long(Words):
        def queries(self):
            return [replace(query, prompt="w5 " * (13 * number)) for number, query in enumerate(super().queries())]

    with pytest.raises(ValueError) as error:
        run_words(tmp_path / "out", Long(), shots=(0, 2, 10))
    # 79 of the query, and 5 of each shot; the last of 3 new tokens is not fed
    message = "words: with 10 shots (seed 0) the prompt of query '6' has 129 tokens and its answer may add 2"
    assert str(error.value).startswith(
        message + ", but the language model has 128 positions. Use fewer shots (these fit: 0, 2)"
    )
    assert not (tmp_path / "out").exists()


def test_settings_are_compared_before_images_are(tmp_path, monkeypatch):
    """What a folder is refused for is known without an image, and so is what is too long whichever are the nearest."""
    run_words(tmp_path, shots=(1,), seeds=(0,), blind=False)
    monkeypatch.setattr(ImageEmbedder, "__call__", lambda *_: pytest.fail("an image was embedded"))
    with pytest.raises(ValueError, match="has predictions with other selection"):
        run_words(tmp_path, shots=(1,), seeds=(0,), blind=False, selection="rices")

    class Long(Words):
        def queries(self):
            return [replace(query, prompt="w5 " * 130) for query in super().queries()]

    with pytest.raises(ValueError, match="has 139 tokens .*none of those asked for fits"):
        run_words(tmp_path / "out", Long(), shots=(0,), selection="rices")


def test_what_just_fits_is_evaluated(tmp_path):
    class Long(Words):
        def queries(self):
            return [replace(query, prompt="w5 " * 75) for query in super().queries()]  # 76 + 50 + 2

    run_words(tmp_path, Long(), shots=(10,), seeds=(0,), num_queries=1, blind=False)

    class Longer(Words):
        def queries(self):
            return [replace(query, prompt="w5 " * 76) for query in super().queries()]

    with pytest.raises(ValueError, match="none of those asked for fits"):
        run_words(tmp_path / "longer", Longer(), shots=(10,), seeds=(0,), blind=False)


def test_rotary_positions_have_no_limit_but_a_warning(tmp_path, caplog):
    class Long(Words):
        def queries(self):
            return [replace(query, prompt="w5 " * 76) for query in super().queries()]

    model, protocol = (
        tiny_flamingo("llama"),
        EvaluationConfig(shots=(10,), seeds=(0,), support_size=10, num_queries=1, blind=False),
    )
    evaluate(model, tiny_processor(), Long(), tmp_path, protocol)
    assert "but the language model has 128 positions" in caplog.text


@pytest.mark.parametrize("selection", ["random", "fixed", "rices"])
def test_too_long_candidates_count_and_demonstrations_are_those_of_each_query(tmp_path, selection):
    """One demonstration of the pool is too long: whether it is shown decides."""

    class Ranked(RankedWords):
        def queries(self):
            return [replace(query, candidates=["w10 w11 w12", "w10"], references=0) for query in super().queries()]

        def support(self):
            first, *rest = super().support()
            return [replace(first, answer="w5 " * 130), *rest]

    options = {"selection": selection, "seeds": (0,), "support_size": -1, "blind": False}
    with pytest.raises(ValueError, match="with 12 shots .* and the longest candidate adds 2"):
        run_words(tmp_path / "all", Ranked(), shots=(12,), **options)
    if any("100" in shots for shots in _first_shots(Ranked(), selection)):
        with pytest.raises(ValueError, match="with 1 shots"):
            run_words(tmp_path / "one", Ranked(), shots=(1,), **options)
    else:
        assert run_words(tmp_path / "one", Ranked(), shots=(1,), **options)["num_queries"] == 7


def _first_shots(task, selection) -> list[list[str]]:
    embed = ImageEmbedder(tiny_flamingo(gates=0.7), tiny_processor()) if selection == "rices" else None
    balanced = selection != "rices"
    pool = Demonstrations(
        task.support(), selection=selection, support_size=None, seed=0, balanced=balanced, embed=embed
    )
    return [[shown.id for shown in pool.choose(query, 1)] for query in task.queries()]


@pytest.mark.parametrize("task", [Words(), RankedWords()], ids=lambda task: task.name)
def test_a_model_that_is_not_a_number_has_no_score(tmp_path, task):
    model = tiny_flamingo(gates=0.7)
    with torch.no_grad():
        model.language_model.lm_head.weight[20] = float("nan")
    with pytest.raises(ValueError, match=r"weights in 'language_model.* are not all finite"):
        evaluate(model, tiny_processor(), task, tmp_path / "out", EvaluationConfig(shots=(0,), support_size=10))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", [Words(), RankedWords()], ids=lambda task: task.name)
def test_logits_that_are_not_numbers_have_no_score(tmp_path, task):
    model = tiny_flamingo(gates=0.7)
    model.language_model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(ValueError, match="gives NaN or infinite likelihoods in float32"):
        evaluate(model, tiny_processor(), task, tmp_path / "out", EvaluationConfig(shots=(0,), support_size=10))


def test_scores_that_are_undefined_are_refused_before_anything_is_computed(tmp_path):
    class Undefined(Words):
        def score_each(self, predictions):
            return None

        def score(self, predictions):
            raise ValueError("ROC-AUC needs both classes")

    with pytest.raises(ValueError, match="needs both classes"):
        run_words(tmp_path / "out", Undefined())

    class Unanswered(Words):
        def queries(self):
            return [replace(query, references=["yes"]) for query in super().queries()]

        def score_each(self, predictions):
            return [vqa_accuracy(p.text, p.example.references) for p in predictions]

    with pytest.raises(ValueError, match="words, query '0' cannot be scored: VQA accuracy .* at least 4 answers"):
        run_words(tmp_path / "out", Unanswered())

    class NotANumber(Words):
        def score_each(self, predictions):
            return [float("nan") for _ in predictions]

    with pytest.raises(ValueError, match=r"the scores \{'accuracy': nan\} are not finite numbers"):
        run_words(tmp_path / "nan", NotANumber())
    with pytest.raises(ValueError, match="words has no queries"):
        run_words(tmp_path / "out", Words(num_queries=0))
    with pytest.raises(ValueError, match="no predictions to score"):
        Words().score([])


def test_ids_that_are_there_twice_are_refused(tmp_path):
    class Queries(Words):
        def queries(self):
            return [*super().queries(), example(3)]

    with pytest.raises(ValueError, match="8 queries, of which 1 share an id with others, such as '3'"):
        run_words(tmp_path, Queries())

    class Support(Words):
        def support(self):
            return [*super().support(), example(104)]

    with pytest.raises(ValueError, match="13 examples to show, of which 1 share an id with others, such as '104'"):
        run_words(tmp_path, Support())


def test_no_secret_in_what_is_written(tmp_path):
    class Secret(Words):
        def __repr__(self):
            return "Words(data='https://me:pa55word@hub.test/data?token=abc12345')"

    summary = evaluate(
        tiny_flamingo(gates=0.7),
        tiny_processor(),
        Secret(),
        tmp_path,
        EvaluationConfig(shots=(0,), seeds=(0,), support_size=10, blind=False),
        model_name="hf_abcdefgh12345678",
    )
    written = "".join(path.read_text() for path in tmp_path.iterdir()) + json.dumps(summary)
    assert "hub.test/data" in written
    assert not any(secret in written for secret in ("pa55word", "abc12345", "hf_abcdefgh"))


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="11 demonstrations are asked for, and words has 10"):
        run_words(tmp_path, shots=(11,))

    class Missing(Words):
        def queries(self):
            return [replace(query, media=[str(tmp_path / f"{query.id}.png")]) for query in super().queries()]

    with pytest.raises(FileNotFoundError, match="words: 7 images or videos cannot be found, such as .*0.png"):
        run_words(tmp_path / "missing", Missing())
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("item", ["/dev/zero", {"bytes": None, "path": "/dev/zero"}, "http://127.0.0.1:9/x.png", "."])
def test_what_no_row_may_name_is_found_before_anything_is_computed(tmp_path, item):
    class Named(Words):
        def queries(self):
            first, *others = super().queries()
            return [*others, replace(first, media=[item])]

    with pytest.raises(ValueError, match=r"words, example '0': .* cannot be read .*Nothing was computed"):
        run_words(tmp_path / "out", Named())
    assert not (tmp_path / "out").exists()
