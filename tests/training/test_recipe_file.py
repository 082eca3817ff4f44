# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Any file and any command line give a recipe or one clear error, without delay, wherever they come from."""

import os
import random
from pathlib import Path

import pytest
import yaml

from transformers_flamingo.pretraining import TextPretrainingArguments, read_pretraining_recipe
from transformers_flamingo.training import parse_recipe, read_recipe
from transformers_flamingo.training.recipe_file import RECIPES
from transformers_flamingo.utils import plugins
from transformers_flamingo.utils.plugins import plugin_path


PLAIN = "vision: a\ntext: b\nuse_cpu: true\ndata: {c: {format: llava, path: p}}\n"


def refused(path, match: str, arguments=(), error=ValueError) -> str:
    with pytest.raises(error, match=match) as caught:
        read_recipe(path, arguments)
    message = str(caught.value)
    assert len(message) < 2500
    assert "\n" not in message
    return message


def refused_text(tmp_path, text: str | bytes, match: str, arguments=()) -> str:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return refused(path, match, arguments)


def bomb(name: str, levels: int = 40) -> str:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\n{name}: *a{levels - 1}\n"


@pytest.mark.parametrize("name", ["vision", "data", "max_steps", "model_config", "nonsense", "base", "report_to"])
def test_aliases_that_multiply_are_refused_at_once(tmp_path, name):
    refused_text(tmp_path, bomb(name), "aliases written out")
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{k: *a{i - 1}, l: *a{i - 1}}}" for i in range(1, 40)]
    refused_text(tmp_path, "\n".join(lines) + f"\n{name}: *a39\n", "aliases written out|nested too deeply")
    merged = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 18)]
    refused_text(tmp_path, "\n".join(merged), "aliases written out|nested too deeply")


def test_aliases_that_do_not_multiply_are_fine(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "vision: a\ntext: b\nuse_cpu: true\n"
        "data:\n  one: &one {format: llava, path: p, weight: 2}\n  two: {<<: *one, path: q}\n"
    )
    first, second = read_recipe(tmp_path / "r.yaml").data
    assert (first.path, first.weight, second.path, second.weight) == ("p", 2, "q", 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: &a {b: *a}", "nested too deeply"),
        ("x" * 300_000, "has more than 262,144 bytes"),
        (PLAIN + "seed: 1\nseed: 2\n", "'seed' appears twice"),
        (PLAIN + "yes: 1\n", "has the name True"),
        (PLAIN + "1: 1\n", "has the name 1"),
        (PLAIN + "? [a, b]\n: 1\n", "not valid YAML"),
        (PLAIN + "seed: 2020-13-45\n", "not valid YAML"),
        (PLAIN + "seed: 2020-12-05\n", "of type date"),
        (PLAIN + "seed: !!set {a}\n", "of type set"),
        (PLAIN + "seed: !!python/object:os.system {}\n", "not valid YAML"),
        (PLAIN + "seed: 0x" + "f" * 9000 + "\n", "has a number of 36000 bits"),
        (PLAIN + "seed: 1" + "0" * 9000 + "\n", "not valid YAML"),
        (PLAIN + 'output_dir: "\\ud800"\n', "half of a character"),
        (PLAIN + 'output_dir: "a\\0b"\n', "a NUL character"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"vision: caf\xe9\n", "not text in UTF-8"),
        ("", "holds nothing"),
        ("just text", "holds 'just text'"),
        (PLAIN + "max_step: 1\n", "Did you mean .*'max_steps'"),
        (PLAIN + "model_config: {resampler_num_latent: 1}\n", "Did you mean 'resampler_num_latents'"),
        (PLAIN + "model_config: 3\n", "`model_config` is 3. It must map"),
        (PLAIN + "data: 0\n", "appears twice"),
        (PLAIN + "save_strategy: no\n", "`save_strategy` is false.*put the word in quotes"),
        (PLAIN + "output_dir: yes\n", "`output_dir` is true"),
        (PLAIN + "output_dir: 1e3\n", "`output_dir` is the number 1000.0"),
        (PLAIN + "max_steps: true\n", "`max_steps` is true"),
        (PLAIN + "max_steps: [1]\n", "`max_steps` is .1., a list, where a single value should be"),
        (PLAIN + "learning_rate: {a: 1}\n", "`learning_rate` is {'a': 1}, a mapping, where a single value should be"),
        (PLAIN + "report_to: [[tensorboard]]\n", "`report_to` is .*, where a list of texts should be"),
        (PLAIN + "learning_rate: .nan\n", "`learning_rate` is nan"),
        (PLAIN + "weight_decay: -.inf\n", "`weight_decay` is -inf"),
        (PLAIN + "lr_scheduler_type: cosin\n", "cosin"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path, text, match):
    refused_text(tmp_path, text, match)


@pytest.mark.parametrize(
    ("base", "match", "error"),
    [
        ("yes", "`base` is True.*in quotes", ValueError),
        ("3", "`base` is 3", ValueError),
        ("[a]", "`base` is", ValueError),
        ("''", "`base` is ''", ValueError),
        ("r.yaml", "never ends", ValueError),
        ("./sub/../r.yaml", "never ends", ValueError),
        ("link.yaml", "never ends", ValueError),
        ("folder", "a folder", FileNotFoundError),
        ("pipe", "instead of a file", FileNotFoundError),
        ("loop", "no recipe", FileNotFoundError),
        ("missing.yaml", "no such file", FileNotFoundError),
        ("x" * 5000, "no such file", FileNotFoundError),
        ("/dev/zero", "instead of a file", FileNotFoundError),
    ],
)
def test_a_base_that_is_not_one(tmp_path, base, match, error):
    (tmp_path / "folder").mkdir()
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text(f"base: {base}\n{PLAIN}")
    if base in ("pipe", "folder"):
        base = str(tmp_path / base)
        (tmp_path / "r.yaml").write_text(f"base: {base}\n{PLAIN}")
    refused(tmp_path / "r.yaml", match, error=error)


def test_a_long_chain_of_bases(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml\n")
    refused(tmp_path / "0.yaml", "more than 20 recipes")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_recipe_that_is_not_a_file(tmp_path, kind):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / kind, "instead of a file", error=FileNotFoundError)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--max_step", "1"], "no option --max_step.*Did you mean .*'max_steps'"),
        (["--data" + ".x" * 5000, "1"], "with a name in each place"),
        (["--data..weight", "1"], "with a name in each place"),
        (["--data.c.weight", "[" * 5000], "nested too deeply"),
        (["--data.c", "3"], "`data.c` is 3"),
        (["--data", "3"], "`data` is 3"),
        (["--data.c.wieght", "3"], "'wieght'.*'weight'"),
        (["--model_config", "{"], "not valid YAML"),
        (["--model_config.resampler_num_latent", "3"], "'resampler_num_latents'"),
        (["3"], "'3' on the command line belongs to no option"),
        (["--max_steps"], "`--max_steps` has no value"),
        (["--max_steps", "x" * 5000], "`--max_steps` is 'xxx.*Give a whole number"),
    ],
)
def test_a_mistake_on_the_command_line(tmp_path, arguments, match):
    refused_text(tmp_path, PLAIN, match, arguments)


def test_all_and_part_of_a_mapping_on_one_command_line():
    values = yaml.safe_load(PLAIN)
    arguments = ["--model_config", '{"resampler_num_latents": 2}', "--model_config.resampler_num_layers", "3"]
    expected = {"resampler_num_latents": 2, "resampler_num_layers": 3}
    assert parse_recipe(values, arguments).model.model_config == expected
    values["model_config"] = '{"resampler_num_latents": 2}'
    assert parse_recipe(values, arguments[2:]).model.model_config == expected
    values["model_config"] = {"resampler_num_heads": 4}
    assert parse_recipe(values, arguments[:2]).model.model_config == {"resampler_num_latents": 2}


@pytest.mark.parametrize("name", ["hub_token", "hub-token"])
def test_no_secret_is_in_its_text_or_its_errors(tmp_path, name):
    values = yaml.safe_load(PLAIN) | {"hub_token": "hf_inthefile1234"} | {"deepspeed": None}
    values["data"]["c"]["path"] = "https://user:pass1234@host/x.tar"
    values["model_config"] = {"text_token": "tokenoftext"}
    recipe = parse_recipe(values, [f"--{name}", "hf_ontheline1234"])
    assert recipe.training.hub_token == "hf_ontheline1234"
    for secret in ("hf_", "pass1234", "tokenoftext"):
        assert secret not in recipe.text
    assert recipe.text.startswith("# Tokens and passwords were removed")
    with pytest.raises(ValueError, match="no option --hub_tokn") as error:
        parse_recipe(values, ["--hub_tokn", "hf_ontheline1234"])
    assert "hf_" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be opened|no row") as error:
        recipe.data[0].load()
    assert "pass1234" not in str(error.value)


WORDS = [
    "vision",
    "text",
    "data",
    "base",
    "max_steps",
    "learning_rate",
    "use_cpu",
    "format",
    "path",
    "weight",
    "options",
]
WORDS += [
    "model_config",
    "evaluation",
    "batch_size",
    "report_to",
    "lora_rank",
    "hub_token",
    "eval_strategy",
    "seed",
    "x",
]
SCALARS = [
    "1",
    "-1",
    "1e-4",
    "1.5",
    "true",
    "no",
    "null",
    "~",
    "llava",
    "obelics",
    "''",
    '"a b"',
    ".nan",
    ".inf",
    "0x1f",
]
SCALARS += [
    "2020-01-01",
    "*a",
    "&a 1",
    "!!binary aGk=",
    "!!int x",
    "<<",
    "%",
    "@",
    "- 1",
    "{",
    "]",
    "\u2028",
    "a: b",
    "|",
]


def random_yaml(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if depth > 3 or kind < 0.5:
        return chance.choice(SCALARS + WORDS)
    items = [random_yaml(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind < 0.65:
        return "[" + ", ".join(items) + "]"
    return "{" + ", ".join(f"{chance.choice(WORDS)}: {item}" for item in items) + "}"


def test_any_text_and_any_options_give_a_recipe_or_a_clear_error(tmp_path):
    chance = random.Random(0)
    shipped = [*sorted(RECIPES.glob("*.yaml")), Path(plugin_path(plugins.RECIPES, "miniature"))]
    counts = {"recipe": 0, "error": 0}
    for _ in range(int(os.environ.get("FLAMINGO_FUZZ", 150))):
        if chance.random() < 0.5:  # a good recipe with a mistake or two
            text = chance.choice([PLAIN, chance.choice(shipped).read_text()])
            lines = text.splitlines()
            for _ in range(chance.randrange(3)):
                place = chance.randrange(len(lines) + 1)
                lines[place : place + chance.randrange(2)] = [f"{chance.choice(WORDS)}: {random_yaml(chance)}"]
            text = "\n".join(lines) + "\nuse_cpu: true\nbf16: false\n" * chance.randrange(2)
        else:
            text = "\n".join(f"{chance.choice(WORDS)}: {random_yaml(chance)}" for _ in range(chance.randrange(6)))
        if chance.random() < 0.1:
            text = "".join(chance.choice(text + "\t\0:-{}[]&*!|>'\"%") for _ in range(len(text)))
        arguments = []
        for _ in range(chance.randrange(3)):
            name = ".".join(chance.choice(WORDS) for _ in range(1 + chance.randrange(3)))
            arguments += [f"--{name}", random_yaml(chance, 3)][: 1 + chance.randrange(2)]
        (tmp_path / "r.yaml").write_bytes(text.encode())
        try:
            if chance.random() < 0.9:
                read_recipe(tmp_path / "r.yaml", arguments)
            else:
                read_pretraining_recipe(TextPretrainingArguments, tmp_path / "r.yaml", arguments)
            counts["recipe"] += 1
            message = ""
        except (ValueError, FileNotFoundError, ImportError) as error:
            message = str(error)
            counts["error"] += 1
        assert len(message) < 3500, text
    assert min(counts.values()) > 0
    print(counts)


@pytest.mark.parametrize("number", ["1:30", "0100", "-1:0:0"])
def test_a_number_that_yaml_would_change_is_refused(tmp_path, number):
    refused_text(tmp_path, f"{PLAIN}max_steps: {number}", "is read as another number")


def test_whole_numbers_keep_their_value(tmp_path):
    (tmp_path / "r.yaml").write_text(f"{PLAIN}max_steps: 1_000\nseed: 0\nlogging_steps: 0x10\n")
    training = read_recipe(tmp_path / "r.yaml").training
    assert (training.max_steps, training.seed, training.logging_steps) == (1000, 0, 16)
