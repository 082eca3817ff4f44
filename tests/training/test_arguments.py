# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The arguments of a training and of its data sources."""

import copy
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from transformers import HfArgumentParser

from transformers_flamingo.training import DataSource, FlamingoTrainingArguments, GenerationEvalDataset
from transformers_flamingo.training.checks import (
    check_arguments_for_mixture,
    check_arguments_without_mixture,
    choose_best_metric,
    find_idle_workers,
)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "webdataset", "Known formats are image_text_pairs, obelics"),
        ("weight", 0.0, "above 0"),
        ("batch_size", 0, "at least 1"),
        ("shuffle_buffer_size", 5, "Without `streaming`, all rows of a source are shuffled"),
        ("shuffle_buffer_size", -1, "0 for the order of the files"),
        ("max_length", 1.5, "whole number"),
        ("max_images", -1, "at least 1"),
        ("next_image_probability", 1.5, "from 0 to 1"),
        (
            "options",
            {"min_similarity": 0.2},
            r"has no \['min_similarity'\]. Its options are \['media_root', 'allow_remote', 'prompt'\]",
        ),
    ],
)
def test_a_refused_value_is_reported_with_its_source_and_field(field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        DataSource(**{"name": "laion", "format": "image_text_pairs", "path": "x", field: value})
    assert "Data source 'laion'" in str(error.value)
    assert f"`{field}` is {value!r}" in str(error.value)


def test_the_error_about_an_option_shows_no_secret():
    with pytest.raises(ValueError, match="has no .*api_key") as error:
        DataSource(name="a", format="llava", path="x", options={"api_key": "abcdef"})
    assert "abcdef" not in str(error.value)


def test_a_source_needs_a_name():
    with pytest.raises(ValueError, match="has the name ''"):
        DataSource(name="", format="mmc4", path="x")


def test_options_reach_the_reader():
    source = DataSource(name="a", format="mmc4", path="x", options={"min_similarity": 0.25})
    assert source.reader.min_similarity == 0.25


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("files", [[], ["metadata.csv"]])
def test_a_source_that_cannot_be_loaded_or_is_empty_stops_the_run(tmp_path, files, streaming):
    for file in files:
        (tmp_path / file).write_text("file_name,text\n")
    source = DataSource(name="laion", format="image_text_pairs", path=str(tmp_path), streaming=streaming)
    with pytest.raises(ValueError, match=r"Data source 'laion'.* the run was stopped"):
        source.load()


def test_arguments_that_cannot_train_are_refused(tmp_path):
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


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("per_device_train_batch_size", 32, r"set `data.a.batch_size` \(now 2\), `data.b.batch_size` \(now 4\)"),
        ("per_device_train_batch_size", 8, r"set `data.a.batch_size` \(now 2\)"),
        ("dataloader_drop_last", True, "Remove it"),
        ("dataloader_in_order", False, "Remove it"),
        ("train_sampling_strategy", "group_by_length", "`data.NAME.streaming`"),
        ("train_sampling_strategy", "sequential", "`data.NAME.streaming`"),
        ("length_column_name", "size", "Remove it"),
        ("remove_unused_columns", True, "Remove it"),
        ("average_tokens_across_devices", False, "Remove it"),
        ("label_smoothing_factor", 0.1, "not supported with a mixture"),
        ("auto_find_batch_size", True, "Lower `data.NAME.batch_size`"),
        ("use_liger_kernel", True, "no kernels"),
        ("accelerator_config", {"split_batches": True}, "`split_batches`"),
        ("accelerator_config", {"dispatch_batches": True}, "`dispatch_batches`"),
        ("logging_strategy", "epoch", "`logging_steps`"),
        ("eval_strategy", "epoch", "`eval_steps`"),
        ("save_strategy", "epoch", "`save_steps`"),
    ],
)
def test_an_argument_without_effect_on_a_mixture_is_refused(tmp_path, field, value, remedy):
    args = FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{field: value})
    sources = [DataSource(name=name, format="llava", path="x", batch_size=size) for name, size in (("a", 2), ("b", 4))]
    name = "accelerator_config" if field == "accelerator_config" else field
    with pytest.raises(ValueError, match=rf"(?s)`{name}`.*{remedy}"):
        check_arguments_for_mixture(args, sources)


def test_arguments_that_agree_with_a_mixture_are_fine(tmp_path):
    sources = [DataSource(name="a", format="llava", path="x", batch_size=4)]
    defaults = FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    same = FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    for args in (defaults, replace(defaults, seed=1), pickle.loads(pickle.dumps(defaults)), same):
        check_arguments_for_mixture(args, sources)
    assert defaults.train_batch_size == 8


def test_counting_tokens_without_padding_excludes_packing(tmp_path):
    kwargs = {"output_dir": str(tmp_path), "use_cpu": True, "include_num_input_tokens_seen": "non_padding"}
    check_arguments_for_mixture(FlamingoTrainingArguments(**kwargs), [])
    with pytest.raises(ValueError, match="no attention mask"):
        check_arguments_for_mixture(FlamingoTrainingArguments(**kwargs, packing=True), [])


@pytest.mark.parametrize("change", [{"mixture_strategy": "round_robin"}, {"skip_bad_samples": True}])
def test_an_argument_that_only_a_mixture_uses(tmp_path, change):
    args = FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **change)
    with pytest.raises(ValueError, match="not a DataMixture"):
        check_arguments_without_mixture(args)


def test_more_workers_than_cpus_are_said_once(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert find_idle_workers(2) is None
    assert find_idle_workers(4) == (
        "`dataloader_num_workers` is 4, and there are 2 CPUs, so workers wait for each other. Give `--dataloader_num_workers 2`."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "max_grad_norm", "gate_learning_rate_multiplier"])
def test_numbers_are_finite(tmp_path, field, value):
    with pytest.raises(ValueError, match=f"`{field}` is {value}"):
        FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{field: value})


BEST = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"load_best_model_at_end": True},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"metric_for_best_model": "loss"},
        {"save_strategy": "best", "metric_for_best_model": "eval_loss"},
    ],
)
def test_the_metric_of_the_best_model_exists_or_is_an_error(tmp_path, kwargs):
    def arguments(**more):
        return FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{**BEST, **kwargs, **more})

    rows = object.__new__(GenerationEvalDataset)
    args = arguments()
    choose_best_metric(args, {"a": rows})
    assert (args.metric_for_best_model, args.greater_is_better) == ("a_loss", False)
    args = arguments()
    choose_best_metric(args, rows)
    assert args.metric_for_best_model in ("loss", "eval_loss")
    with pytest.raises(ValueError, match="Set it to one of a_loss, a_exact_match, a_word_f1, a_blind_loss.*, b_loss"):
        choose_best_metric(arguments(), {"a": rows, "b": rows})
    with pytest.raises(ValueError, match="nothing is evaluated"):
        choose_best_metric(arguments(), None)
    args = arguments(metric_for_best_model="b_word_f1")
    choose_best_metric(args, {"a": rows, "b": rows})
    assert (args.metric_for_best_model, args.greater_is_better) == ("b_word_f1", True)
    with pytest.raises(ValueError, match="'cider', which the evaluation does not have"):
        choose_best_metric(arguments(metric_for_best_model="cider"), {"a": rows})
    choose_best_metric(arguments(metric_for_best_model="cider"), {"a": rows}, has_own_metrics=True)


def test_pickled_and_logged_arguments_hold_no_secret(tmp_path):
    secrets = ["hf_secretsecret", "wandbkey", "pass1234"]
    args = FlamingoTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        hub_token=secrets[0],
        lr_scheduler_kwargs={"nested": [{"api_key": secrets[1]}]},
        run_name=f"https://user:{secrets[2]}@host/x",
    )
    torch.save(args, tmp_path / "training_args.bin")
    written = zipfile.ZipFile(tmp_path / "training_args.bin")
    content = b"".join(written.read(name) for name in written.namelist()).decode("latin-1")
    for text in (content, args.to_json_string(), str(args.to_sanitized_dict()), str(args), repr(args)):
        assert not [secret for secret in secrets if secret in text]
    loaded = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (loaded.hub_token, loaded.learning_rate) == (None, args.learning_rate)
    for twin in (copy.copy(args), copy.deepcopy(args), args):  # in this process they are complete
        assert twin.hub_token == secrets[0]
        assert twin.lr_scheduler_kwargs == {"nested": [{"api_key": secrets[1]}]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logging_steps": 0}, "`logging_steps` is 0, but it must be above 0"),
        ({"max_steps": 0}, "`max_steps` is 0, but a training has at least 1 step"),
        ({"max_steps": -5}, "`max_steps` is -5"),
        ({"seed": -1}, "`seed` is -1, but it must be from 0"),
        ({"dataloader_num_workers": -1}, "`dataloader_num_workers` is -1"),
        ({"report_to": "tensorboad"}, "`report_to` is 'tensorboad'. Did you mean 'tensorboard'"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "no"},
            "`eval_strategy` is 'no' and `save_strategy` 'steps'",
        ),
        ({"lr_scheduler_type": "cosin"}, "`lr_scheduler_type` is 'cosin'. Did you mean 'cosine'"),
    ],
)
def test_a_stock_field_that_cannot_have_its_value_is_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **arguments)
    assert not hasattr(error.value, "parts"), error.value
    assert FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=-1).max_steps == -1
