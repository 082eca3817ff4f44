# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo check` and `flamingo train --dry_run`: what they print, the exit code, and that no model is read."""

import json
import re

import pytest
import yaml
from PIL import Image
from recipes import miniature_recipe
from runs import png

from transformers_flamingo import FlamingoModel
from transformers_flamingo_cli import main
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("data")
    assert main(["miniature-data", str(directory), "--num-pictures", "20", "--num-videos", "2"]) == 0
    return str(directory)


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch):
    """Work in an empty folder, and fail if a model is built."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FlamingoModel, "__init__", refuse)


@pytest.fixture
def recipe(tmp_path, data):
    """Return a function that writes a recipe with changes and returns its name."""

    def write(**changes) -> str:
        values = {**miniature_recipe(data, tmp_path / "out"), "max_steps": 40, **changes}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return "recipe.yaml"

    return write


def write_pairs(folder, texts: list[str]) -> str:
    folder.mkdir(parents=True)
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    for i in range(len(texts)):
        (folder / f"{i}.png").write_bytes(png(i))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def lines_of(capsys, kind: str) -> list[str]:
    """Return the messages of a kind that were printed."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{kind}: ")]


def test_a_recipe_that_is_fine(recipe, capsys, tmp_path):
    assert main(["check", recipe()]) == 0
    out = capsys.readouterr().out
    assert "data.pairs (image_text_pairs," in out
    assert "  rows                    20\n" in out
    assert "0.0% of them '<|unk|>'" in out
    assert "train/pairs.parquet, row 2\n" in out and "row 3\n" not in out
    assert "  1 (64 x 64)  no       1       '<image>'\n" in out
    assert "0 errors, 0 warnings\n" in out
    assert Image.open(tmp_path / "check" / "contact_sheet.png").width > 1000
    assert not (tmp_path / "out").exists()


def test_a_shipped_recipe_with_changes(data, capsys):
    assert main(["check", "miniature", "--data_root", data, "--max_rows", "5", "--show_rows", "0"]) == 0
    out = capsys.readouterr().out
    assert "5 of 20, spread over the source" in out
    assert "first rows" not in out
    assert all(name in out for name in ("data.videos (parts", "evaluation.questions (question_answering"))


def test_everything_that_is_wrong_is_said_at_once(recipe, tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a zebra", "a red circle", " ", "a quagga"])
    changes = {
        "data": {"mine": {"format": "image_text_pairs", "path": path}},
        "evaluation": {
            "mine": {"format": "image_text_pairs", "path": path},
            "gone": {"format": "llava", "path": "gone"},
        },
        "warmup_steps": 50,
        "learning_rate": 3.0,
        "metric_for_best_model": "cider",
        "eval_strategy": "steps",
        "eval_steps": 5,
    }
    name = recipe(**changes)
    assert main(["check", name]) == 1
    captured = capsys.readouterr()
    errors = [line for line in captured.out.splitlines() if line.startswith("error: ")]
    expected = (
        "error: data.mine: .*row 2: the text in 'text'",
        "error: evaluation.mine: .*row 2: the text in 'text'",
        "error: evaluation.gone: Held-out data 'gone' cannot be opened",
        "error: data.mine: 20.0% of the tokens to learn",
        "error: `learning_rate` is 3,.* `warmup_steps` is 50",
        "error: `metric_for_best_model` is 'cider', which the evaluation does not have",
    )
    for pattern in expected:
        assert [line for line in errors if re.match(pattern, line)], (pattern, errors)
    assert len(errors) == len(expected)
    assert "3 of its 3 different images are in data.mine too" in captured.out
    assert captured.err.splitlines()[-1] == "flamingo check: 'recipe.yaml' has 6 errors, listed above."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_layer": 9}, r"`vision_feature_layer` is \[9\], but CLIPVisionModel has hidden states"),
        (
            {"vision_hidden_size": 7},
            "`model_config` has a value that does not fit: .*vision encoder's features have width",
        ),
        ({"cross_attention_layers": [99]}, r"`model_config` has .*`cross_attention_layers` is \[99\]"),
        ({"resampler_num_latents": "many"}, "`model_config` has .*resampler_num_latents"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit(recipe, changes, message, capsys):
    assert main(["check", recipe(model_config=changes)]) == 1
    (error,) = lines_of(capsys, "error")
    assert re.search(message, error), error


def test_swapped_backbones(recipe, capsys):
    vision, text = str(vision_backbone_path()), str(text_backbone_path())
    assert main(["check", recipe(vision=text, text=vision)]) == 1
    assert "reads text and no pixels, so it cannot be the vision encoder" in capsys.readouterr().err
    assert main(["train", recipe(vision=text, text=vision)]) == 1
    assert "reads text and no pixels, so it cannot be the vision encoder" in capsys.readouterr().err


def test_arguments_that_a_mixture_refuses_and_an_unknown_number_of_steps(recipe, tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle", "a blue circle"])
    sources = {name: {"format": "image_text_pairs", "path": path, "streaming": True} for name in ("one", "two")}
    assert main(["check", recipe(data=sources, max_steps=-1, label_smoothing_factor=0.1)]) == 1
    errors = lines_of(capsys, "error")
    assert len(errors) == 2
    assert "`label_smoothing_factor` is 0.1" in errors[0]
    assert "`max_steps` is not given" in errors[1]


def test_steps_are_counted_from_the_rows(recipe, tmp_path, capsys):
    path = write_pairs(
        tmp_path / "mine", [f"{color} {shape}" for color in ("red", "blue") for shape in ("cross", "ring")]
    )
    name = recipe(
        data={"mine": {"format": "image_text_pairs", "path": path, "batch_size": 2}},
        max_steps=-1,
        num_train_epochs=1,
        gradient_accumulation_steps=2,
        logging_steps=1,
    )
    assert main(["check", name, "--warmup_steps", "1"]) == 1
    out = capsys.readouterr().out
    assert "error: `warmup_steps` is 1 and the run has 1 optimizer step" in out
    assert "warning: data.mine: there are 4 different answers, but the run has 1 optimizer step of 4 rows" in out


def test_a_dry_run_checks_and_trains_nothing(recipe, tmp_path, capsys):
    assert main(["train", recipe(), "--dry_run"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert (tmp_path / "check" / "contact_sheet.png").is_file()
    assert not (tmp_path / "out").exists()
    assert main(["train", recipe(), "--warmup_steps", "99", "--dry-run"]) == 1
    assert "`warmup_steps` is 99 and the run has 40" in capsys.readouterr().out


def test_bad_rows_that_the_training_skips_are_no_errors(recipe, tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle", " ", "a blue circle"])
    name = recipe(data={"mine": {"format": "image_text_pairs", "path": path}})
    assert main(["check", name]) == 1
    assert main(["check", name, "--skip_bad_samples", "true"]) == 0
    (line,) = lines_of(capsys, "skipped")
    assert "row 1" in line


def test_bad_rows_are_listed_up_to_a_limit(tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle", *[" "] * 25])
    assert main(["check", path, "--text", "miniature"]) == 1
    errors = lines_of(capsys, "error")
    assert len(errors) == 21
    assert "data.captions: 5 other rows cannot be used either" in errors[-1]
    assert main(["check", path, "--text", "miniature", "--max_errors", "25"]) == 1
    assert len(lines_of(capsys, "error")) == 25


def test_data_without_a_recipe(tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle", "a blue circle"])
    assert main(["check", path, "--text", "miniature", "--output_dir", "sheet"]) == 0
    assert "at most 512 tokens" in capsys.readouterr().out  # the positions of the language model
    assert (tmp_path / "sheet" / "contact_sheet.png").is_file()
    assert main(["check", path, "--text", "miniature", "--vision", "miniature", "--max_length", "3"]) == 0
    assert "truncated rows          2 (at most 3 tokens)" in capsys.readouterr().out
    options = ["--format", "image_text_pairs", "--options", '{"prompt": "what?"}', "--split", "mine"]
    assert main(["check", f"{path}/*.jsonl", "--text", "miniature", *options]) == 1
    assert "none is a" in capsys.readouterr().err


def test_both_splits_and_the_name_are_those_of_a_training(tmp_path, capsys):
    write_pairs(tmp_path / "mine" / "train", ["a red circle", "a blue circle"])
    write_pairs(tmp_path / "mine" / "validation", ["a zebra", " "])
    for options in ([], ["--format", "image_text_pairs"]):
        assert main(["check", "mine", "--text", "miniature", *options]) == 1
        captured = capsys.readouterr()
        assert "trained on: split 'train'; evaluated on: split 'validation'\n" in captured.out
        assert "data.captions (image_text_pairs, mine)" in captured.out
        assert re.search(r"error: evaluation\.captions: .*validation/metadata\.jsonl, row 1", captured.out)
        assert "1 of its 1 different images are in data.captions too" in captured.out
        assert (
            'has 1 error, listed above. Where the reader needs to know more, give `--options \'{"media_root":'
            in captured.err
        )
    assert main(["check", "mine", "--text", "miniature", "--split", "train"]) == 0
    assert "evaluation.captions" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [["check", "saved"], ["check", "saved", "--model", "saved"], ["train", "--data", "saved"]]
)
def test_a_saved_model_is_no_data(command, tmp_path, capsys):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": "flamingo"}))
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "'saved' is not data: it has a saved model of type 'flamingo'. To look at data" in said
    assert "`flamingo check DATA --model saved`" in said and "`flamingo train --data DATA --model saved`" in said
    assert main(["train", "saved"]) == 1
    assert "'saved' is not data: it has a saved model" in capsys.readouterr().err
    (tmp_path / "miniature").mkdir()  # which is a recipe all the same
    assert main(["train", "miniature", "--max_steps", "many"]) == 1
    assert "max_steps" in capsys.readouterr().err


def test_the_prompt_of_the_options(tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle"])
    assert main(["check", path, "--text", "miniature", "--options", '{"prompt": "what?"}']) == 0
    assert "no       3       '<image> what?'" in capsys.readouterr().out


def test_the_format_is_found_out(tmp_path, capsys):
    (tmp_path / "0.png").write_bytes(png(0))
    turns = [{"from": "human", "value": "<image>what?"}, {"from": "gpt", "value": "a circle"}]
    (tmp_path / "talk.json").write_text(json.dumps([{"image": "0.png", "conversations": turns}]))
    assert main(["check", "talk.json", "--text", "miniature"]) == 0
    assert "talk.json: took it for llava: 'talk.json', with 'conversations' and 'image'\n" in capsys.readouterr().out
    assert main(["check", "talk.json", "--text", "miniature", "--format", "image_text_pairs"]) == 1
    assert "Give `--format llava`" in capsys.readouterr().out
    (tmp_path / "talk.json").write_text(json.dumps([{"image": "0.png", "alt": "a circle"}]))
    assert main(["check", "talk.json", "--text", "miniature"]) == 1
    assert "The nearest format is 'image_text_pairs': it has 'image', and lacks 'text'" in capsys.readouterr().err


def test_train_on_a_path(tmp_path, recipe, capsys):
    write_pairs(tmp_path / "mine" / "train", ["a red circle", "a blue square"] * 20)
    write_pairs(tmp_path / "mine" / "validation", ["a red circle"])
    changes = ["--max_steps", "40", "--dry_run"]
    name = recipe(
        data={"x": {"format": "parts", "path": "gone", "batch_size": 2}},
        evaluation={},
        eval_strategy="steps",
        eval_steps=20,
    )
    assert main(["train", name, "--data", "mine", *changes]) == 0
    out = capsys.readouterr().out
    assert "mine: took it for image_text_pairs: 'metadata.jsonl', with 'file_name' and 'text'\n" in out
    assert "trained on: split 'train'; evaluated on: split 'validation'\n" in out
    assert "data.x (image_text_pairs, mine)" in out and "evaluation.x (image_text_pairs, mine)" in out
    assert main(["train", name, "--data", "mine/train", "--evaluation", "mine/validation", *changes]) == 0
    assert main(["train", name, "--data", "gone", *changes]) == 1
    assert "'gone' leads to no file" in capsys.readouterr().err
    # Without a recipe, the shipped one is filled in, whatever the order of the options
    assert main(["train", "--data", "mine/train", "--text", "./gone", "--dry_run"]) == 1
    captured = capsys.readouterr()
    assert "no held-out data, so nothing is evaluated: give --evaluation PATH" in captured.out
    assert "There is no folder './gone'" in captured.err
    # A mapping is a field of the recipe, as before
    sources = json.dumps({"y": {"format": "image_text_pairs", "path": "mine/train", "batch_size": 2}})
    assert main(["train", name, "--data", sources, *changes]) == 0
    assert "data.y (image_text_pairs, mine/train)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mine"], 2, "Give `--text` with the name or folder of the language model"),
        (["minature"], 1, "There is no recipe and no file or folder 'minature'. Did you mean 'miniature'?"),
        (["gone.yaml"], 1, "There is no recipe 'gone.yaml': no such file exists"),
        (["mine/gone.jsonl"], 1, "no file or folder 'mine/gone.jsonl'. Give"),
        (
            ["mine", "--text", "miniature", "--learning_rate", "1"],
            2,
            "is data, not a recipe, so it has no option --learning_rate",
        ),
        (["mine", "--text", "miniature", "--model", "x"], 2, "`--text` has no effect here"),
        (["mine", "--text", "./gone"], 1, "There is no folder './gone'"),
        (["mine", "--text", "miniature", "--format", "webdataset"], 1, "Known formats are image_text_pairs"),
        (["mine", "--text", "miniature", "--options", "{"], 2, "`--options` is not JSON"),
        (["mine", "--text", "miniature", "--options", "[1]"], 2, "Give names with values"),
        (
            ["mine", "--text", "miniature", "--options", '{"promt": "x"}'],
            1,
            "No format has the option 'promt' of `--options`. Did you mean 'prompt'?",
        ),
        (["mine", "--max_rows", "0"], 2, "`max_rows` is 0, but it must be at least 1"),
        (["mine", "--show_rows", "13"], 2, "`show_rows` is 13, but it must be from 0 to 12"),
        (["miniature", "--format", "llava"], 2, "In a recipe, give `--data.NAME.format`"),
        (["miniature", "--lerning_rate", "1"], 1, "Did you mean 'learning_rate'"),
    ],
)
def test_what_cannot_be_checked(tmp_path, arguments, code, message, capsys):
    write_pairs(tmp_path / "mine", ["a red circle"])
    try:
        got = main(["check", *arguments])
    except SystemExit as stop:
        got = stop.code
    assert got == code
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("flamingo check: "))
    assert message in line


def test_a_recipe_with_other_backbones(recipe, capsys):
    assert main(["check", recipe(text="./gone"), "--text", "miniature", "--vision", "miniature"]) == 0
    assert main(["check", recipe(), "--text", "./gone"]) == 1
    assert "There is no folder './gone'" in capsys.readouterr().err


def test_a_recipe_for_an_accelerator_is_checked_without_one(recipe):
    assert main(["check", recipe(use_cpu=False, bf16=True)]) == 0
    assert main(["train", recipe(use_cpu=False, bf16=True), "--dry_run"]) == 0


def test_words_of_prompts_are_a_warning(tmp_path, capsys):
    path = write_pairs(tmp_path / "mine", ["a red circle"])
    assert main(["check", path, "--text", "miniature", "--options", '{"prompt": "Whatever:"}']) == 0
    (line,) = lines_of(capsys, "warning")
    assert "of the tokens to read" in line and "'Whatever'" in line


def test_options_reach_the_detection(tmp_path, capsys):
    results = [{"type": "choices", "from_name": name, "value": {"choices": [name]}} for name in ("red", "cat")]
    (tmp_path / "a.png").write_bytes(png(1))
    record = {"data": {"image": "a.png"}, "annotations": [{"result": results}]}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    command = ["check", "a.json", "--text", str(text_backbone_path())]
    assert main(command) == 1
    assert "Here, options are given as `--options '" in capsys.readouterr().err
    assert main([*command, "--options", '{"control": "red"}']) == 0
    assert "took it for label_studio" in capsys.readouterr().out


def test_data_is_given_once(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", "a", "--data=b"])
    assert "--data is given twice, 'a' and 'b'" in capsys.readouterr().err
