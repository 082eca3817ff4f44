# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`benchmarks/real_pictures/starts.py`: which arms there are, which are skipped, the tables, and an arm of two steps."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from real_pictures import FOLDER, imported_scripts, needs_folder


pytestmark = needs_folder


@pytest.fixture(scope="module")
def scripts():
    with imported_scripts() as scripts:
        yield scripts


def result(own: float, other: float, before: float = 2.0) -> dict:
    """Make what an arm measured. The unseen house is .5 worse."""
    return {
        "before": before,
        "train": {"own": own, "other": other},
        "unseen": {"own": own + 0.5, "other": other + 0.5},
        "steps": 1,
        "seconds": 0.1,
    }


def test_every_arm_is_there_once_and_the_first_seed_comes_first(scripts):
    arms = list(scripts.starts.all_arms())
    # Six settings of 3 starts x 2 features x 2 language models x 3 seeds, the experiments: 2 x 3 x 2 x 3, small latents, and
    # with 300 images two rates of the resampler x two features
    assert len(arms) == len(set(arms)) == 6 * 36 + 36 + 6 * 18 + 3 * 72
    assert {arm.seed for arm in arms[:12]} == {0} and {arm.setting for arm in arms[:72]} == {"miniature"}
    assert {arm.setting for arm in arms} == set(scripts.start_training.SETTINGS)
    assert {arm.features for arm in arms} == {
        "raw",
        "standardized",
        scripts.starts.BOTH,
        *scripts.start_training.TRANSFORMS,
    }


def test_arms_are_selected_by_their_fields(scripts):
    select = scripts.starts.select_arms
    (arm,) = select(
        ["setting=smollm2", "images=300", "seed=0", "language_model=frozen", "features=raw", "start=gates"]
    )
    assert arm == scripts.starts.Arm("smollm2", 300, "frozen", "gates", "raw", 1.0, 1.0, 0)
    assert len(select(["setting=own_tower,smollm2", "seed=1,2"])) == 2 * 2 * (36 + 24)
    assert len(select(["setting=smollm2", "latents=0.02"])) == 2 * 18
    with pytest.raises(ValueError, match="`--only color=red` names no field of an arm. Fields are features, images"):
        select(["color=red"])
    with pytest.raises(ValueError, match="`--only images=30`: no arm has images '30', but 300, 3000"):
        select(["images=30"])


def test_processes_share_the_arms(scripts):
    arms = list(scripts.starts.all_arms())
    parts = [scripts.starts.take_part(arms, f"{index}/4") for index in range(4)]
    assert [len(part) for part in parts] == [144] * 4 and set().union(*parts) == set(arms)
    for wrong in ("4/4", "1", "a/b", "0/0"):
        with pytest.raises(ValueError, match=rf"`--part {wrong}` is not I/N with I from 0 to N - 1"):
            scripts.starts.take_part(arms, wrong)


def test_what_is_in_the_file_does_not_run_again(scripts, tmp_path, monkeypatch):
    starts, path = scripts.starts, tmp_path / "results" / "lines.jsonl"
    arms = starts.select_arms(["setting=miniature", "images=300", "seed=0", "features=raw", "start=gates"])
    assert len(arms) == 2 and starts.read_lines(path) == []
    ran = []

    def train_arm(material, setting, **options):
        ran.append((material, options))
        return result(1.0, 1.5)

    monkeypatch.setattr(scripts.start_training, "train_arm", train_arm)
    monkeypatch.setattr(scripts.start_training.Workshop, "make", lambda self, *made_for: made_for)
    starts.append_line(path, arms[0], result(1.0, 1.5))
    (tmp_path / "prepared.json").write_text("{}")
    options = [str(tmp_path), "--results", str(path), "--only", "setting=miniature", "images=300", "seed=0"]
    monkeypatch.setattr("sys.argv", ["starts.py", *options, "features=raw", "start=gates"])
    starts.main()
    fields = {"language_model": "trained", "start": "gates", "features": "raw", "latents": 1.0, "resampler": 1.0}
    assert ran == [(("miniature", 300), {**fields, "seed": 0})]
    starts.main()
    assert len(ran) == 1 and starts.missing_arms(arms, starts.read_lines(path)) == []
    assert starts.read_lines(path)[1] == {**asdict(arms[1]), **result(1.0, 1.5)}


def test_broken_and_repeated_lines_are_errors(scripts, tmp_path):
    path, (arm, *_) = tmp_path / "lines.jsonl", scripts.starts.all_arms()
    scripts.starts.append_line(path, arm, result(1, 2))
    scripts.starts.append_line(path, arm, result(1, 2))
    with pytest.raises(ValueError, match=r"Line 2 of .* repeats an arm: Arm\(setting='miniature', images=300"):
        scripts.starts.read_lines(path)
    path.write_text('{"setting": "minia')
    with pytest.raises(ValueError, match=r"Line 1 of .* is not the result of an arm .* its arm runs again"):
        scripts.starts.read_lines(path)
    path.write_text(
        '{"setting": "miniature", "images": 300, "language_model": "frozen", "start": "gates", "features": "raw"}'
    )
    with pytest.raises(ValueError, match=r"it has no 'latents'. Add what it was"):
        scripts.starts.read_lines(path)


def test_a_folder_that_was_not_prepared_is_an_error_and_is_not_made(scripts, tmp_path, monkeypatch, capsys):
    command = ["starts.py", str(tmp_path / "data"), "--results", str(tmp_path / "lines.jsonl")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        scripts.starts.main()
    assert "Prepare the data first" in capsys.readouterr().err and not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prepared.json").write_text("{}")
    with pytest.raises(SystemExit):
        scripts.starts.main()
    assert "npm pack" in capsys.readouterr().err and not (tmp_path / "data" / "downloads").exists()


def test_tables_of_given_lines(scripts, tmp_path, monkeypatch):
    starts = scripts.starts
    gates = starts.Arm("miniature", 300, "frozen", "gates", "raw", 1.0, 1.0, 0)
    projections = replace(gates, start="projections")
    measured = {
        gates: result(1.5, 1.75),
        replace(gates, seed=1): result(1.0, 2.0),
        projections: result(1.25, 2.25),
        replace(projections, seed=1): result(1.125, 2.0),
        replace(projections, seed=2): result(0.5, 2.0),  # has no arm to be compared with
        replace(gates, features="standardized"): result(1.5, 1.5),
        replace(gates, features="standardized", latents=0.02): result(1.25, 1.75),
        replace(gates, features="both standardized", latents=0.3): result(1.25, 1.5),
        replace(gates, features="both standardized", latents=0.3, resampler=0.1): result(1.0, 2.0),
    }
    path, page = tmp_path / "lines.jsonl", tmp_path / "page.md"
    for arm, values in measured.items():
        starts.append_line(path, arm, values)
    page.write_text("before\n<!-- real-pictures starts -->\n<!-- end -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["starts.py", "--results", str(path), "--table", str(page)])
    starts.main()
    assert page.read_text() == (
        "before\n<!-- real-pictures starts -->\n"
        "| setting | images | language model | start | features | latents | resampler | seeds | before | train: own image | another | difference "
        "| unseen house: own image | another | difference |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| miniature | 300 | frozen | gates | raw | 1.0 | 1.0 | 2 | 2.00 | 1.25 | 1.88 | 0.62 (0.25 to 1.00) "
        "| 1.75 | 2.38 | 0.62 (0.25 to 1.00) |\n"
        "| miniature | 300 | frozen | projections | raw | 1.0 | 1.0 | 3 | 2.00 | 0.96 | 2.08 | 1.12 (0.88 to 1.50) "
        "| 1.46 | 2.58 | 1.12 (0.88 to 1.50) |\n"
        "| miniature | 300 | frozen | gates | standardized | 1.0 | 1.0 | 1 | 2.00 | 1.50 | 1.50 | 0.00 | 2.00 | 2.00 | 0.00 |\n"
        "| miniature | 300 | frozen | gates | standardized | 0.02 | 1.0 | 1 | 2.00 | 1.25 | 1.75 | 0.50 | 1.75 | 2.25 | 0.50 |\n"
        "| miniature | 300 | frozen | gates | both standardized | 0.3 | 1.0 | 1 | 2.00 | 1.25 | 1.50 | 0.25 | 1.75 | 2.00 | 0.25 |\n"
        "| miniature | 300 | frozen | gates | both standardized | 0.3 | 0.1 | 1 | 2.00 | 1.00 | 2.00 | 1.00 | 1.50 | 2.50 | 1.00 |\n\n"
        "| setting | images | language model | latents | resampler | this | better than | pairs | train: lower in | mean change "
        "| unseen house: lower in | mean change |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| miniature | 300 | frozen | 1.0 | 1.0 | projections | gates | 2 | 1 | -0.06 | 1 | -0.06 |\n"
        "| miniature | 300 | frozen | 1.0 | 1.0 | standardized | raw | 1 | 0 | +0.00 | 0 | +0.00 |\n"
        "| miniature | 300 | frozen | 0.02 | 1.0 | 0.02 | 1.0 | 1 | 1 | -0.25 | 1 | -0.25 |\n"
        "| miniature | 300 | frozen | 0.3 | 0.1 | 0.1 | 1.0 | 1 | 1 | -0.25 | 1 | -0.25 |\n"
        "<!-- end -->\nafter\n"
    )


def test_the_committed_results_are_of_arms_of_the_grid(scripts):
    arms = {scripts.starts.Arm.of_line(line) for line in scripts.starts.read_lines(scripts.starts.RESULTS)}
    assert arms and arms <= set(scripts.starts.all_arms())
    log = FOLDER.parents[1] / "docs" / "real-pictures-log.md"
    lines = scripts.starts.read_lines(scripts.starts.RESULTS)
    assert scripts.starts.format_tables(lines) in log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def material(scripts):
    """Rows of 6 names with features that have a large common mean."""
    training = scripts.start_training
    rows = [[2, 1, 3 + number, 0] for number in range(6)]
    torch.manual_seed(0)
    features = 50 * torch.randn(1, 4, 8) + torch.randn(6, 4, 8)
    ids = torch.tensor(rows)
    labels = ids.clone()
    labels[:, :2] = -100
    parts = training.Rows(features, ids, torch.ones_like(ids), labels)
    return training.Material(parts, parts, training.train_text(rows, 9, end=0, steps=2), marker=1, end=0)


def test_every_arm_begins_as_its_language_model_and_trains(scripts, material):
    training = scripts.start_training
    setting = training.Setting(None, steps=2)
    with torch.no_grad():
        texts = {name: getattr(material.train, name) for name in ("input_ids", "attention_mask", "labels")}
        alone = material.language_model(**texts).loss.item()
    weights = {name: tensor.clone() for name, tensor in material.language_model.state_dict().items()}
    for start in scripts.starts.STARTS:
        for features in (*scripts.starts.FEATURES, *scripts.starts.EXPERIMENTS, scripts.starts.BOTH):
            options = {"language_model": "trained", "start": start, "features": features, "latents": 0.02}
            options |= {"resampler": 0.1, "seed": 0}
            measured = training.train_arm(material, setting, **options)
            assert measured["before"] == pytest.approx(alone, abs=1e-4)
            assert measured["train"] == measured["unseen"] and measured["train"]["own"] < alone
            again = training.train_arm(material, setting, **options)
            assert {**again, "seconds": 0} == {**measured, "seconds": 0}
            assert json.dumps(measured)
    assert all(tensor.equal(weights[name]) for name, tensor in material.language_model.state_dict().items())


def test_transforms_center_without_statistics(scripts):
    features = torch.tensor([[[1.0], [3.0]], [[5.0], [11.0]]])  # two images, two positions
    centering = {name: make((2, 1)) for name, make in scripts.start_training.TRANSFORMS.items()}
    assert centering["minus batch mean"](features).flatten().tolist() == [-2, -4, 2, 4]
    assert centering["minus image mean"](features).flatten().tolist() == [-1, 1, -3, 3]
    assert centering["minus learned"](features).equal(features)
    # In evaluation the running mean: the first batch as it is, then a tenth of each
    batch = centering["minus batch mean"]
    assert batch(features + 10).flatten().tolist() == [-2, -4, 2, 4]
    assert batch.eval()(features).flatten().tolist() == pytest.approx([-3, -5, 1, 3])
