# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The paper's ablations of the model (table 3): each switch does what it says, and all else continues to work."""

import copy

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo
from PIL import Image
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from transformers_flamingo import FlamingoModel
from transformers_flamingo.cards.plotting import plot_gates
from transformers_flamingo.layers_flamingo import FlamingoPerceiverResampler
from transformers_flamingo.training import GateHistoryCallback, parameter_groups


VANILLA = {"cross_attention_gating": "none", "cross_attention_ffn_mult": 0}
SWITCHES = {
    "ungated": {"cross_attention_gating": "none"},
    "vanilla": VANILLA,
    "without_feed_forward": {"cross_attention_ffn_mult": 0},
    "transformer": {"resampler_type": "transformer"},
    "mlp": {"resampler_type": "mlp"},
    "mlp_without_frames": {"resampler_type": "mlp", "resampler_num_frames": 0},
    "one_in_the_middle": {"cross_attention_layers": [1]},
    "several": {**VANILLA, "resampler_type": "transformer", "cross_attention_layers": [1]},
}
switches = pytest.mark.parametrize("switch", SWITCHES)


@torch.no_grad()
def logits(model: FlamingoModel, ids: torch.Tensor, images: torch.Tensor | None = None, **kwargs) -> torch.Tensor:
    return model(input_ids=ids, pixel_values=images, **kwargs).logits


def new_parts(model: FlamingoModel) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if n.startswith(("resampler.", "gated_cross_attention."))}


def videos() -> tuple[torch.Tensor, torch.Tensor]:
    """An image, a video of 3 frames, padding and a video of 6 frames, which is more than there are embeddings."""
    mask = torch.zeros(2, 2, 6, dtype=torch.long)
    for place, num_frames in (((0, 0), 1), ((0, 1), 3), ((1, 0), 6)):
        mask[place][:num_frames] = 1
    return random_images(2, 2, 6), mask


# ---------------------------------------------------------------------------------------------------------------------
# What a switch does
# ---------------------------------------------------------------------------------------------------------------------


def test_without_gates_a_block_adds_in_full_what_an_open_gate_lets_through():
    gated, ungated = tiny_flamingo(gates=20.0), tiny_flamingo(cross_attention_gating="none")  # tanh(20) is 1
    missing, unexpected = ungated.load_state_dict(gated.state_dict(), strict=False)
    assert not missing and len(unexpected) == 6 and all(name.endswith("_gate") for name in unexpected)
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    assert torch.equal(logits(ungated, ids, images), logits(gated, ids, images))


def test_without_gates_and_with_zero_outputs_it_is_the_bare_language_model():
    model = tiny_flamingo(cross_attention_gating="none")
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    with torch.no_grad():
        bare = model.language_model(input_ids=ids).logits
        assert not torch.allclose(logits(model, ids, images), bare)  # unlike a new model with gates
        for block in model.gated_cross_attention:
            block.attention.o_proj.weight.zero_()
            block.mlp.fc2.weight.zero_()
    assert torch.equal(logits(model, ids, images), bare)


def test_vanilla_cross_attention_is_nothing_but_attention():
    model = tiny_flamingo(**VANILLA)
    assert {name.split(".", 2)[2] for name in new_parts(model) if name.startswith("gated")} == {
        "norm.weight",
        "norm.bias",
        *(f"attention.{part}_proj.weight" for part in "qkvo"),
    }
    # So what sees no image is the bare language model, trained or not.
    ids, images = prompt("abcIde"), random_images(1, 1)
    with torch.no_grad():
        bare = model.language_model(input_ids=ids).logits
    assert torch.equal(logits(model, prompt("abc")), model.language_model(input_ids=prompt("abc")).logits)
    got = logits(model, ids, images)
    assert_close(got[:, :3], bare[:, :3])
    assert (got[:, 3:] - bare[:, 3:]).abs().amax(dim=-1).min() > 1e-3


def test_without_feed_forward_the_gated_attention_stays():
    whole, reduced = tiny_flamingo(), tiny_flamingo(cross_attention_ffn_mult=0)
    reduced.load_state_dict(whole.state_dict(), strict=False)
    with torch.no_grad():
        for block in whole.gated_cross_attention:
            block.ffn_gate.zero_()
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    assert torch.equal(logits(reduced, ids, images), logits(whole, ids, images))


def resampler(**kwargs) -> FlamingoPerceiverResampler:
    return tiny_flamingo(vision_kwargs={"num_attention_heads": 3}, resampler_num_heads=3, **kwargs).resampler


@torch.no_grad()
def test_the_transformer_resampler_is_torchs_own_transformer():
    ours = resampler(resampler_type="transformer", resampler_num_frames=0)
    stock = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(24, 3, 96, 0.0, "gelu", batch_first=True, norm_first=True),
        num_layers=2,
        norm=torch.nn.LayerNorm(24),
        enable_nested_tensor=False,
    ).eval()
    for parameter in stock.parameters():
        parameter.zero_()
    for layer, theirs in zip(ours.layers, stock.layers, strict=True):
        projections = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.self_attn.out_proj.weight.copy_(layer.attention.o_proj.weight)
        theirs.linear1.weight.copy_(layer.mlp.fc1.weight)
        theirs.linear2.weight.copy_(layer.mlp.fc2.weight)
        theirs.norm1.weight.fill_(1.0)
        theirs.norm2.weight.fill_(1.0)
    stock.norm.weight.fill_(1.0)

    features = torch.randn(2, 3, 7, 24, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([[True, True, False], [True, True, True]])
    sequence = torch.cat([features.flatten(1, 2), ours.latents.expand(2, -1, -1)], dim=1)
    for mask in (None, frames):
        hidden = None if mask is None else ~torch.cat([mask.repeat_interleave(7, 1), torch.ones(2, 5).bool()], dim=1)
        assert_close(ours(features, mask), stock(sequence, src_key_padding_mask=hidden)[:, -5:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_mlp_resampler_keeps_tokens_apart_and_averages_them():
    ours = resampler(resampler_type="mlp", resampler_num_frames=0, resampler_num_latents=3)
    features = torch.randn(1, 2, 6, 24, generator=torch.Generator().manual_seed(0))
    tokens = features
    for layer in ours.layers:
        tokens = tokens + layer.mlp(tokens)
    # Frames first, then three pairs of six tokens
    assert_close(ours(features), ours.norm(tokens.mean(dim=1).unflatten(1, (3, 2)).mean(dim=2)))
    # A frame that is not there counts for nothing, whatever is in it.
    mask = torch.tensor([[True, False]])
    assert_close(ours(features, mask), ours(features[:, :1]))
    # A token reaches the one latent of its part.
    changed = features.clone()
    changed[:, 0, 2] += 1.0
    assert (ours(changed) != ours(features)).any(dim=-1).tolist() == [[False, True, False]]
    # Fewer tokens than latents are repeated.
    assert_close(ours(features[:, :1, :1]), ours.norm(tokens[:, 0, :1]).expand(-1, 3, -1))


def num_parameters(**kwargs) -> int:
    return sum(p.numel() for p in tiny_flamingo(**kwargs).resampler.parameters())


@pytest.mark.parametrize("kwargs", [{}, {"resampler_num_heads": 3, "resampler_head_dim": 16, "resampler_ffn_mult": 2}])
def test_the_three_resamplers_are_of_one_size(kwargs):
    norm, latents, num_layers = 2 * 24, 5 * 24, 2
    perceiver = num_parameters(**kwargs)
    assert perceiver - num_parameters(resampler_type="transformer", **kwargs) == num_layers * norm
    assert perceiver - num_parameters(resampler_type="mlp", **kwargs) == num_layers * 2 * norm + latents


# ---------------------------------------------------------------------------------------------------------------------
# Everything else continues to work
# ---------------------------------------------------------------------------------------------------------------------


@switches
def test_saved_and_loaded_it_is_the_same(switch, tmp_path):
    model = tiny_flamingo(**SWITCHES[switch])
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in SWITCHES[switch].items():
        assert getattr(loaded.config, name) == value
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    assert torch.equal(logits(loaded, ids, images), logits(model, ids, images))


@switches
def test_parts_that_a_checkpoint_lacks_get_their_initial_values(switch, tmp_path):
    model = tiny_flamingo(**SWITCHES[switch])
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(("resampler.", "gated_cross"))}
    torch.manual_seed(0)
    loaded = FlamingoModel.from_pretrained(None, config=model.config, state_dict=state)
    for name, parameter in new_parts(loaded).items():
        assert parameter.isfinite().all()
        assert (parameter.abs().sum() == 0) == name.endswith(("_gate", "bias")), name


def test_a_checkpoint_of_another_kind_is_not_loaded_in_silence(tmp_path):
    tiny_flamingo(resampler_type="mlp").save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        FlamingoModel.from_pretrained(tmp_path, resampler_type="perceiver")


@switches
def test_greedy_equals_forward_passes_over_the_whole_text(switch):
    model = tiny_flamingo(gates=2.0, text_kwargs={"initializer_range": 0.3}, **SWITCHES[switch])
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    new = model.generate(input_ids=ids, pixel_values=images, max_new_tokens=5, eos_token_id=-1)
    text = ids
    for _ in range(5):
        scores = logits(model, text, images)[:, -1]
        scores[:, model.config.image_token_id] = -torch.inf
        text = torch.cat([text, scores.argmax(-1, keepdim=True)], dim=1)
    assert new.tolist() == text.tolist()
    # From latents that were kept, too
    features = model.get_image_features(images)
    again = model.generate(
        input_ids=ids, mm_encoder_outputs={"image": features}, max_new_tokens=5, eos_token_id=-1, num_beams=1
    )
    assert again.tolist() == new.tolist()


@switches
def test_a_left_padded_batch_of_images_and_videos_equals_its_samples_one_by_one(switch):
    model = tiny_flamingo(**SWITCHES[switch])
    frames, frame_mask = videos()
    ids = prompt("aIbIc", "__Iab")
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    batch = logits(model, ids, frames, frame_attention_mask=frame_mask, attention_mask=mask)
    features = model.get_image_features(frames, frame_mask)
    first = torch.cat(
        [model.get_image_features(frames[:1, i : i + 1, :n]).pooler_output for i, n in ((0, 1), (1, 3))], 1
    )
    assert_close(features.pooler_output[:1], first)
    assert (features.pooler_output[1, 1] == 0).all()
    alone = logits(model, ids[:1], mm_encoder_outputs={"image": {"pooler_output": first}})
    assert_close(batch[:1], alone, atol=1e-5, rtol=1e-4)
    assert_close(batch[1:, 2:], logits(model, ids[1:, 2:], frames[1:, :1]), atol=1e-5, rtol=1e-4)


@switches
def test_a_forward_over_a_cache_equals_one_over_all(switch):
    model = tiny_flamingo(**SWITCHES[switch])
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    with torch.no_grad():
        past = model(input_ids=ids[:, :4], pixel_values=images[:, :1]).cache
        middle = model(input_ids=ids[:, 4:6], pixel_values=images[:, 1:], cache=past).logits
        last = model(input_ids=ids[:, 6:], cache=past).logits
    assert_close(torch.cat([middle, last], dim=1), logits(model, ids, images)[:, 4:], atol=1e-5, rtol=1e-4)


def gradients(model: FlamingoModel, call=None) -> dict[str, torch.Tensor]:
    model.zero_grad()
    frames, frame_mask = videos()
    ids = prompt("aIbIc", "aIbcd")
    inputs = {"input_ids": ids, "pixel_values": frames, "frame_attention_mask": frame_mask, "labels": ids}
    (model if call is None else call)(**inputs, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@switches
def test_what_is_trained(switch):
    """All of the new parts get gradients, nothing of the frozen backbones does, and a step changes no more."""
    model = tiny_flamingo(**SWITCHES[switch])
    model.freeze_backbones()
    got = gradients(model)
    assert set(got) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(new_parts(model)) <= set(got)
    assert all(gradient.abs().max() > 0 for gradient in got.values())

    before = copy.deepcopy(model.state_dict())
    torch.optim.AdamW(parameter_groups(model, 1e-2)).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    rows = "language_model.transformer.wte.weight", "language_model.lm_head.weight"
    assert changed - set(rows) == set(new_parts(model))
    for name in rows:
        assert (model.state_dict()[name] != before[name]).any(dim=1).nonzero().flatten().tolist() == [97, 98]


@switches
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(switch, use_reentrant):
    model = tiny_flamingo(
        text_kwargs=dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0), **SWITCHES[switch]
    )
    model.freeze_backbones()
    model.train()
    plain = gradients(model)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    checkpointed = gradients(model)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient)


@switches
def test_compiled_equals_eager(switch):
    model = tiny_flamingo(**SWITCHES[switch])
    model.freeze_backbones()
    eager = gradients(model)
    torch._dynamo.reset()
    compiled = gradients(model, torch.compile(model, fullgraph=True, backend="eager"))
    torch._dynamo.reset()
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        assert_close(compiled[name], gradient, atol=1e-5, rtol=1e-3)


@switches
def test_eager_and_sdpa_attention_agree(switch):
    model = tiny_flamingo(**SWITCHES[switch])
    ids, images = prompt("aIbcIde"), random_images(1, 2)
    expected = logits(model, ids, images)
    model.set_attn_implementation("eager")
    assert_close(logits(model, ids, images), expected, atol=1e-5, rtol=1e-4)


def test_no_gates_no_group_of_gates():
    """A faster learning rate of gates that are not there changes nothing."""
    model = tiny_flamingo(cross_attention_gating="none")
    model.freeze_backbones()
    matrices, rest = parameter_groups(model, 1e-3, weight_decay=0.1, gate_learning_rate_multiplier=10)
    assert (matrices["lr"], matrices["weight_decay"]) == (1e-3, 0.1)
    assert (rest["lr"], rest["weight_decay"]) == (1e-3, 0.0)
    assert all(parameter.ndim == 2 for parameter in matrices["params"])
    assert len(matrices["params"]) == 3 * 6


@pytest.mark.parametrize(
    ("switch", "num_attn", "num_ffn"), [("vanilla", 0, 0), ("ungated", 0, 0), ("without_feed_forward", 3, 0)]
)
def test_the_trainer_records_the_gates_there_are(switch, num_attn, num_ffn, tmp_path):
    model = tiny_flamingo(**SWITCHES[switch])
    model.freeze_backbones()
    ids = prompt("aIbcd")[0]
    data = [{"input_ids": ids, "pixel_values": random_images(1), "labels": ids}] * 2
    arguments = TrainingArguments(
        tmp_path, max_steps=1, use_cpu=True, report_to=[], save_strategy="no", remove_unused_columns=False,
        disable_tqdm=True, dataloader_pin_memory=False, logging_steps=1,
    )  # fmt: skip
    gates = GateHistoryCallback()
    Trainer(model, arguments, train_dataset=data, callbacks=[gates]).train()
    assert [entry["step"] for entry in gates.history] == [0, 1]
    assert all((len(entry["attn"]), len(entry["ffn"])) == (num_attn, num_ffn) for entry in gates.history)


@pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # as in `cards/test_plotting.py`
def test_gates_are_drawn_where_blocks_have_no_feed_forward(tmp_path):
    history = [{"step": step, "attn": [0.1 * step, 0.2], "ffn": []} for step in range(3)]
    plot_gates(tmp_path / "gates.png", history, layers=[0, 2])
    with Image.open(tmp_path / "gates.png") as picture:
        assert min(picture.size) > 100
