# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
A recipe: a YAML file that says what is trained, on what, and how.

    vision: openai/clip-vit-base-patch32     # ModelArguments
    text: gpt2
    model_config: {cross_attention_every_n_layers: 2}
    max_steps: 1000                          # FlamingoTrainingArguments, which are TrainingArguments
    learning_rate: 1e-4
    data:                                    # the mixture: DataSource by name
      captions: {format: image_text_pairs, path: captions/train, weight: 0.2, batch_size: 16}
      pages: {format: obelics, path: "pages/*.parquet", batch_size: 8}
    evaluation:                              # what it is measured on: DataSource by name
      captions: {format: image_text_pairs, path: captions/val, batch_size: 16}

`base: other.yaml` begins with another recipe, and `null` takes a source or a setting out of it.
"""

import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..configuration_flamingo import FlamingoConfig
from ..pretraining.pretraining import TextPretrainingArguments, VisionPretrainingArguments
from ..utils.redaction import explain, one_line, redact_values
from .arguments import DataSource, FlamingoTrainingArguments, SecretFreeTrainingArguments
from .recipe_file import check_values, merge, parse_yaml, read_recipe_file, show, suggest


@dataclass
class ModelArguments:
    """
    The model that a recipe trains: a saved Flamingo, or two backbones joined anew.

    Args:
        model (`str`, *optional*): Name or directory of a Flamingo to go on from.
        vision, text (`str`, *optional*):
            Without it, names or directories of the backbones. `miniature` is the one that is shipped.
        model_config (`dict`, *optional*): Fields of [`FlamingoConfig`] for a new model.
        train_vision, train_text (`bool`, *optional*, defaults to `False`): Whether that backbone is trained too.
        text_from_scratch (`bool`, *optional*, defaults to `False`):
            Whether the language model starts from random weights. It is trained then.
        lora_rank (`int`, *optional*): Trains adapters of this rank on the language model ([`lora_config`]).
        lora_alpha (`int`, *optional*): Their scale; twice the rank by default.
        quantization (`str`, *optional*): Keeps the frozen language model in `"4bit"` or `"8bit"` (bitsandbytes).

    Raises:
        ValueError: the arguments contradict each other.
    """

    model: str | None = field(default=None, metadata={"help": "A saved Flamingo to go on from."})
    vision: str | None = field(default=None, metadata={"help": "Name or directory of the vision encoder."})
    text: str | None = field(default=None, metadata={"help": "Name or directory of the language model."})
    model_config: dict | str | None = field(default=None, metadata={"help": "Fields of FlamingoConfig, as JSON."})
    train_vision: bool = field(default=False, metadata={"help": "Whether to train the vision encoder too."})
    train_text: bool = field(default=False, metadata={"help": "Whether to train the language model too."})
    text_from_scratch: bool = field(default=False, metadata={"help": "Language model from random weights."})
    lora_rank: int | None = field(default=None, metadata={"help": "Rank of adapters on the language model."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Their scale (default: twice the rank)."})
    quantization: Literal["4bit", "8bit"] | None = field(
        default=None, metadata={"help": "Keep the language model in 4 or 8 bits."}
    )

    def __post_init__(self):
        if isinstance(self.model_config, str):
            try:
                self.model_config = json.loads(self.model_config)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(
                    f"`model_config` is {show(self.model_config)}, which is not JSON ({error}). Correct it."
                ) from error
        for name in FlamingoConfig._unknown_names(self.model_config or {}):
            if name not in ("dtype", "torch_dtype") and not name.startswith(("vision_", "text_")):
                known = [f.name for f in fields(FlamingoConfig)]
                raise ValueError(
                    f"`model_config` has {show(name)}, which FlamingoConfig has not.{suggest(name, known)}"
                )
        for name in ("vision_config", "text_config", "image_token_id", "end_of_chunk_token_id"):
            if name in (self.model_config or {}):
                raise ValueError(
                    f"`model_config` has `{name}`, which comes from the backbones and the processor. Remove it. A field of a backbone "
                    "is set as `vision_FIELD` or `text_FIELD`."
                )
        if self.model is None and (self.vision is None or self.text is None):
            raise ValueError(
                f"`model` is not given, `vision` is {self.vision!r} and `text` {self.text!r}. Give `model`, a saved "
                "Flamingo to go on from, or both backbones to join."
            )
        if self.model is not None and (self.vision or self.text or self.model_config or self.text_from_scratch):
            raise ValueError(
                f"`model` is {self.model!r}, which has its backbones and its configuration already: leave out `vision`, "
                "`text`, `model_config` and `text_from_scratch`."
            )
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ValueError(
                f"`lora_alpha` is {self.lora_alpha}, which has no effect without `lora_rank`: no adapters would be trained. Give "
                "`lora_rank`, or remove it."
            )
        if self.lora_rank is not None and (self.train_text or self.train_vision or self.text_from_scratch):
            raise ValueError(
                f"`lora_rank` is {self.lora_rank}: adapters are trained in the place of the language model, and the "
                "vision encoder stays frozen. Leave out `train_text`, `train_vision` and `text_from_scratch`."
            )
        if self.quantization not in (None, "4bit", "8bit"):
            raise ValueError(f"`quantization` is {self.quantization!r}. It can be '4bit' or '8bit'.")
        if self.quantization is not None and (self.train_text or self.text_from_scratch):
            raise ValueError(
                f"`quantization` is {self.quantization!r}, and quantised weights cannot be trained. Leave out "
                "`train_text` and `text_from_scratch`, or train adapters by `lora_rank`."
            )


@dataclass
class DataArguments:
    """
    Args:
        data_root (`str`, *optional*): Where relative paths of the sources start; by default the working directory.
    """

    data_root: str | None = field(default=None, metadata={"help": "Where relative paths of the sources start."})


@dataclass
class Recipe:
    """
    What [`run_recipe`] runs.

    Args:
        model ([`ModelArguments`]): What is trained,
        training ([`FlamingoTrainingArguments`]): how,
        data (`list[DataSource]`): on what, and
        evaluation (`list[DataSource]`): on what it is measured.
        text (`str`): All of it as YAML, to be run again.
    """

    model: ModelArguments
    training: FlamingoTrainingArguments
    data: list[DataSource]
    evaluation: list[DataSource]
    text: str


def read_recipe(path: str | os.PathLike, arguments: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe.

    Args:
        path (`str`): A file, or the name of one of [`RECIPES`], such as `"miniature"`.
        arguments (`Sequence[str]`, *optional*):
            What is different this time, as on the command line: `["--max_steps", "10", "--data.captions.weight", "2"]`.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: it has a name or a value that is not known. The message says which.
    """
    return parse_recipe(read_recipe_file(Path(path)), arguments)


def parse_recipe(values: dict[str, Any], arguments: Sequence[str] = ()) -> Recipe:
    """As [`read_recipe`], from the dictionary that the YAML file says."""
    kinds = [ModelArguments, DataArguments, FlamingoTrainingArguments]
    (model, data, training), mappings, text = _parse(values, arguments, kinds, ("model_config", "data", "evaluation"))
    sources = {kind: _sources(kind, mappings[kind], data.data_root) for kind in ("data", "evaluation")}
    if not sources["data"]:
        raise ValueError("The recipe has no `data`, so there is nothing to train on. Name at least one source.")
    return Recipe(model, training, **sources, text=text)


def read_pretraining_recipe(
    kind: type[VisionPretrainingArguments] | type[TextPretrainingArguments],
    path: str | os.PathLike,
    arguments: Sequence[str] = (),
) -> tuple[VisionPretrainingArguments | TextPretrainingArguments, TrainingArguments]:
    """As [`read_recipe`], for [`pretrain_vision`] or [`pretrain_text`]: their arguments."""
    mappings = [f.name for f in fields(kind) if f.name.endswith(("_config", "_options"))]
    (pretraining, training), _, _ = _parse(
        read_recipe_file(Path(path)), arguments, [kind, SecretFreeTrainingArguments], mappings
    )
    return pretraining, training


def _parse(
    values: dict[str, Any], arguments: Sequence[str], kinds: Sequence[type], mapping_names: Sequence[str]
) -> tuple[Sequence[Any], dict[str, Any], str]:
    """Return the dataclasses of a recipe, its fields that are mappings, and all of it as YAML."""
    check_values(values, "The recipe")
    values = dict(values)
    arguments = list(arguments)
    for name in mapping_names:
        values[name] = _mapping(name, values.get(name))
    for change in _take_changes(arguments, mapping_names):
        values = merge(values, change)
    mappings = {name: values.pop(name, None) or {} for name in mapping_names}
    parser = _Parser(kinds, allow_abbrev=False)
    known = {action.dest for action in parser._actions} - {"help"}
    types = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"A recipe has no {show(name)}.{suggest(name, [*known, *mapping_names])}")
        _check_type(name, value, types[name])
    # As text, so that the parser's own types check it
    defaults = {name: str(v) if isinstance(v, str | int | float) else v for name, v in values.items() if v is not None}
    for action in parser._actions:
        action.required = action.required and action.dest not in defaults
    defaults |= {name: mappings[name] or None for name in mapping_names if name in known}
    parser.set_defaults(**defaults)
    names = _options(arguments)
    for name, typed in names.items():
        if name not in known:
            raise ValueError(f"There is no option {show(typed)[1:-1]}.{suggest(name, [*known, *mapping_names])}")
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            arguments, look_for_args_file=False, return_remaining_strings=True
        )
    except (ImportError, OSError, ValueError):
        raise
    except Exception as error:  # what a field of `TrainingArguments` does not expect has another error
        raise ValueError(f"The values of the recipe do not fit: {explain(error)}") from error
    if rest:
        raise ValueError(f"{show(rest[0])} on the command line belongs to no option. Options are --NAME VALUE.")

    given = {name: getattr(part, name) for part in parsed for name in names if hasattr(part, name)}
    text = {**values, **_plain(given), **{k: v for k, v in mappings.items() if v and k not in given}}
    public = {name: value for name, value in redact_values(text).items() if value is not None}
    note = "" if public == {k: v for k, v in text.items() if v is not None} else _SECRETS_NOTE
    return parsed, mappings, note + yaml.safe_dump(public, sort_keys=False)


_SECRETS_NOTE = (
    "# Tokens and passwords were removed. Give them in the environment (HF_TOKEN), or on the command line.\n"
)


def _mapping(name: str, value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        value = parse_yaml(value, f"`{name}`")  # of which JSON is a part
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` is {show(value)}. It must map names to values.")
    return value


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that the parser would turn into a text, or not look at."""
    if value is None:
        return
    allowed = {get_origin(member) or member for member in (get_args(hint) or [hint])}
    if isinstance(value, bool) and not allowed & {bool, dict} and name != "resume_from_checkpoint":
        raise ValueError(
            f"`{name}` is {str(value).lower()}, which it cannot be. YAML reads an unquoted yes, no, on or off as true or "
            'false: put the word in quotes, such as "no".'
        )
    if isinstance(value, int | float) and not isinstance(value, bool) and not allowed & {int, float}:
        raise ValueError(f"`{name}` is the number {show(value)}, where a text should be: put it in quotes.")
    if isinstance(value, dict) and dict not in allowed:
        raise ValueError(f"`{name}` is {show(value)}, a mapping, where a single value should be.")
    if isinstance(value, list) and (list not in allowed or not all(isinstance(item, str) for item in value)):
        raise ValueError(
            f"`{name}` is {show(value)}, a list, where a {'list of texts' if list in allowed else 'single value'} should be."
        )


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(one_line(message, 500))


def _take_changes(arguments: list[str], mapping_names: Sequence[str]) -> list[dict[str, Any]]:
    """Take `--data.NAME.FIELD VALUE`, and `--NAME null` of any name, out of the arguments: as changes of the recipe."""
    changes, kept = [], []
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        name, equals, value = argument.removeprefix("--").partition("=")
        path = name.split(".")
        is_option = argument.startswith("--")
        path[0] = path[0].replace("-", "_")
        is_dotted = is_option and path[0] in mapping_names
        if is_dotted and (len(path) > 10 or not all(path)):
            raise ValueError(f"{show(argument)[1:-1]} is not --NAME.FIELD with a name in each place.")
        if is_dotted and not equals:
            if not waiting:
                raise ValueError(f"{show(argument)[1:-1]} has no value. Give one behind it.")
            value = waiting.popleft()
        elif is_option and not equals and waiting and waiting[0] == "null":
            value = waiting.popleft()
        if not is_dotted and not (is_option and value == "null"):
            kept.append(argument)
            continue
        change: Any = _scalar(value)
        if is_dotted and len(path) == 1:  # all of it
            change = _mapping(name, change)
            changes.append({path[0]: None})
        for key in reversed(path if is_dotted else [name.replace("-", "_")]):
            change = {key: change}
        changes.append(change)
    arguments[:] = kept
    return changes


def _scalar(text: str) -> Any:
    """A value of the command line: `"question: {question}"` is a text there, and no mapping."""
    try:
        value = parse_yaml(text, "A value of the command line")
    except ValueError:
        if text.startswith(("{", "[")):
            raise
        return text
    return text if isinstance(value, dict) and not text.startswith("{") else value


def _sources(kind: str, mapping: Any, root: str | None) -> list[DataSource]:
    if not isinstance(mapping, dict):
        raise ValueError(f"`{kind}` is {show(mapping)}. It maps the name of each source to its fields.")
    known = [f.name for f in fields(DataSource) if f.name != "name"]
    sources = []
    for name, values in mapping.items():
        shown = show(name)[1:-1]
        if not isinstance(values, dict):
            raise ValueError(
                f"`{kind}.{shown}` is {show(values)}. It maps names to values, `format` and `path` at least."
            )
        for key in values:
            if key not in known:
                raise ValueError(f"`{kind}.{shown}` has {show(key)}, which no source has.{suggest(key, known)}")
        missing = [key for key in ("format", "path") if key not in values]
        if missing:
            raise ValueError(f"`{kind}.{shown}` has no {' and no '.join(map(repr, missing))}. Add it.")
        source = DataSource(name=name, **values)
        if root is not None and "://" not in source.path:
            source = replace(source, path=os.path.join(root, source.path))
        sources.append(source)
    return sources


def _options(arguments: list[str]) -> dict[str, str]:
    """The fields that were given on the command line, with what was typed for them."""
    typed = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    return {option.removeprefix("--").replace("-", "_").removeprefix("no_"): option for option in typed}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Convert values to what YAML can express."""
    values = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
    plain = (str, int, float, list, dict)
    return {name: v if isinstance(v, plain) else str(v) for name, v in values.items() if v is not None}
