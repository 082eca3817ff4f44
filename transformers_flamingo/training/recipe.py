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

import difflib
import json
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

from .arguments import DataSource, FlamingoTrainingArguments
from .pretraining import TextPretrainingArguments, VisionPretrainingArguments


#: The recipes that are shipped.
RECIPES = Path(__file__).parent / "recipes"


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
            except json.JSONDecodeError as error:
                raise ValueError(f"`model_config` is {self.model_config!r}, which is no JSON ({error}).") from error
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
    return parse_recipe(_read(Path(path)), arguments)


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
    (pretraining, training), _, _ = _parse(_read(Path(path)), arguments, [kind, TrainingArguments], mappings)
    return pretraining, training


def _parse(
    values: dict[str, Any], arguments: Sequence[str], kinds: Sequence[type], mapping_names: Sequence[str]
) -> tuple[Sequence[Any], dict[str, Any], str]:
    """The dataclasses of a recipe, its fields that are mappings, and all of it as YAML."""
    arguments = list(arguments)
    for change in _take_changes(arguments, mapping_names):
        values = _merge(values, change)
    mappings = {name: values.pop(name, None) or {} for name in mapping_names}
    parser = _Parser(kinds, allow_abbrev=False)
    known = {action.dest for action in parser._actions} - {"help"}
    for name in values:
        if name not in known:
            raise ValueError(f"A recipe has no {name!r}.{_suggest(name, [*known, *mapping_names])}")
    # As text, so that the parser's own types check it
    defaults = {name: str(v) if isinstance(v, str | int | float) else v for name, v in values.items() if v is not None}
    for action in parser._actions:
        action.required = action.required and action.dest not in defaults
    defaults |= {name: mappings[name] or None for name in mapping_names if name in known}
    parser.set_defaults(**defaults)
    parsed = parser.parse_args_into_dataclasses(arguments, look_for_args_file=False)

    names = _options(arguments)
    given = {name: getattr(part, name) for part in parsed for name in names if hasattr(part, name)}
    text = {**values, **_plain(given), **{k: v for k, v in mappings.items() if v and k not in given}}
    return parsed, mappings, yaml.safe_dump(text, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 in two points: `1e-4` is a number, and a name that is there twice an error."""


def _without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [key.value for key, _ in node.value]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is there twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _without_duplicates)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if not path.is_file() and (RECIPES / f"{path}.yaml").is_file():
        path = RECIPES / f"{path}.yaml"
    if not path.is_file():
        shipped = sorted(p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml"))
        raise FileNotFoundError(
            f"There is no recipe {str(path)!r}. Give a YAML file, or one that is shipped: {', '.join(shipped)}."
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{str(path)!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} holds {type(values).__name__}, where names with values should be.")
    base = values.pop("base", None)
    if base is None:
        return values
    above = (*above, path.resolve())
    beside = path.parent / base
    base = beside if beside.is_file() else Path(base)
    if base.resolve() in above:
        raise ValueError(f"{str(path)!r} begins with {str(base)!r}, which begins with it: a recipe has no end so.")
    return _merge(_read(base, above), values)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mapping by mapping; `None` takes out."""
    merged = dict(base)
    for name, value in changes.items():
        if isinstance(value, dict):
            merged[name] = _merge(merged[name] if isinstance(merged.get(name), dict) else {}, value)
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def _take_changes(arguments: list[str], mapping_names: Sequence[str]) -> list[dict[str, Any]]:
    """Take `--data.NAME.FIELD VALUE`, and `--NAME null` of any name, out of the arguments: as changes of the recipe."""
    changes, kept = [], []
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        name, equals, value = argument.removeprefix("--").partition("=")
        path = name.split(".")
        is_option = argument.startswith("--")
        is_dotted = is_option and len(path) > 1 and path[0] in mapping_names
        if is_dotted and not equals:
            if not waiting:
                raise ValueError(f"{argument} has no value.")
            value = waiting.popleft()
        elif is_option and not equals and waiting and waiting[0] == "null":
            value = waiting.popleft()
        if not is_dotted and not (is_option and value == "null"):
            kept.append(argument)
            continue
        change: Any = _scalar(value)
        for key in reversed(path if is_dotted else [name.replace("-", "_")]):
            change = {key: change}
        changes.append(change)
    arguments[:] = kept
    return changes


def _scalar(text: str) -> Any:
    """A value of the command line: `"question: {question}"` is a text there, and no mapping."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) and not text.startswith("{") else value


def _sources(kind: str, mapping: Any, root: str | None) -> list[DataSource]:
    if not isinstance(mapping, dict):
        raise ValueError(f"`{kind}` is {mapping!r}. It maps the name of each source to its fields.")
    known = [f.name for f in fields(DataSource) if f.name != "name"]
    sources = []
    for name, values in mapping.items():
        if not isinstance(values, dict):
            raise ValueError(f"`{kind}.{name}` is {values!r}. It maps names to values, `format` and `path` at least.")
        for key in values:
            if key not in known:
                raise ValueError(f"`{kind}.{name}` has {key!r}, which no source has.{_suggest(key, known)}")
        missing = [key for key in ("format", "path") if key not in values]
        if missing:
            raise ValueError(f"`{kind}.{name}` has no {' and no '.join(map(repr, missing))}.")
        source = DataSource(name=str(name), **values)
        if root is not None and "://" not in source.path:
            source = replace(source, path=os.path.join(root, source.path))
        sources.append(source)
    return sources


def _options(arguments: list[str]) -> list[str]:
    """The names of what was given on the command line."""
    names = [a.removeprefix("--").partition("=")[0].replace("-", "_") for a in arguments if a.startswith("--")]
    return [name.removeprefix("no_") for name in names]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As YAML can say it."""
    values = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
    plain = (str, int, float, list, dict)
    return {name: v if isinstance(v, plain) else str(v) for name, v in values.items() if v is not None}


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else f" There are {', '.join(sorted(known))}."
