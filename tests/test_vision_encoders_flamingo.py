# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Which vision encoders fit, and which of their outputs are the features of an image."""

import pytest
import torch
from factory import IMAGE_SIZE, open_gates, prompt, random_images, tiny_config, tiny_flamingo, tiny_vision_config
from flamingos import assert_close, far, run
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn
from transformers import PreTrainedModel, ResNetConfig, ResNetModel, TimmWrapperConfig, ViTModel
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel
from vision_encoders import CONFIGS, PAGE, judge, make_flamingo, model_types, small_config

from transformers_flamingo import FlamingoModel, image_features_flamingo, vision_encoders_flamingo
from transformers_flamingo.vision_encoders_flamingo import (
    check_vision_model,
    find_image_size,
    measure_width,
    probe_vision_model,
)


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    """The verdicts in the table of the page."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition("| `model_type` |")
    cells = [line.split(" | ") for line in table.splitlines()[2:]]
    return {kind.strip("|` "): verdict.strip(" |") for kind, _, verdict in cells}


def test_the_page_lists_all_vision_models(rows):
    assert list(rows) == model_types(), "run `python tests/vision_encoders.py`"


@pytest.mark.parametrize("model_type", model_types())
def test_the_features_of_each_encoder_are_its_patches(model_type, rows):
    verdict, model = judge(model_type)
    assert rows[model_type] == verdict, "run `python tests/vision_encoders.py`"
    if model is None:
        return
    with torch.no_grad():  # some start with weights so small that nothing of the image is left
        for parameter in model.vision_model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    images = torch.randn(
        2, 3, *find_image_size(model.config.vision_config), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        features = model.get_image_features(images[:, None]).last_hidden_state[:, 0]
        if model_type == "pixtral":  # packs both images into one sequence
            expected = torch.cat([model.vision_model(pixel_values=image[None]).last_hidden_state for image in images])
            assert_close(features, expected)
            return
        direct = model.vision_model(pixel_values=images, output_hidden_states=True, return_dict=True)
    expected = direct.last_hidden_state
    if expected.ndim == 4:
        channels_last = expected.shape[1] != features.shape[-1]
        expected = (expected if channels_last else expected.permute(0, 2, 3, 1)).flatten(1, 2)
    embeddings = direct.hidden_states[0]
    if embeddings.shape == expected.shape:
        # What is not a patch (class, registers, detections) does not depend on the image before the first layer
        expected = expected[:, (embeddings[0] != embeddings[1]).any(dim=-1)]
    elif model_type in ("pvt", "dinov3_convnext"):
        expected = expected[:, 1:]
    assert_close(features, expected)
    assert (features[0] - features[1]).abs().max() > 1e-3 * features.abs().max() > 0


def test_checking_an_encoder_changes_nothing_in_it():
    model = ResNetModel(small_config("resnet")).train()
    model.embedder.eval()
    state, random_state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    outputs = probe_vision_model(model)
    assert outputs.last_hidden_state.device.type == "meta"
    assert outputs.last_hidden_state.shape == (2, 12, 28, 28)
    assert model.training and model.encoder.training and not model.embedder.training
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


class NoGrid(ViTModel):
    """Reads a value of the pixels, so it cannot be checked without them, and merges its patches in a way of its own."""

    def forward(self, pixel_values: torch.Tensor, **kwargs):
        """Return the first seven tokens."""
        float(pixel_values.sum())
        outputs = super().forward(pixel_values, **kwargs)
        outputs.last_hidden_state = outputs.last_hidden_state[:, :7]
        return outputs


def test_patches_that_nothing_tells_are_never_all_tokens():
    config = tiny_config(vision="vit", vision_kwargs={"image_size": 16})
    model = FlamingoModel(config, vision_model=NoGrid(config.vision_config))
    images = torch.randn(1, 1, 3, 16, 16)
    with pytest.raises(ValueError, match=r'nothing tells which of its 7 tokens are patches .*Set it to "full"'):
        model.get_image_features(images)
    model.config.vision_feature_select_strategy = "full"
    assert model.get_image_features(images).last_hidden_state.shape == (1, 1, 7, 24)


def test_a_detector_gives_its_queries_only_if_all_tokens_are_asked_for():
    with pytest.raises(ValueError, match=r"DetrModel, a detector: its outputs are 3 queries"):
        make_flamingo(small_config("detr"))
    model = make_flamingo(small_config("detr"), vision_feature_select_strategy="full")
    assert model.get_image_features(torch.randn(1, 1, 3, 64, 64)).last_hidden_state.shape == (1, 1, 3, 16)


def test_a_tower_that_automodel_lacks_is_an_error_in_one_line():
    with pytest.raises(
        ValueError, match=r"^`AutoModel` has no model for a Llama4VisionConfig \(.*'llama4_vision_model'\)"
    ):
        make_flamingo({"model_type": "llama4_vision_model"})


@pytest.mark.parametrize("vision", ["clip", "siglip", "dinov2"])
def test_the_layers_of_an_encoder(vision):
    images = random_images(2)
    first = 0 if vision == "siglip" else 1
    for layers, width in ((-2, 24), (0, 24), ([-1, -2], 48), ([2], 24)):
        model = tiny_flamingo(vision=vision, vision_feature_layer=layers)
        assert model.config.vision_hidden_size == model.resampler.norm.weight.shape[0] == width
        with torch.no_grad():
            states = model.vision_model(pixel_values=images, output_hidden_states=True).hidden_states
            features = model.get_image_features(images[:, None])
        chosen = [layers] if isinstance(layers, int) else layers
        expected = torch.cat([states[layer][:, first:] for layer in chosen], dim=-1)
        assert_close(features.last_hidden_state[:, 0], expected)
        assert features.hidden_states is None
        assert features.pooler_output.shape == (2, 1, 5, width)
        everything = model.get_image_features(images[:, None], output_hidden_states=True)
        assert_close(everything.last_hidden_state, features.last_hidden_state)
        for state, other in zip(everything.hidden_states, states, strict=True):
            assert_close(state, other)


def test_layers_in_forward_generate_and_a_saved_model(tmp_path, monkeypatch):
    model = tiny_flamingo(vision_feature_layer=[-2, -1], vision_feature_select_strategy="full")
    ids, images = prompt("aIb", "aIb"), random_images(2, 1)
    expected = run(model, ids, images)
    assert far(expected.logits[0], expected.logits[1])
    monkeypatch.setattr(image_features_flamingo, "ENCODER_CHUNK_SIZE", 1)
    model.freeze_backbones()
    assert_close(run(model, ids, images).logits, expected.logits)
    model.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path)
    assert loaded.config.vision_feature_layer == [-2, -1]
    assert_close(run(loaded, ids, images).logits, expected.logits)
    texts = [m.generate(ids, pixel_values=images, max_new_tokens=3) for m in (model, loaded)]
    assert torch.equal(*texts)
    # The whole features may be given, as they are kept
    features = model.get_image_features(images).last_hidden_state
    assert features.shape == (2, 1, 5, 48)
    again = run(model, ids, mm_encoder_outputs={"image": {"last_hidden_state": features}})
    assert_close(again.logits, expected.logits)


def test_statistics_are_those_of_the_layers():
    model = tiny_flamingo(vision_feature_layer=[0, -2], gates=0.0)
    images = random_images(6, 1)
    model.calibrate_features(images)
    statistics = model.feature_statistics
    features = model.get_image_features(images).last_hidden_state[:, 0]
    assert statistics["mean"].shape == (4, 48) and statistics["scale"].shape == (48,)
    assert_close(statistics["mean"], features.mean(dim=0))


def test_layers_that_do_not_exist():
    for layers in (3, -4, [-1, 7]):
        with pytest.raises(
            ValueError, match=r"CLIPVisionModel has hidden states -3 to 2, of which 0 are its embeddings"
        ):
            tiny_flamingo(vision_feature_layer=layers)
    for layers in ([], [-1, -1]):
        with pytest.raises(StrictDataclassClassValidationError, match="a list of at least one, each of them once"):
            tiny_config(vision_feature_layer=layers)
    with pytest.raises(StrictDataclassClassValidationError, match="there is no vision encoder"):
        type(tiny_config())(text_config=tiny_config().text_config, vision_hidden_size=8, vision_feature_layer=-2)
    with pytest.raises(StrictDataclassClassValidationError, match=r"have width 48. Omit `vision_hidden_size`"):
        tiny_config(vision_feature_layer=[-1, -2], vision_hidden_size=24)
    model = make_flamingo(small_config("detr"), vision_feature_layer=-2)
    with pytest.raises(ValueError, match="DetrModel gives no hidden states of its layers"):
        model.get_image_features(torch.randn(1, 1, 3, 64, 64))


def test_stages_have_widths_of_their_own(tmp_path, monkeypatch):
    vision = ResNetConfig(**{**CONFIGS["resnet"], "hidden_sizes": [8, 12], "downsample_in_first_stage": True})
    with pytest.raises(
        StrictDataclassClassValidationError, match=r"does not tell that of `vision_feature_layer` \[-2\]"
    ):
        make_flamingo(vision, vision_feature_layer=-2)
    with pytest.raises(ValueError, match=r"of width 8, but `vision_hidden_size` = 12. Build .*`vision_hidden_size=8`"):
        make_flamingo(vision, vision_feature_layer=-2, vision_hidden_size=12)
    with pytest.raises(ValueError, match=r"have different numbers of places.*Choose layers of one stage"):
        make_flamingo(vision, vision_feature_layer=[-1, -2], vision_hidden_size=20)
    encoder = ResNetModel(vision).eval()
    assert measure_width(encoder, None) == 12 and measure_width(encoder, [-2]) == 8
    model = make_flamingo(vision, vision_feature_layer=-2, vision_hidden_size=8)
    images = torch.randn(1, 3, 32, 32)
    expected = model.vision_model(pixel_values=images, output_hidden_states=True).hidden_states[-2]
    features = model.get_image_features(images[None]).last_hidden_state
    assert_close(features[0], expected.flatten(2).transpose(1, 2))
    # Joined with a language model, the width is that of the encoder itself
    encoder.save_pretrained(tmp_path / "vision")
    model.language_model.save_pretrained(tmp_path / "text")
    runs, run_on_meta = [], vision_encoders_flamingo._run_on_meta
    monkeypatch.setattr(vision_encoders_flamingo, "_PROBED", {})
    monkeypatch.setattr(
        vision_encoders_flamingo, "_run_on_meta", lambda *args: runs.append(args) or run_on_meta(*args)
    )
    joined = FlamingoModel.from_vision_text_pretrained(
        str(tmp_path / "vision"), str(tmp_path / "text"), vision_feature_layer=-2, resampler_num_layers=1
    )
    assert joined.config.vision_hidden_size == 8
    assert len(runs) == 1, "its width and the check are of the same run"


@pytest.mark.parametrize("vision", ["clip", "siglip", "vit"])
def test_images_of_another_size(vision):
    model = tiny_flamingo(vision=vision)
    ids = prompt("aIb", "aIb")
    images = torch.randn(2, 1, 3, 2 * IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    features = model.get_image_features(images, interpolate_pos_encoding=True)
    assert features.last_hidden_state.shape == (2, 1, 8, 24)
    expected = run(model, ids, mm_encoder_outputs={"image": features})
    assert_close(run(model, ids, images, interpolate_pos_encoding=True).logits, expected.logits)
    settings = {"max_new_tokens": 4, "output_logits": True, "return_dict_in_generate": True}
    given = model.generate(ids, mm_encoder_outputs={"image": features}, **settings)
    generated = model.generate(ids, pixel_values=images, interpolate_pos_encoding=True, **settings)
    assert torch.equal(generated.sequences, given.sequences)
    assert_close(torch.stack(generated.logits), torch.stack(given.logits))
    with pytest.raises((ValueError, RuntimeError), match="match"):
        run(model, ids, images)
    open_gates(model, 0.0).calibrate_features([{"pixel_values": images, "interpolate_pos_encoding": True}])
    assert model.config.resampler_feature_positions == 8


def test_an_encoder_that_cannot_interpolate_says_so():
    model = tiny_flamingo(vision="dinov2")
    with pytest.raises(ValueError, match=r"Dinov2Model has no such argument: it takes images of any size"):
        model.get_image_features(random_images(1, 1), interpolate_pos_encoding=True)
    taller = torch.randn(1, 1, 3, 2 * IMAGE_SIZE, IMAGE_SIZE)
    assert model.get_image_features(taller).last_hidden_state.shape == (1, 1, 8, 24)


class StandIn(nn.Module):
    """What a model of timm returns: NFNet a map, a ViT a sequence with prefix tokens, Swin a map with channels last."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 12, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 3, 12)) if kind in ("vit", "cait") else None
        if kind == "vit":
            self.num_prefix_tokens = 3

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the output of the last layer."""
        features = self.conv(pixels)
        if self.kind == "nfnet":
            return features
        if self.kind == "swin":
            return features.permute(0, 2, 3, 1)
        tokens = features.flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)

    def forward_intermediates(self, pixels: torch.Tensor, indices=None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the output and the maps of both layers, without prefix tokens: of `indices` alone, if there are any."""
        maps = [self.conv(pixels), 2 * self.conv(pixels)]
        return self.forward_features(pixels), maps if indices is None else [maps[i] for i in indices]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Pool the features."""
        return features.mean(dim=1)


def timm_encoder(kind: str) -> TimmWrapperModel:
    """Make the wrapper of transformers around a stand-in, because timm is not installed."""
    model = object.__new__(TimmWrapperModel)
    PreTrainedModel.__init__(model, TimmWrapperConfig(architecture=kind))
    model.features_only, model.timm_model = False, StandIn(kind)
    model.post_init()
    return model.eval()


@pytest.mark.parametrize("kind", ["nfnet", "vit", "swin"])
def test_models_of_timm(kind):
    torch.manual_seed(0)
    encoder = timm_encoder(kind)
    assert measure_width(encoder, None) == 12
    images = torch.randn(2, 3, 8, 12)
    expected = encoder.timm_model.conv(images).flatten(2).transpose(1, 2)  # (2, 6, 12)
    for layer, factor in ((None, 1), (-1, 2), (-2, 1)):
        config = make_flamingo(TimmWrapperConfig(), vision_hidden_size=12, vision_feature_layer=layer, encoder=encoder)
        features = config.get_image_features(images[:, None]).last_hidden_state[:, 0]
        assert_close(features, factor * expected)
    everything = make_flamingo(
        TimmWrapperConfig(), vision_hidden_size=12, vision_feature_select_strategy="full", encoder=encoder
    )
    num_tokens = everything.get_image_features(images[:, None]).last_hidden_state.shape[2]
    assert num_tokens == (9 if kind == "vit" else 6)


def test_a_model_of_timm_that_does_not_tell_its_patches():
    with pytest.raises(
        ValueError, match=r"nothing tells which of its 3139 tokens are patches of an image of 224 x 224"
    ):
        make_flamingo(TimmWrapperConfig(), vision_hidden_size=12, encoder=timm_encoder("cait"))


def test_an_encoder_is_checked_against_the_configuration_it_is_built_with():
    config = tiny_config(vision="dinov2")
    encoder = ViTModel(tiny_vision_config("vit", hidden_size=32))
    with pytest.raises(ValueError, match=r"ViTModel returns .*of width 32, but `vision_hidden_size` = 24"):
        FlamingoModel(config, vision_model=encoder)
    check_vision_model(None, config)
