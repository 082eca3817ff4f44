# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of OpenFlamingo: the converted model is the one that was trained, and what does not fit is refused."""

import json
import os
import stat

import pytest
import torch
from factory import VOCAB_SIZE
from huggingface_hub import ModelCard
from peers import GPT2, GPT_NEOX, LLAMA, MPT, OPT, logits_of, rewrite, write_open_flamingo
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo.conversion import convert_open_flamingo
from transformers_flamingo.conversion.open_flamingo import OPEN_CLIP_NAMES, RELEASES


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("family", [GPT2, OPT, LLAMA, MPT, GPT_NEOX], ids=lambda family: family[0])
def test_the_converted_model_is_the_one_that_was_trained(family, every, tmp_path):
    files = write_open_flamingo(tmp_path, *family, every=every)
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits_of(model), logits_of(files.model))
    assert model.config.cross_attention_layer_indices == files.model.config.cross_attention_layer_indices
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert (processor.end_of_chunk_token_id, processor.image_token_id) == (VOCAB_SIZE - 2, VOCAB_SIZE - 1)


def test_a_text_model_with_other_rows_is_resized_to_those_of_the_checkpoint(tmp_path):
    """The published 4B has 50,280 rows, its language model 50,432."""
    files = write_open_flamingo(tmp_path, *GPT_NEOX)
    for rows in (VOCAB_SIZE + 13, VOCAB_SIZE - 2):
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
        base.resize_token_embeddings(rows)
        base.save_pretrained(tmp_path / f"text{rows}")
        files.options["text"] = tmp_path / f"text{rows}"
        convert_open_flamingo(files.checkpoint, tmp_path / f"out{rows}", **files.options)
        model = AutoModelForImageTextToText.from_pretrained(tmp_path / f"out{rows}").eval()
        assert torch.equal(logits_of(model), logits_of(files.model))


def test_output_rows_that_no_file_holds_are_the_mean_of_the_others(tmp_path, caplog):
    """LLaMA has an untied output embedding, which was not trained and is not in the checkpoint."""
    files = write_open_flamingo(tmp_path, *LLAMA)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    base.resize_token_embeddings(VOCAB_SIZE - 2)
    base.save_pretrained(tmp_path / "base")
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **{**files.options, "text": tmp_path / "base"})
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    converted, trained = logits_of(model), logits_of(files.model)
    torch.testing.assert_close(converted[..., :-2], trained[..., :-2])
    torch.testing.assert_close(converted[..., -1], trained[..., :-2].mean(dim=-1))
    assert "rows 97 to 98" in caplog.text


def test_an_output_embedding_that_was_trained_apart_stays_untied(tmp_path):
    files = write_open_flamingo(tmp_path, *OPT)
    head = torch.randn(VOCAB_SIZE, 32)
    rewrite(files.checkpoint, lambda keys: keys.update({"lang_encoder.lm_head.weight": head}))
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert torch.equal(model.get_output_embeddings().weight, head)
    assert torch.equal(model.get_input_embeddings().weight, files.model.get_input_embeddings().weight)


def test_layouts_of_older_files_are_read(tmp_path):
    """Distributed training prefixed names with `module.`. Version 1 saved blocks and decoder layers twice, and buffers."""
    files = write_open_flamingo(tmp_path, *GPT2, every=2)
    layers = files.model.language_model.transformer.h

    def change(keys):
        for key in list(keys):
            if ".gated_cross_attn_layer." in key:
                keys[key.replace("transformer.h.1.gated_cross_attn_layer.", "gated_cross_attn_layers.1.")] = keys[key]
        for index, layer in enumerate(layers):
            for name, value in layer.state_dict().items():
                keys[f"lang_encoder.old_decoder_blocks.{index}.{name}"] = value
            keys[f"lang_encoder.transformer.h.{index}.decoder_layer.attn.bias"] = torch.ones(1, 1, 8, 8).bool()
        keys["vision_encoder.visual.class_embedding"] = files.model.vision_model.embeddings.class_embedding.detach()
        return {"epoch": 3, "model_state_dict": {f"module.{key}": value for key, value in keys.items()}}

    rewrite(files.checkpoint, change)
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert torch.equal(
        logits_of(AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()), logits_of(files.model)
    )
    skipped = {row.source: row.reason for row in table if row.target is None}
    assert len(skipped) == 4 and "frozen" in skipped["module.vision_encoder.visual.class_embedding"]
    assert "old buffer" in skipped["module.lang_encoder.transformer.h.0.decoder_layer.attn.bias"]


def test_the_table_names_each_tensor_and_joined_ones_twice(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    table = convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options, dry_run=True)
    assert not (tmp_path / "out").exists()
    rows = {row.target: row for row in table}
    source = "lang_encoder.transformer.h.2.gated_cross_attn_layer.attn.to_kv.weight"
    key, value = (rows[f"gated_cross_attention.2.attention.{name}.weight"] for name in ("k_proj", "v_proj"))
    assert key.source == value.source == source
    assert key.shape == value.shape == (128, 24)
    assert {row.source for row in table} == torch.load(files.checkpoint, weights_only=True).keys()


def test_missing_unexpected_and_misshapen_tensors_are_listed_and_nothing_is_written(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)

    def change(keys):
        del keys["perceiver.layers.1.0.to_q.weight"]
        keys["lang_encoder.nonsense.weight"] = torch.zeros(3)
        keys["perceiver.norm.bias"] = torch.zeros(5)

    rewrite(files.checkpoint, change)
    with pytest.raises(ValueError, match="not converted") as error:
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert "Missing (1): resampler.layers.1.attention.q_proj.weight" in str(error.value)
    assert "Unexpected (1): lang_encoder.nonsense.weight" in str(error.value)
    assert "perceiver.norm.bias (5,), but resampler.norm.bias (24,)" in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "text", "tokenizer", "vision"]


@pytest.mark.parametrize("every", [0, -1, 4])
def test_an_impossible_interval_is_refused(every, tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    files.options["cross_attention_every_n_layers"] = every
    with pytest.raises(ValueError, match=f"--cross-attention-every-n-layers. is {every}, but .* has 3 layers"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)


def test_a_checkpoint_without_its_embedding_needs_a_resized_text(tmp_path, caplog):
    """It is refused unless `text` is resized and may have the trained rows. Padded rows are never trained."""
    files = write_open_flamingo(tmp_path, *GPT2)
    rewrite(files.checkpoint, lambda keys: {key: value for key, value in keys.items() if "wte" not in key})
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert "no input embedding" in caplog.text
    assert torch.equal(
        logits_of(AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()), logits_of(files.model)
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    for rows in (VOCAB_SIZE - 2, VOCAB_SIZE + 5):
        base.resize_token_embeddings(rows)
        base.save_pretrained(tmp_path / "base")
        options = {**files.options, "text": tmp_path / "base"}
        with pytest.raises(ValueError, match=rf"lacks the input embedding \(.*wte.weight\).* it has {rows}"):
            convert_open_flamingo(files.checkpoint, tmp_path / "out2", **options, dry_run=True)


def test_a_checkpoint_without_gated_blocks_names_their_keys(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    rewrite(files.checkpoint, lambda keys: {key: value for key, value in keys.items() if "gated" not in key})
    with pytest.raises(ValueError, match="no key like lang_encoder.*.gated_cross_attn_layer.attn.to_q.weight"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)


def test_a_directory_with_the_checkpoint_is_read(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    table = convert_open_flamingo(tmp_path, tmp_path / "out", **files.options, dry_run=True)
    assert table == convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options, dry_run=True)
    with pytest.raises(ValueError, match="it is not an OpenFlamingo checkpoint"):
        convert_open_flamingo(tmp_path / "vision", tmp_path / "out", **files.options)
    with pytest.raises(OSError, match="tokenizer has no weights"):
        convert_open_flamingo(tmp_path / "tokenizer", tmp_path / "out", **files.options)


def test_a_backbone_that_cannot_be_read_is_named_by_its_option(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    for option in ("vision", "text", "tokenizer"):
        options = {**files.options, option: tmp_path / "nothing"}
        with pytest.raises(OSError, match=f"--{option}. is {tmp_path}/nothing, .*no such directory"):
            convert_open_flamingo(files.checkpoint, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="text is not a vision encoder.*gpt2"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **{**files.options, "vision": tmp_path / "text"})
    del files.options["tokenizer"]
    with pytest.raises(ValueError, match="no tokenizer in .*text"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert not (tmp_path / "out").exists()


def test_a_wrong_interval_is_refused(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2, every=1)
    files.options["cross_attention_every_n_layers"] = 2
    with pytest.raises(ValueError, match=r"transformer\.h\.0\.gated_cross_attn_layer.*interval of gated blocks"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)


def test_keys_that_contradict_each_other_are_refused(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    gate = "lang_encoder.gated_cross_attn_layers.0.attn_gate"
    rewrite(files.checkpoint, lambda keys: keys.update({gate: torch.tensor([7.0])}))
    with pytest.raises(ValueError, match="Contradicting each other"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)


def test_a_backbone_without_some_weights_is_refused(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    weights = load_file(tmp_path / "vision" / "model.safetensors")
    del weights[next(key for key in weights if key.endswith("encoder.layers.1.mlp.fc2.weight"))]
    save_file(weights, tmp_path / "vision" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"vision lacks weights .*encoder\.layers\.1\.mlp\.fc2\.weight"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert not (tmp_path / "out").exists()


def test_a_backbone_of_another_shape_is_refused(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    (tmp_path / "text" / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    with pytest.raises(ValueError, match="gated_cross_attention.3"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)


def test_the_directory_is_complete_readable_and_replaces_nothing(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    out = tmp_path / "new" / "out"
    convert_open_flamingo(files.checkpoint, out, **files.options)
    names = {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json", "README.md"}
    assert names | {"modeling_flamingo.py", "image_processing_flamingo.py"} <= set(os.listdir(out))
    assert os.listdir(out.parent) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask
    card = ModelCard.load(out / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert "an OpenFlamingo checkpoint" in card.text and "`<image>` is never generated." in card.text
    assert str(tmp_path) not in card.content
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="Nothing was written"):
        convert_open_flamingo(files.checkpoint, out, **files.options)
    assert (out / "model.safetensors").read_bytes() == before


def test_another_dtype_is_written(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options, dtype=torch.bfloat16)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    expected = files.model.gated_cross_attention[0].mlp.fc1.weight.bfloat16()
    assert torch.equal(model.gated_cross_attention[0].mlp.fc1.weight, expected)


def test_options_that_the_file_does_not_say_are_required(tmp_path):
    options = "Pass vision, text, cross_attention_every_n_layers .--vision, --text, --cross-attention-every-n-layers"
    with pytest.raises(FileNotFoundError, match="no such file exists, and it is not one of the released models"):
        convert_open_flamingo(tmp_path / "checkpoint.pt", tmp_path / "out")
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=options) as error:
        convert_open_flamingo(tmp_path / "checkpoint.pt", tmp_path / "out")
    assert "openflamingo/OpenFlamingo-9B-vitl-mpt7b" in str(error.value)
    with pytest.raises(FileNotFoundError, match="no file"):
        convert_open_flamingo("nope.pt", tmp_path / "out", vision="v", text="t", cross_attention_every_n_layers=1)


def test_released_models_have_the_published_backbones():
    assert {name.split("-")[1]: release.cross_attention_every_n_layers for name, release in RELEASES.items()} == {
        "3B": 1,
        "4B": 2,
        "9B": 4,
    }
    assert {release.vision for release in RELEASES.values()} == {OPEN_CLIP_NAMES["ViT-L-14/openai"]}
