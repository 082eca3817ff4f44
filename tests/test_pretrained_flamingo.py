# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Making, saving and loading a model: initial values, files, dtypes, devices, and two backbones joined."""

import json
import os
import signal

import pytest
import torch
from factory import (
    END_OF_CHUNK,
    IMAGE,
    TEXT_CONFIGS,
    VISION_CONFIGS,
    VOCAB_SIZE,
    open_gates,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_processor,
    tiny_text_config,
    tiny_tokenizer,
    tiny_vision_config,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    PreTrainedTokenizerFast,
)

from transformers_flamingo import FlamingoConfig, FlamingoModel, FlamingoProcessor


def logits(model: FlamingoModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=prompt("aIbcI", "IIabc"), pixel_values=random_images(2, 2)).logits


def assert_whole(info: dict) -> None:
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (key, info[key])
    assert not info.get("error_msgs")


# ---------------------------------------------------------------------------------------------------------------------
# Initial values
# ---------------------------------------------------------------------------------------------------------------------


def assert_initial(model: FlamingoModel) -> None:
    for block in model.gated_cross_attention:
        assert block.attn_gate.item() == 0.0 and block.ffn_gate.item() == 0.0
    for part in (model.resampler, model.gated_cross_attention):
        for module in part.modules():
            if isinstance(module, torch.nn.Linear):
                bound = module.in_features**-0.5
                largest = module.weight.abs().max().item()
                assert 0.9 * bound < largest <= bound
            elif isinstance(module, torch.nn.LayerNorm):
                assert (module.weight == 1).all() and (module.bias == 0).all()
    assert 0.2 < model.resampler.latents.std() < 0.4
    assert 0.01 < model.resampler.frame_embeddings.std() < 0.03


def test_initial_values_are_those_of_the_table():
    torch.manual_seed(0)
    assert_initial(FlamingoModel(tiny_config()))


def test_parts_that_a_checkpoint_lacks_get_their_initial_values(tmp_path):
    """Models are built without memory; what is not in the file must still be what the table says."""
    model = tiny_flamingo()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if k.startswith(("language_model.", "vision_model."))}
    save_file(kept, file, metadata={"format": "pt"})
    torch.manual_seed(0)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"resampler", "gated_cross_attention"}
    assert_initial(loaded)


def test_parameter_names_are_the_backbones_own():
    model = tiny_flamingo()
    keys = set(model.state_dict())
    assert {key.split(".")[0] for key in keys} == {
        "vision_model",
        "language_model",
        "resampler",
        "gated_cross_attention",
    }
    text = AutoModelForCausalLM.from_config(tiny_text_config())
    vision = AutoModel.from_config(tiny_vision_config())
    assert {key for key in keys if key.startswith("language_model.")} == {
        f"language_model.{key}" for key in text.state_dict()
    }
    assert {key for key in keys if key.startswith("vision_model.")} == {
        f"vision_model.{key}" for key in vision.state_dict()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXT_CONFIGS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_saved_and_loaded_it_is_the_same(text, tied, tmp_path):
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied})
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_whole(info)
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(model))
    head, embeddings = loaded.get_output_embeddings(), loaded.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied


@pytest.mark.parametrize("vision", VISION_CONFIGS)
def test_vision_encoders_are_saved_and_loaded(vision, tmp_path):
    model = tiny_flamingo(vision=vision)
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_whole(info)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM])
def test_auto_classes(auto, tmp_path):
    model = tiny_flamingo()
    model.save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is FlamingoModel
    assert_whole(info)
    assert torch.equal(logits(loaded), logits(model))
    assert type(auto.from_config(AutoConfig.from_pretrained(tmp_path))) is FlamingoModel


def test_shards(tmp_path):
    model = tiny_flamingo()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_whole(info)
    assert torch.equal(logits(loaded), logits(model))


def test_saving_twice_writes_the_same(tmp_path):
    tiny_flamingo("llama").save_pretrained(tmp_path / "a")
    FlamingoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    for config in (first, second):  # loading writes the dtype into the backbones' configs too
        for name in ("vision_config", "text_config"):
            config[name].pop("dtype", None)
    assert first == second


def test_a_model_without_vision_encoder_or_frame_embeddings(tmp_path):
    config = FlamingoConfig(vision_hidden_size=20, text_config=tiny_text_config(), resampler_num_frames=0)
    model = open_gates(FlamingoModel(config)).eval()
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_whole(info)
    assert loaded.vision_model is None
    inputs = {
        "input_ids": torch.tensor([[3, config.image_token_id, 4]]),
        "mm_encoder_outputs": {"image": {"last_hidden_state": torch.randn(1, 1, 7, 20)}},
    }
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


# ---------------------------------------------------------------------------------------------------------------------
# Dtypes and devices
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(text, dtype, tmp_path):
    model = tiny_flamingo(text)
    expected = logits(model)
    model.save_pretrained(tmp_path / "full")
    half = FlamingoModel.from_pretrained(tmp_path / "full", dtype=dtype)
    assert {p.dtype for p in half.parameters()} == {dtype}
    got = logits(half)  # from float32 pixels
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, atol=0.05, rtol=0.1)
    ids, images = prompt("aIbc"), random_images(1, 1)
    assert half.generate(input_ids=ids, pixel_values=images, max_new_tokens=3).shape[0] == 1
    half.save_pretrained(tmp_path / "half")
    again = FlamingoModel.from_pretrained(tmp_path / "half")  # the dtype of the file
    assert again.dtype == dtype and torch.equal(logits(again), got)


@pytest.mark.parametrize("frozen", [False, True])
def test_autocast(frozen):
    model = tiny_flamingo()
    if frozen:
        model.freeze_backbones()
    expected = logits(model)
    ids = prompt("aIbcI", "IIabc")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(input_ids=ids, pixel_values=random_images(2, 2), labels=ids)
    output.loss.backward()
    torch.testing.assert_close(output.logits.float(), expected, atol=0.05, rtol=0.1)
    assert model.resampler.latents.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generated = model.generate(input_ids=ids, pixel_values=random_images(2, 2), max_new_tokens=3)
    assert generated.shape[0] == 2


def test_meta_device():
    with torch.device("meta"):
        model = FlamingoModel(tiny_config("llama"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    # From there to memory, as accelerate does it for models larger than memory.
    real = tiny_flamingo()
    with torch.device("meta"):
        empty = FlamingoModel(tiny_config())
    empty.to_empty(device="cpu")
    empty.load_state_dict(real.state_dict())
    for name, buffer in real.named_buffers():  # not in the state dict
        empty.get_buffer(name).copy_(buffer)
    assert torch.equal(logits(empty.eval()), logits(real))


@pytest.mark.parametrize(
    "device_map",
    [
        "auto",
        {"": "cpu"},
        {"vision_model": "disk", "resampler": "cpu", "gated_cross_attention": "disk", "language_model": "cpu"},
        {"vision_model": "cpu", "resampler": "disk", "gated_cross_attention": "cpu", "language_model": "disk"},
    ],
    ids=str,
)
def test_device_map(device_map, tmp_path):
    model = tiny_flamingo("llama")
    model.save_pretrained(tmp_path / "model")
    loaded = FlamingoModel.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert torch.equal(logits(loaded), logits(model))
    ids, images = prompt("aIbc"), random_images(1, 1)
    kwargs = {"input_ids": ids, "pixel_values": images, "max_new_tokens": 4, "num_beams": 2}
    assert loaded.generate(**kwargs).tolist() == model.generate(**kwargs).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Two backbones
# ---------------------------------------------------------------------------------------------------------------------


def save_text(path, text: str = "gpt2", vocab_size: int = 97):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(tiny_text_config(text, vocab_size=vocab_size)).eval()
    model.save_pretrained(path)
    return model


def save_vision(path, vision: str = "clip"):
    torch.manual_seed(2)
    model = AutoModel.from_config(tiny_vision_config(vision)).eval()
    model.save_pretrained(path)
    return model


SMALL = {
    "resampler_num_layers": 1,
    "resampler_num_latents": 4,
    "resampler_num_heads": 2,
    "cross_attention_num_heads": 2,
}
IDS = {"image_token_id": IMAGE, "end_of_chunk_token_id": END_OF_CHUNK}


@pytest.mark.parametrize(("text", "vision"), [("gpt2", "clip"), ("opt_350m", "siglip"), ("llama", "dinov2")])
def test_two_pretrained_backbones_are_the_language_model_until_trained(text, vision, tmp_path):
    language_model, vision_model = save_text(tmp_path / "text", text), save_vision(tmp_path / "vision", vision)
    model = FlamingoModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text", **IDS, **SMALL)
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert model.get_input_embeddings().weight.shape[0] == model.config.text_config.vocab_size == 99
    assert model.config.resampler_num_latents == 4
    for name, tensor in vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], tensor)
    with torch.no_grad():
        expected = language_model(prompt("abcd")).logits
        got = model(input_ids=prompt("abcdI"), pixel_values=random_images(1, 1)).logits
    torch.testing.assert_close(got[:, :4, :97], expected, atol=1e-5, rtol=1e-5)
    assert_initial_gates(model)
    # The way home.
    open_gates(model).save_pretrained(tmp_path / "model")
    loaded, info = FlamingoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert_whole(info)
    assert torch.equal(logits(loaded), logits(model))


def assert_initial_gates(model: FlamingoModel) -> None:
    assert all(b.attn_gate.item() == b.ffn_gate.item() == 0.0 for b in model.gated_cross_attention)


def test_of_local_backbones_the_names_are_saved_and_no_path(tmp_path):
    tiny_flamingo().language_model.save_pretrained(tmp_path / "text")
    tiny_flamingo().vision_model.save_pretrained(tmp_path / "vision")
    model = FlamingoModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text")
    model.config.text_config._name_or_path = "gpt2"  # a name on the Hub
    model.save_pretrained(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["text_config"]["_name_or_path"] == "gpt2"
    assert saved["vision_config"]["_name_or_path"] == "./vision"
    assert FlamingoConfig.from_pretrained(tmp_path / "model").vision_config.name_or_path == "./vision"
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()


def test_a_two_tower_model_gives_its_vision_tower(tmp_path):
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9
        ).to_dict(),
        vision_config=tiny_vision_config().to_dict(),
    )
    clip = CLIPModel(config)
    clip.save_pretrained(tmp_path / "clip")
    save_text(tmp_path / "text")
    model = FlamingoModel.from_vision_text_pretrained(tmp_path / "clip", tmp_path / "text", **IDS, **SMALL)
    own = {k: v for k, v in clip.state_dict().items() if k.startswith("vision_model.")}
    assert own
    for name, tensor in own.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_token_ids_are_those_the_tokenizer_has_or_will_get(tmp_path):
    save_text(tmp_path / "text", vocab_size=5)
    save_vision(tmp_path / "vision")
    words = {"<unk>": 0, "a": 1, "b": 2}
    for extra, expected in (
        ({}, (3, 4)),
        ({"<image>": 3}, (4, 3)),
        ({"<image>": 3, "<|endofchunk|>": 4}, (4, 3)),
    ):
        tokenizer = Tokenizer(models.WordLevel({**words, **extra}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path / "text")
        model = FlamingoModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text", **SMALL)
        assert (model.config.end_of_chunk_token_id, model.config.image_token_id) == expected


def test_keywords_for_one_backbone_and_for_the_whole(tmp_path):
    save_text(tmp_path / "text")
    save_vision(tmp_path / "vision")
    model = FlamingoModel.from_vision_text_pretrained(
        tmp_path / "vision",
        tmp_path / "text",
        dtype=torch.bfloat16,
        text_attn_implementation="eager",
        vision_feature_select_strategy="full",
        cross_attention_layers=[0],
        **IDS,
        **SMALL,
    )
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.language_model.config._attn_implementation == "eager"
    assert model.config.vision_feature_select_strategy == "full"
    assert len(model.gated_cross_attention) == 1
    with pytest.raises(TypeError, match="resampler_num_latent'"):
        FlamingoModel.from_vision_text_pretrained(
            tmp_path / "vision", tmp_path / "text", resampler_num_latent=3, **IDS
        )


def test_without_a_vision_encoder(tmp_path):
    save_text(tmp_path / "text")
    model = FlamingoModel.from_vision_text_pretrained(None, tmp_path / "text", vision_hidden_size=20, **IDS, **SMALL)
    assert model.vision_model is None
    assert model.resampler.latents.shape == (4, 20)


def test_a_gate_opened_and_saved_stays_open(tmp_path):
    model = open_gates(FlamingoModel(tiny_config()), 0.25)
    model.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path)
    assert [b.attn_gate.item() for b in loaded.gated_cross_attention] == [0.25] * 3


def save_text_backbone(directory, tokenizer=None):
    language_model = AutoModelForCausalLM.from_config(tiny_text_config(vocab_size=97))
    language_model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def test_ids_and_rows_agree_with_the_processor_of_the_same_directory(tmp_path):
    """With a pad token, without, and with one called nothing: every id that the processor can give has a row."""
    for name, pad in (("with", "<pad>"), ("without", None), ("empty", "")):
        tokenizer = tiny_tokenizer()
        tokenizer.pad_token = pad
        save_text_backbone(tmp_path / name, tokenizer)
        model = FlamingoModel.from_vision_text_pretrained(None, tmp_path / name, vision_hidden_size=24)
        processor = FlamingoProcessor(tiny_processor().image_processor, AutoTokenizer.from_pretrained(tmp_path / name))
        assert model.config.image_token_id == processor.image_token_id == 98
        assert model.config.end_of_chunk_token_id == processor.end_of_chunk_token_id == 97
        assert len(processor.tokenizer) == model.config.text_config.vocab_size == (99 if pad else 100)
        batch = processor(text=["w5 w6 w7", "w5"], padding=True, return_tensors="pt")
        assert model(**batch).logits.isfinite().all()
        explicit = FlamingoModel.from_vision_text_pretrained(
            None, tmp_path / name, vision_hidden_size=24, image_token_id=98, end_of_chunk_token_id=97
        )
        assert explicit.config.text_config.vocab_size == model.config.text_config.vocab_size


@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_without_a_tokenizer_the_special_tokens_come_after_all_rows(tmp_path, text):
    """For GPT-2 transformers makes an empty tokenizer where there are no files, whose next free id is 1."""
    AutoModelForCausalLM.from_config(tiny_text_config(text)).save_pretrained(tmp_path)
    model = FlamingoModel.from_vision_text_pretrained(None, tmp_path, vision_hidden_size=24)
    assert (model.config.end_of_chunk_token_id, model.config.image_token_id) == (VOCAB_SIZE, VOCAB_SIZE + 1)
    assert model.get_input_embeddings().weight.shape[0] == VOCAB_SIZE + 2


class Draws(TorchDispatchMode):
    """Counts the random numbers that are drawn into memory."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default) and not args[0].is_meta:
            self.count += args[0].numel()
        return function(*args, **(kwargs or {}))


def test_no_weight_is_drawn_that_is_loaded(tmp_path):
    with Draws() as draws:
        model = tiny_flamingo()
    assert draws.count > sum(p.numel() for p in model.resampler.parameters() if p.ndim == 2)
    model.save_pretrained(tmp_path)
    with Draws() as draws:
        FlamingoModel.from_pretrained(tmp_path)
    assert draws.count == 0


# Saving over an earlier model.


def weight(model: FlamingoModel) -> float:
    return model.resampler.norm.weight[0].item()


def test_a_process_that_is_killed_never_mixes_two_models(tmp_path):
    """At each file that takes its place, and before the first: the earlier model, the new one, or none that loads."""
    folder = tmp_path / "model"
    old, new = tiny_flamingo(), tiny_flamingo(resampler_num_latents=7)
    new.resampler.norm.weight.data.fill_(2)
    seen = set()
    for num_moved in (*range(12), None):
        old.save_pretrained(folder)
        child = os.fork()
        if child == 0:
            moves, replace = iter(range(100)), os.replace

            def replace_or_die(*args, num_moved=num_moved, moves=moves, replace=replace, **kwargs):
                if str(folder) in str(args[1]) and next(moves) == num_moved:
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace(*args, **kwargs)

            os.replace = replace_or_die
            new.save_pretrained(folder)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        try:
            loaded = FlamingoModel.from_pretrained(folder)
            outcome = (loaded.config.resampler_num_latents, weight(loaded))
        except OSError:
            assert not (folder / "config.json").exists()
            outcome = None
        assert outcome in (None, (7, 2))
        assert os.WIFSIGNALED(status) or outcome == (7, 2)
        seen.add((os.WIFSIGNALED(status), outcome))
    assert {(True, None), (False, (7, 2))} <= seen


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    old, new = tiny_flamingo(), tiny_flamingo(resampler_num_latents=7)
    old.save_pretrained(tmp_path)
    (tmp_path / "notes.safetensors").write_bytes(b"the user's")
    monkeypatch.setattr(
        FlamingoConfig, "save_pretrained", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        new.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert FlamingoModel.from_pretrained(tmp_path).config.resampler_num_latents == old.config.resampler_num_latents
    new.save_pretrained(tmp_path)
    assert FlamingoModel.from_pretrained(tmp_path).config.resampler_num_latents == 7
    assert (tmp_path / "notes.safetensors").read_bytes() == b"the user's"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_shards_of_an_earlier_model_are_removed(tmp_path):
    model = tiny_flamingo()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*.s*")] == ["model.safetensors"]


@pytest.mark.parametrize("max_shard_size", ["50KB", "1GB"])
def test_variants_of_one_model_stand_side_by_side(tmp_path, max_shard_size):
    model = tiny_flamingo()
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    half = tiny_flamingo().half()
    for _ in range(2):
        half.save_pretrained(tmp_path, variant="fp16", max_shard_size=max_shard_size)
    for expected, variant in ((model, None), (half, "fp16")):
        loaded = FlamingoModel.from_pretrained(tmp_path, variant=variant, dtype="float32").state_dict()
        assert all(
            torch.equal(tensor, loaded[name].to(tensor.dtype)) for name, tensor in expected.state_dict().items()
        )
    # Of another model only what was written last is there
    tiny_flamingo(resampler_num_latents=7).save_pretrained(tmp_path, variant="fp16")
    assert [path.name for path in tmp_path.glob("model*.s*")] == ["model.fp16.safetensors"]


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    """transformers would build a model of its default sizes."""
    tiny_flamingo().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    for load in (FlamingoModel.from_pretrained, FlamingoConfig.from_pretrained):
        with pytest.raises(OSError, match="has no config.json"):
            load(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(OSError, match="model"):
        tiny_flamingo().save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "a file"
