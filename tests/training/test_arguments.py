# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import pytest
from transformers import HfArgumentParser

from transformers_flamingo.training import DataSource, FlamingoTrainingArguments


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "webdataset", "Known formats are image_text_pairs, obelics"),
        ("weight", 0.0, "above 0"),
        ("batch_size", 0, "at least 1"),
        ("max_length", 1.5, "whole number"),
        ("max_images", -1, "at least 1"),
        ("next_image_probability", 1.5, "from 0 to 1"),
        (
            "options",
            {"min_similarity": 0.2},
            r"has no \['min_similarity'\]. Its options are \['media_root', 'prompt'\]",
        ),
    ],
)
def test_a_source_refuses_a_value_and_names_itself_the_field_and_the_value(field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        DataSource(**{"name": "laion", "format": "image_text_pairs", "path": "x", field: value})
    assert "Data source 'laion'" in str(error.value)
    assert f"`{field}` is {value!r}" in str(error.value)


def test_a_source_needs_a_name():
    with pytest.raises(ValueError, match="has the name ''"):
        DataSource(name="", format="mmc4", path="x")


def test_options_reach_the_reader():
    source = DataSource(name="a", format="mmc4", path="x", options={"min_similarity": 0.25})
    assert source.reader.min_similarity == 0.25


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("files", [[], ["metadata.csv"]])
def test_a_source_that_cannot_be_loaded_or_is_empty_stops_the_run_with_its_name(tmp_path, files, streaming):
    for file in files:
        (tmp_path / file).write_text("file_name,text\n")
    source = DataSource(name="laion", format="image_text_pairs", path=str(tmp_path), streaming=streaming)
    with pytest.raises(ValueError, match=r"Data source 'laion'.* the run stops"):
        source.load()


def test_arguments_refuse_what_cannot_train(tmp_path):
    with pytest.raises(ValueError, match="'both'. Known strategies are accumulate, round_robin"):
        FlamingoTrainingArguments(output_dir=str(tmp_path), mixture_strategy="both")
    with pytest.raises(ValueError, match="`gate_learning_rate_multiplier` is 0"):
        FlamingoTrainingArguments(output_dir=str(tmp_path), gate_learning_rate_multiplier=0.0)


def test_arguments_come_from_a_command_line(tmp_path):
    parser = HfArgumentParser(FlamingoTrainingArguments)
    (arguments,) = parser.parse_args_into_dataclasses(
        [
            "--output_dir",
            str(tmp_path),
            "--mixture_strategy",
            "round_robin",
            "--skip_bad_samples",
            "--use_cpu",
            "--packing",
        ]
    )
    assert (arguments.mixture_strategy, arguments.skip_bad_samples, arguments.packing) == ("round_robin", True, True)
    assert (arguments.weight_decay, arguments.remove_unused_columns) == (0.1, False)
