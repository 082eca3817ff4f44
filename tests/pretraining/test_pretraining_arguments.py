# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The arguments of pretraining, on a command line and checked."""

import pytest
from runs import TOWERS
from transformers import HfArgumentParser, TrainingArguments

from transformers_flamingo.pretraining import TextPretrainingArguments, VisionPretrainingArguments


def test_arguments_combine_with_those_of_the_trainer(tmp_path):
    line = ["--data_path", "a/*.tar", "--vision", "v", "--text_config", '{"model_type": "bert"}', "--max_steps", "3"]
    arguments, training = HfArgumentParser(
        [VisionPretrainingArguments, TrainingArguments]
    ).parse_args_into_dataclasses([*line, "--output_dir", str(tmp_path)])
    assert (arguments.text_config, arguments.data_format, training.max_steps) == (
        {"model_type": "bert"},
        "image_text_pairs",
        3,
    )
    values = {"data_path": "a", "text": "t", "data_options": {"media_root": "m"}, "output_dir": str(tmp_path)}
    arguments, _ = HfArgumentParser([TextPretrainingArguments, TrainingArguments]).parse_dict(values)
    assert arguments.reader.media_root == "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_format": "tfrecord"}, "Known formats are text, image_text_pairs"),
        ({"text": "gpt2"}, "`text` is 'gpt2' and `text_config` is"),
        ({"vision_config": None}, "`vision` is None and `vision_config` is None"),
        ({"text_config": "{"}, "which is not JSON"),
        ({"vision_config": {"hidden_size": 3}}, "without `model_type`"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VisionPretrainingArguments(**{"data_path": "a", **TOWERS, **change})
