# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Recipes: their values, bases and command line, and the errors about wrong ones."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from recipes import SMOKE_RECIPES

from transformers_flamingo.training import ModelArguments, parse_recipe, read_recipe
from transformers_flamingo.training.recipe_file import RECIPES
from transformers_flamingo.training.schedule_checks import check_schedule


VALUES = {
    "vision": "a",
    "text": "b",
    "use_cpu": True,
    "data": {"captions": {"format": "image_text_pairs", "path": "c"}},
}


def parse(*arguments: str, **changes):
    return parse_recipe({**VALUES, **changes}, arguments)


def write(path, text: str):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def test_values_have_the_types_of_their_arguments(tmp_path):
    path = write(
        tmp_path / "r.yaml",
        """
        vision: a
        text: b
        model_config: {cross_attention_every_n_layers: 2}
        use_cpu: true
        learning_rate: 1e-3
        max_steps: 7
        report_to: [tensorboard]
        data:
          captions: {format: image_text_pairs, path: c, weight: 2e-1, options: {media_root: d}}
        evaluation:
          questions: {format: question_answering, path: e}
        """,
    )
    recipe = read_recipe(path)
    assert recipe.model.model_config == {"cross_attention_every_n_layers": 2}
    assert (recipe.training.learning_rate, recipe.training.max_steps) == (1e-3, 7)
    assert recipe.training.report_to == ["tensorboard"]
    (source,) = recipe.data
    assert (source.name, source.weight, source.options) == ("captions", 0.2, {"media_root": "d"})
    assert [source.name for source in recipe.evaluation] == ["questions"]


def test_the_command_line_overrides_the_file():
    recipe = parse("--max_steps", "3", "--learning-rate=1e-2", "--data.captions.weight", "3", max_steps=7)
    assert (recipe.training.max_steps, recipe.training.learning_rate) == (3, 1e-2)
    assert recipe.data[0].weight == 3
    recipe = parse("--data.more.format=obelics", "--data.more.path=x", '--model_config={"resampler_num_layers": 1}')
    assert [source.name for source in recipe.data] == ["captions", "more"]
    assert recipe.model.model_config == {"resampler_num_layers": 1}
    assert parse("--model_config.resampler_num_layers", "2").model.model_config == {"resampler_num_layers": 2}


def test_a_base_is_merged_mapping_by_mapping_and_null_removes(tmp_path):
    write(tmp_path / "base.yaml", yaml.safe_dump({**VALUES, "max_steps": 5, "seed": 1, "learning_rate": 1.0}))
    path = write(
        tmp_path / "sub" / "r.yaml",
        "base: ../base.yaml\nseed: 2\nlearning_rate: null\ndata: {captions: {weight: 2}, more: {format: llava, path: l}}",
    )
    recipe = read_recipe(path)
    assert (recipe.training.max_steps, recipe.training.seed, recipe.training.learning_rate) == (5, 2, 1e-4)
    assert [(source.name, source.weight, source.path) for source in recipe.data] == [
        ("captions", 2, "c"),
        ("more", 1, "l"),
    ]
    path = write(tmp_path / "sub" / "q.yaml", "base: r.yaml\ndata: {captions: null}")
    assert [source.name for source in read_recipe(path).data] == ["more"]


def test_the_text_is_the_recipe_with_all_changes():
    recipe = parse(
        "--max_steps", "3", "--lora_rank", "4", "--data.captions.weight", "3", "--no_ddp_find_unused_parameters"
    )
    again = parse_recipe(yaml.safe_load(recipe.text))
    assert again.training.max_steps == 3
    assert again.training.ddp_find_unused_parameters is recipe.training.ddp_find_unused_parameters is False
    assert again.model == recipe.model and again.data == recipe.data
    assert again.text == recipe.text


def test_relative_paths_start_at_data_root():
    sources = {
        name: {"format": "llava", "path": path} for name, path in (("a", "x/*.json"), ("b", "/y"), ("c", "s3://z"))
    }
    recipe = parse("--data_root", "/root", data=sources)
    assert [source.path for source in recipe.data] == ["/root/x/*.json", "/y", "s3://z"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_step": 1}, "'max_step'.*'max_steps'"),
        ({"max_steps": "many"}, "`max_steps` is 'many', which does not fit: .*Integer"),
        ({"max_steps": 1.5}, "`max_steps` is 1.5, which does not fit: .*Integer"),
        ({"use_cpu": "perhaps"}, "use_cpu"),
        ({"data": {}}, "no `data`"),
        ({"data": ["c"]}, "`data` is"),
        ({"data": {"c": "d"}}, "`data.c` is 'd'"),
        ({"data": {"c": {"format": "llava"}}}, "`data.c` has no 'path'"),
        ({"data": {"c": {"format": "llava", "path": "p", "wieght": 1}}}, "'wieght'.*'weight'"),
        ({"data": {"c": {"format": "llave", "path": "p"}}}, "Data source 'c': `format` is 'llave'"),
        ({"text": None}, "`vision` is 'a' and `text` None"),
        ({"model": "m"}, "has its backbones"),
        ({"lora_rank": 4, "train_text": True}, "adapters are trained instead of"),
        ({"train_text": True, "train_token_embeddings": False}, "whose gradient runs through all layers anyway"),
        ({"quantization": "4bit", "train_text": True}, "quantized weights cannot be trained"),
        ({"quantization": "2bit"}, "2bit"),
        ({"model_config": "{"}, "`model_config` is not valid YAML"),
        ({"model_config": {"text_config": {"n_layer": 2}}}, "`model_config` has `text_config`"),
        ({"model_config": {"image_token_id": 3}}, "`model_config` has `image_token_id`"),
        ({"lora_alpha": 8}, "`lora_alpha` is 8, which has no effect"),
        ({"evaluation_max_rows": 0}, "`evaluation_max_rows` is 0"),
        ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps` is 0"),
    ],
)
def test_a_wrong_recipe(changes, message):
    values = {name: value for name, value in {**VALUES, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=f"(?s){message}"):
        parse_recipe(values)


@pytest.mark.parametrize("arguments", [["--max_step", "1"], ["--data.captions.weight"], ["loose"]])
def test_a_wrong_command_line(arguments):
    with pytest.raises(ValueError, match=arguments[0].removeprefix("--")):
        parse(*arguments)


def test_a_recipe_that_does_not_exist_or_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe 'nonsense'.*caption.*miniature"):
        read_recipe("nonsense")
    with pytest.raises(ValueError, match="is not valid YAML"):
        read_recipe(write(tmp_path / "a.yaml", "a: [1"))
    with pytest.raises(ValueError, match=r"holds \[1\], but a recipe maps names to values"):
        read_recipe(write(tmp_path / "b.yaml", "- 1"))


SHIPPED = [*sorted(path.stem for path in RECIPES.glob("*.yaml")), "miniature"]
ABLATIONS = Path(__file__).parents[2] / "benchmarks" / "ablations"  # not in the source distribution
OTHERS = [*sorted(SMOKE_RECIPES.glob("*.yaml")), *sorted(ABLATIONS.glob("*.yaml"))]


@pytest.mark.parametrize(
    "recipe", [*SHIPPED, *OTHERS], ids=lambda r: r if isinstance(r, str) else f"{r.parent.name}-{r.stem}"
)
def test_every_recipe_can_be_read(recipe):
    training = read_recipe(recipe, ["--use_cpu", "true", "--bf16", "false"]).training
    assert training.output_dir.startswith("runs/")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_has_a_smoke_test(name):
    assert (SMOKE_RECIPES / f"{name}.yaml").is_file()


def test_null_on_the_command_line_removes():
    more = {"captions": {"format": "llava", "path": "c", "max_length": 5}, "more": {"format": "llava", "path": "d"}}
    recipe = parse(
        "--data.more", "null", "--data.captions.max_length=null", "--max_steps", "null", data=more, max_steps=7
    )
    assert [(source.name, source.max_length) for source in recipe.data] == [("captions", None)]
    assert recipe.training.max_steps == -1


def test_text_with_a_colon_is_text_on_the_command_line():
    source = {"format": "question_answering", "path": "c"}
    template = "question: {question} answer:"
    recipe = parse("--data.a.options.template", template, "--use_cpu", "--data.a.weight", "2", data={"a": source})
    assert (recipe.data[0].options, recipe.data[0].weight) == ({"template": template}, 2)


def test_a_duplicate_name_and_a_circular_base(tmp_path):
    path = write(tmp_path / "a.yaml", "data:\n  x: {format: llava, path: a}\n  x: {format: llava, path: b}\n")
    with pytest.raises(ValueError, match="'x' appears twice"):
        read_recipe(path)
    with pytest.raises(ValueError, match="never ends"):
        read_recipe(write(tmp_path / "b.yaml", "base: c.yaml") if write(tmp_path / "c.yaml", "base: b.yaml") else "")
    recipe = read_recipe(write(tmp_path / "d.yaml", "base: miniature\nmax_steps: 3"))
    assert recipe.training.max_steps == 3 and recipe.model.text == "miniature"


@pytest.mark.parametrize(
    ("field", "value"), [("weight", "x"), ("streaming", "yes"), ("path", 3), ("batch_size", True), ("options", [1])]
)
def test_values_of_a_source_have_types(field, value):
    with pytest.raises(ValueError, match=re.escape(f"Data source 'a': `{field}` is {value!r}")):
        parse(data={"a": {"format": "llava", "path": "p", field: value}})


def test_a_misspelled_source_on_the_command_line_is_compared_with_the_sources():
    values = {"vision": "a", "text": "b", "output_dir": "o", "data": {"captions": {"format": "llava", "path": "p"}}}
    with pytest.raises(
        ValueError, match=r"`data\.captons` has no 'format' and no 'path'\. Add it\. Did you mean 'captions'"
    ):
        parse_recipe(values, ["--data.captons.weight", "0.5"])


def test_a_saved_model_replaces_the_backbones_of_a_recipe(tmp_path):
    recipe = read_recipe("lora", ["--use_cpu", "--model", "saved"])
    assert (recipe.model.model, recipe.model.vision, recipe.model.text, recipe.model.model_config) == (
        *("saved", None, None),
        None,
    )
    assert recipe.model.lora_rank == 16
    # Those of a new model; unless they are given
    assert recipe.training.resampler_learning_rate_multiplier == 1
    assert read_recipe("caption", ["--use_cpu"]).training.resampler_learning_rate_multiplier == 0.1
    given = ["--use_cpu", "--model", "saved", "--resampler_learning_rate_multiplier", "0.5"]
    assert read_recipe("caption", given).training.resampler_learning_rate_multiplier == 0.5
    (tmp_path / "r.yaml").write_text("base: caption\nmodel: saved\nuse_cpu: true")
    assert read_recipe(tmp_path / "r.yaml").model == ModelArguments(model="saved")
    back = read_recipe(tmp_path / "r.yaml", ["--vision", "a", "--text", "b"])
    assert back.model == ModelArguments(vision="a", text="b")
    assert yaml.safe_load(read_recipe(tmp_path / "r.yaml").text)["model"] == "saved"
    with pytest.raises(ValueError, match="`model` is 'saved', which has its backbones"):
        read_recipe("caption", ["--use_cpu", "--model", "saved", "--vision", "a"])


def test_all_errors_are_told_at_once_and_a_missing_accelerator_hides_none():
    arguments = ["--learning_rat", "1", "--data.captions.pth", "x", "--evaluation_max_rows", "0", "--lora_alpha", "3"]
    with pytest.raises(ValueError, match="errors") as error:
        read_recipe("caption", [*arguments, "--warmup_steps", "-1"])
    text = str(error.value)
    for part in (
        "There is no option --learning_rat. Did you mean 'learning_rate'?",
        "`lora_alpha` is 3, which has no effect",
        "`evaluation_max_rows` is 0",
        "`data.captions` has 'pth', which no source has. Did you mean 'path'?",
        # Of the stock checks, the first that fails
        "Got warmup_steps = -1",
    ):
        assert text.count(part) == 1, text
    if not torch.cuda.is_available():
        assert text.startswith("6 errors. (1) ") and "`bf16`: there is no accelerator here" in text


def test_without_evaluation_no_held_out_data_are_read():
    recipe = read_recipe("caption", ["--use_cpu", "--eval_strategy", "no"])
    assert recipe.evaluation == [] and len(recipe.data) == 1
    assert len(read_recipe("caption", ["--use_cpu", "--eval_strategy", "null"]).evaluation) == 1


def test_the_warm_up_of_the_caption_recipe_fits_a_run_of_one_step():
    training = read_recipe("caption", ["--use_cpu"]).training
    assert [training.get_warmup_steps(steps) for steps in (1, 2, 20, 375)] == [0, 1, 1, 19]
    check_schedule(training, 1)


def test_no_error_hides_another():
    recipe = {
        "vision": "a", "text": "b", "use_cpu": True, "learning_rat": 1, "max_steps": "many", "lr_scheduler_type": "cosin",
        "save_strategy": "epok", "eval_steps": "${max_steps}",
        "data": {"a": {"format": "image_text_pair", "path": "p", "batchsize": 4, "weight": "heavy"}},
        "evaluation": {"a": {"format": "llava", "path": "p", "max_images": 0}},
    }  # fmt: skip
    with pytest.raises(ValueError) as error:
        parse_recipe(recipe, ["--seed", "x", "--save_steps", "--logging_steps", "0", "--data.a.split"])
    text = str(error.value)
    assert text.startswith("12 errors. "), text
    for part in (
        "Did you mean 'learning_rate'?",
        "`max_steps` is 'many'",
        "`lr_scheduler_type` is 'cosin'. Did you mean 'cosine'",
        "`save_strategy` is 'epok'",
        "'batchsize', which no source has",
        "Data source 'a': `format` is 'image_text_pair'. Did you mean 'image_text_pairs'?",
        "Data source 'a': `weight` is 'heavy'. Give a number.",
        "Held-out data 'a': `max_images` is 0",
        "`--seed` is 'x'. Give a whole number.",
        "`--save_steps` has no value",
        "`logging_steps` is 0",
        "--data.a.split has no value",
    ):
        assert text.count(part) == 1, (part, text)


def test_a_wrong_value_is_not_reported_as_missing_too():
    recipe = {
        "vision": "a",
        "text": "b",
        "use_cpu": True,
        "data": {"a": {"format": "llava", "path": "p"}},
        "save_strategy": "steps",
    }
    for changes, arguments, message in (
        ({"eval_strategy": 5, "load_best_model_at_end": True}, [], "`eval_strategy` is the number 5"),
        ({"data": "x"}, [], "`data` is 'x'"),
        ({"vision": ["a"]}, [], r"`vision` is \['a'\]"),
        ({}, ["--text"], "`--text` has no value"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            parse_recipe({**recipe, **changes}, arguments)
        assert not hasattr(error.value, "parts"), error.value


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        ({}, ["--split", "train"], "There is no option --split. It is a field of a source: give `--data.a.split`"),
        ({"split": "train"}, [], "A recipe has no 'split'. It is a field of a source: give `--data.a.split`"),
        ({}, ["--data.a.options", "5"], "`options` is 5. Give names with values, such as `--data.NAME.options.FIELD"),
    ],
)
def test_where_a_field_of_a_source_belongs(values, arguments, message):
    source = {"format": "llava", "path": "p"}
    with pytest.raises(ValueError, match=message):
        parse_recipe({"vision": "a", "text": "b", "use_cpu": True, "data": {"a": source}, **values}, arguments)


def test_a_misspelled_recipe():
    with pytest.raises(FileNotFoundError, match="no such file exists. Did you mean 'caption'?"):
        read_recipe("captoin")
