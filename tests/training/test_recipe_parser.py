# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""References of a recipe to its own values, its placeholders, and the help that lists its fields."""

from dataclasses import fields

import pytest
import yaml
from transformers.debug_utils import DebugOption

from transformers_flamingo.pretraining import (
    TextPretrainingArguments,
    VisionPretrainingArguments,
    make_pretraining_parser,
)
from transformers_flamingo.training import (
    DataSource,
    FlamingoTrainingArguments,
    ModelArguments,
    make_recipe_parser,
    parse_recipe,
    read_recipe,
)


SOURCE = {"format": "question_answering", "path": "p"}


def parse(*arguments: str, source: dict | None = None, **changes):
    values = {"vision": "a", "text": "b", "use_cpu": True, "data": {"my-data": {**SOURCE, **(source or {})}}}
    return parse_recipe({**values, **changes}, arguments)


def test_a_reference_has_the_value_and_type_of_its_field():
    recipe = parse(
        "--run_name", "steps: ${max_steps}", "--data.my-data.max_length", "${evaluation_max_rows}",
        source={"path": "${output_dir}/${data.my-data.split}/x", "split": "train"},
        eval_strategy="${save_strategy}", save_strategy="steps", model_config={"text_n": "${seed}"}, seed=3,
        output_dir="runs/a", max_steps=7, save_steps="${max_steps}", evaluation_max_rows=9,
    )  # fmt: skip
    assert (recipe.training.save_steps, recipe.training.run_name) == (7, "steps: 7")
    assert (recipe.data[0].path, recipe.data[0].max_length) == ("runs/a/train/x", 9)
    assert (recipe.training.eval_strategy, recipe.model.model_config) == ("steps", {"text_n": 3})
    # The text keeps the reference, so a change of the field still counts
    again = parse_recipe(yaml.safe_load(recipe.text), ["--max_steps", "8"])
    assert (again.training.save_steps, again.training.run_name) == (8, "steps: 8")


def test_a_reference_of_a_base_sees_the_change(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "vision: a\ntext: b\nuse_cpu: true\noutput_dir: runs/base\nrun_name: ${output_dir}\n"
        "data: {c: {format: llava, path: '???'}}\n"
    )
    (tmp_path / "r.yaml").write_text("base: base.yaml\noutput_dir: runs/r\ndata: {c: {path: p}}\n")
    recipe = read_recipe(tmp_path / "r.yaml")
    assert (recipe.training.run_name, recipe.data[0].path) == ("runs/r", "p")
    with pytest.raises(ValueError, match=r"`data\.c\.path` is '\?\?\?', a placeholder. Give it a value"):
        read_recipe(tmp_path / "base.yaml")


def test_a_placeholder_does_not_replace_a_value(tmp_path):
    (tmp_path / "base.yaml").write_text("vision: a\ntext: b\ndata: {c: {format: llava, path: p}}\n")
    (tmp_path / "r.yaml").write_text("base: base.yaml\noutput_dir: o\ndata: {c: {path: '???'}}\n")
    with pytest.raises(ValueError, match=r"`data\.c\.path` is \?\?\?, .* its base gives it 'p'"):
        read_recipe(tmp_path / "r.yaml")


def test_text_with_a_dollar_sign_is_written_with_a_backslash():
    template = r"costs \${price}: {question} \d \$5 $6"
    recipe = parse("--data.my-data.options.template", template)
    assert recipe.data[0].options == {"template": r"costs ${price}: {question} \d \$5 $6"}
    again = parse_recipe(yaml.safe_load(recipe.text))
    assert again.data == recipe.data
    # No expression is evaluated after the backslash is gone
    recipe = parse(run_name=r"\${a b} \${oc.env:HOME} \${", model_config={"text_x": r"\${oc.env:HOME}"})
    assert recipe.training.run_name == "${a b} ${oc.env:HOME} ${"
    assert recipe.model.model_config == {"text_x": "${oc.env:HOME}"}
    assert parse_recipe(yaml.safe_load(recipe.text)).training.run_name == recipe.training.run_name
    with pytest.raises(
        ValueError, match=r"'price' is not in the recipe.*write a backslash before it: `\\\$\{price\}`"
    ):
        parse("--data.my-data.options.template", "costs ${price}")


EXPRESSIONS = [
    "${oc.env:HOME_OF_TEST}",
    "a${oc.env:HOME_OF_TEST,x}b",
    "${oc.decode:1}",
    "${${a}:b}",
    "${.path}",
    "${..text}",
]
EXPRESSIONS += [
    r"\\${oc.env:HOME_OF_TEST}",
    r"\\\${text}",
    "${",
    "${}",
    "${a b}",
    "${text",
    "${data[0]}",
    r"\\${text}",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_no_other_expression_is_allowed(text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME_OF_TEST", "a secret")
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump({"vision": "a", "text": "b", "run_name": text, "data": {"c": SOURCE}})
    )
    for read in (
        lambda: parse(run_name=text),
        lambda: parse(source={"options": {"template": [text]}}),
        lambda: parse("--run_name", text),
        lambda: parse("--data.my-data.path", text),
        lambda: read_recipe(tmp_path / "r.yaml"),
    ):
        with pytest.raises(
            ValueError, match=r"other expressions are not allowed.*write one backslash before it"
        ) as error:
            read()
        assert "a secret" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_name": "${hub_token}", "hub_token": "abcdef"}, "'hub_token' is a secret"),
        ({"run_name": "${deepspeed.api_key}", "deepspeed": {"api_key": "abcdef"}}, "'deepspeed.api_key' is a secret"),
        ({"run_name": "${data}"}, "'data' is .*can only name a plain text or number"),
        ({"run_name": "${output_dir}", "output_dir": "${vision}"}, "can only name a plain text or number"),
        ({"run_name": "${run_name}"}, "can only name a plain text or number"),
        ({"run_name": "${nope.x}"}, "'nope.x' is not in the recipe"),
        ({"run_name": "${output_dir}" * 1000, "output_dir": "x" * 1000}, "expand to more than 262,144 characters"),
        ({"max_steps": "${vision}"}, "`max_steps` is '.{vision}', which does not fit: .*'a' .*Integer"),
        ({"output_dir": "???"}, "`output_dir` is .*, a placeholder"),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_resolved(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(**changes)
    assert "abcdef" not in str(error.value)


def test_a_flag_of_any_type_can_be_a_reference():
    recipe = parse("--save_steps", "${max_steps}", "--bf16_full_eval", "${use_cpu}", max_steps=7)
    assert (recipe.training.save_steps, recipe.training.bf16_full_eval) == (7, True)
    with pytest.raises(ValueError, match=r"`--save_steps` is '\$\{max_steps'. Give a number"):
        parse("--save_steps", "${max_steps", max_steps=7)


@pytest.mark.parametrize("value", ["underflow_overflow", ["underflow_overflow"]])
def test_a_list_of_choices_is_given_as_texts(value):
    expected = [DebugOption.UNDERFLOW_OVERFLOW]
    assert parse(debug=value).training.debug == expected
    recipe = parse("--debug", "underflow_overflow")
    assert recipe.training.debug == expected
    assert parse_recipe(yaml.safe_load(recipe.text)).training.debug == expected


@pytest.mark.parametrize("name", ["fsdp", "resume_from_checkpoint"])
def test_a_text_that_may_also_be_true_or_false_keeps_its_type(name):
    recipe = parse(**{name: False}, model_config={"text_n": 1})
    assert getattr(recipe.training, name) is False
    assert yaml.safe_load(recipe.text)[name] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": [1]}, r"`learning_rate` is \[1\], a list, where a single value should be"),
        ({"vision": ["a"]}, r"`vision` is \['a'\], a list, where a single value should be"),
        ({"max_steps": {"a": 1}}, "`max_steps` is .*, a mapping, where a single value should be"),
        ({"parallelism_config": {"tp_size": 1}}, "a mapping, where a single value should be"),
        ({"report_to": ["none", 1]}, "where a list of texts should be"),
    ],
)
def test_a_mapping_or_a_list_is_refused_where_a_single_value_should_be(changes, message):
    with pytest.raises(ValueError, match=message):
        parse(**changes)


def test_a_change_of_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no option --max_step.*'max_steps'"):
        parse("--max_step", "null")


def test_a_list_cannot_replace_a_mapping():
    with pytest.raises(ValueError, match="cannot replace a list of its base by a mapping"):
        parse("--model_config.cross_attention_layers.a", "1", model_config={"cross_attention_layers": [1]})


def test_the_help_lists_every_field_with_its_help():
    text = make_recipe_parser(prog="flamingo train").format_help()
    assert text.startswith("usage: flamingo train RECIPE [--NAME VALUE ...]\n")
    for kind in (ModelArguments, FlamingoTrainingArguments):
        assert [f.name for f in fields(kind) if f.init and f"--{f.name} " not in text] == []
        assert [f.name for f in fields(kind) if f.init and not f.metadata.get("help")] == []
    for f in fields(DataSource):
        assert f.name == "name" or (f"--data.NAME.{f.name} VALUE" in text and f.metadata["help"])
    for kind in (VisionPretrainingArguments, TextPretrainingArguments):
        text = make_pretraining_parser(kind).format_help()
        assert [f.name for f in fields(kind) if f"--{f.name} " not in text or not f.metadata["help"]] == []
