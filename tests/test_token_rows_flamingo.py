# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What `freeze_backbones()` leaves trainable, and that a training step changes no other number."""

import copy
import pickle

import pytest
import torch
from accelerate import disk_offload
from factory import (
    END_OF_CHUNK,
    IMAGE,
    TEXT_CONFIGS,
    VOCAB_SIZE,
    prompt,
    random_images,
    tiny_flamingo,
)
from transformers import Trainer, TrainingArguments

from transformers_flamingo import FlamingoModel
from transformers_flamingo.language_models_flamingo import find_decoder_layers


ROWS = [END_OF_CHUNK, IMAGE]
families = pytest.mark.parametrize("text", TEXT_CONFIGS)
tied_or_not = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def frozen_flamingo(text: str = "gpt2", tied: bool = True, **kwargs) -> FlamingoModel:
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied}, **kwargs)
    model.freeze_backbones()
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = prompt("aIbcE", "IabEd")
    return {"input_ids": ids, "pixel_values": random_images(2, 1), "labels": ids}


def snapshot(model: FlamingoModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def embedding_names(model: FlamingoModel) -> set[str]:
    weights = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return {
        name for name, tensor in model.state_dict().items() if any(tensor.data_ptr() == w.data_ptr() for w in weights)
    }


def assert_only_the_new_parts_changed(model: FlamingoModel, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys()
    embeddings = embedding_names(model)
    assert embeddings
    for name, old in before.items():
        new = after[name]
        if name in embeddings:
            changed = (new != old).any(dim=1).nonzero().flatten().tolist()
            assert changed == ROWS, f"{name}: rows {changed}"
        elif name.startswith(("resampler.", "gated_cross_attention.")):
            # A single number may come back to where it was in bfloat16.
            assert not torch.equal(new, old) or new.numel() == 1, name
        else:
            assert torch.equal(new, old), name


def train(model: FlamingoModel, steps: int = 3, **inputs) -> torch.optim.Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.1)
    model.train()
    torch.manual_seed(0)  # dropout
    for _ in range(steps):
        optimizer.zero_grad()
        model(**{**batch(), **inputs}).loss.backward()
        optimizer.step()
    model.eval()
    return optimizer


@tied_or_not
def test_what_is_trainable(tied):
    model = frozen_flamingo(tied=tied)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    new_parts = {name for name, _ in model.named_parameters() if name.startswith(("resampler", "gated_cross"))}
    rows = trainable - new_parts
    assert new_parts <= trainable
    # Two rows of the input embedding; two more of the head if it is a matrix of its own.
    shapes = [tuple(dict(model.named_parameters())[name].shape) for name in rows]
    assert shapes == [(32,)] * (2 if tied else 4)
    assert not any(name.startswith(("language_model", "vision_model")) for name in trainable)
    # The state dict knows nothing of it.
    assert model.state_dict().keys() == tiny_flamingo(text_kwargs={"tie_word_embeddings": tied}).state_dict().keys()


@families
@tied_or_not
def test_weight_decay_changes_no_other_number(text, tied):
    model = frozen_flamingo(text, tied)
    before = snapshot(model)
    optimizer = train(model)
    assert_only_the_new_parts_changed(model, before)
    # The optimizer holds state for what is trained and for nothing else.
    num_trained = sum(p.numel() for p in model.resampler.parameters())
    num_trained += sum(p.numel() for p in model.gated_cross_attention.parameters())
    width = model.get_input_embeddings().weight.shape[1]
    num_trained += 2 * width * (1 if tied else 2)
    assert sum(state["exp_avg"].numel() for state in optimizer.state.values()) == num_trained


@families
@tied_or_not
def test_gradients_of_the_rows_are_those_of_the_whole_matrix(text, tied):
    frozen = frozen_flamingo(text, tied)
    whole = copy.deepcopy(frozen)
    whole.unfreeze_backbones()
    for model in (frozen, whole):
        model(**batch()).loss.backward()

    pairs = [(frozen.input_token_rows, whole.get_input_embeddings().weight.grad)]
    if not tied:
        pairs.append((frozen.output_token_rows, whole.get_output_embeddings().weight.grad))
    for rows, gradient in pairs:
        for token_id, row in rows.items():
            torch.testing.assert_close(row.grad, gradient[token_id], atol=1e-6, rtol=1e-4)
            assert row.grad.abs().max() > 0
    others = dict(whole.named_parameters())
    for part in ("resampler", "gated_cross_attention"):
        for name, parameter in frozen.get_submodule(part).named_parameters():
            torch.testing.assert_close(parameter.grad, others[f"{part}.{name}"].grad, atol=1e-6, rtol=1e-4)
    for part in (frozen.language_model, frozen.vision_model):
        assert all(p.grad is None for p in part.parameters())


def test_freezing_changes_no_logit():
    model = tiny_flamingo(text_kwargs={"tie_word_embeddings": False})
    inputs = batch()
    with torch.no_grad():
        before = model(**inputs)
    model.freeze_backbones()
    after = model(**inputs)  # with gradients: the hooks of the rows are at work
    assert torch.equal(after.logits, before.logits) and torch.equal(after.loss, before.loss)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before.logits)


@tied_or_not
def test_the_stock_trainer_changes_no_other_number(tied, tmp_path):
    model = frozen_flamingo(tied=tied)
    before = snapshot(model)
    inputs = batch()
    data = [{name: value[i % 2] for name, value in inputs.items()} for i in range(8)]
    arguments = TrainingArguments(
        tmp_path, max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-2,
        weight_decay=0.1, use_cpu=True, report_to=[], save_strategy="steps", save_steps=2, logging_strategy="no",
        remove_unused_columns=False, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    assert_only_the_new_parts_changed(model, before)

    # A checkpoint continues as if there had been no interruption.
    resumed = frozen_flamingo(tied=tied)
    Trainer(resumed, arguments, train_dataset=data).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, msg=name)
    # And can be loaded.
    loaded = FlamingoModel.from_pretrained(tmp_path / "checkpoint-4")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@tied_or_not
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_freezing_survives_a_copy(tied, how):
    model = frozen_flamingo(tied=tied)
    before = snapshot(model)
    other = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    train(other)
    assert_only_the_new_parts_changed(other, before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    train(model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name])


@tied_or_not
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_is_unfrozen_alone(tied, how):
    def count_hooks(model):
        return len(model.get_input_embeddings()._forward_hooks), len(model.get_output_embeddings()._forward_hooks)

    model = frozen_flamingo(tied=tied)
    other = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    other.unfreeze_backbones()
    assert count_hooks(model) == (1, 1) and count_hooks(other) == (0, 0)
    other.freeze_backbones()
    model.unfreeze_backbones()
    assert count_hooks(model) == (0, 0) and count_hooks(other) == (1, 1)


@tied_or_not
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_freezing_survives_a_change_of_dtype(tied, dtype):
    model = frozen_flamingo(tied=tied).to(dtype)
    before = snapshot(model)
    train(model)
    assert_only_the_new_parts_changed(model, before)


def test_freezing_survives_a_resize():
    model = frozen_flamingo(tied=False)
    model.resize_token_embeddings(VOCAB_SIZE + 5)
    assert not model.get_input_embeddings().weight.requires_grad
    before = snapshot(model)
    train(model)
    assert_only_the_new_parts_changed(model, before)


def test_freezing_survives_loading_a_state_dict():
    model, trained = frozen_flamingo(), frozen_flamingo()
    train(trained)
    model.load_state_dict(trained.state_dict())
    before = snapshot(model)
    train(model)
    assert_only_the_new_parts_changed(model, before)


def test_a_trained_model_is_saved_and_loaded_whole(tmp_path):
    model = frozen_flamingo(tied=False)
    train(model)
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # Frozen again, it trains on.
    loaded.freeze_backbones()
    train(loaded)
    train(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@tied_or_not
def test_unfreezing(tied):
    model = frozen_flamingo(tied=tied)
    model.unfreeze_backbones()
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in tiny_flamingo(text_kwargs={"tie_word_embeddings": tied}).named_parameters()]
    assert all(p.requires_grad for p in model.parameters())
    before = snapshot(model)
    train(model)
    weight = model.get_input_embeddings().weight
    assert (weight != before[next(iter(embedding_names(model)))]).any(dim=1).all()


def test_two_models_on_one_language_model_freeze_and_unfreeze_apart():
    first = tiny_flamingo("gpt2")
    second = FlamingoModel(first.config, first.vision_model, first.language_model)
    first.freeze_backbones()
    second.freeze_backbones()
    second.unfreeze_backbones()
    first.language_model.requires_grad_(False)
    first(input_ids=prompt("aIbcE"), pixel_values=random_images(1, 1), labels=prompt("aIbcE")).loss.backward()
    assert all(row.grad is not None and row.grad.abs().sum() > 0 for _, row in first.input_token_rows.items())


def test_rows_of_the_special_tokens_are_not_cut_off():
    model = tiny_flamingo()
    with pytest.raises(ValueError, match="98 rows would cut off the embeddings of `<image>` .98."):
        model.resize_token_embeddings(98)
    assert model.get_input_embeddings().weight.shape[0] == 99


def test_unfreezing_one_backbone():
    model = frozen_flamingo()
    model.unfreeze_backbones(language_model=False)
    assert all(p.requires_grad for p in model.vision_model.parameters())
    assert not any(p.requires_grad for p in model.language_model.parameters())
    model(**batch()).loss.backward()
    encoder = [p for name, p in model.vision_model.named_parameters() if "layers.0" in name]
    assert encoder and all(p.grad is not None for p in encoder)

    model.freeze_backbones()
    model.unfreeze_backbones(vision_model=False)
    assert not any(p.requires_grad for p in model.vision_model.parameters())
    assert all(p.requires_grad for p in model.language_model.parameters())
    # Frozen twice is frozen once.
    model.freeze_backbones()
    model.freeze_backbones()
    before = snapshot(model)
    train(model)
    assert_only_the_new_parts_changed(model, before)


@pytest.mark.parametrize(
    ("kwargs", "vision", "language"),
    [
        ({}, True, True),
        ({"vision_model": True}, True, False),
        ({"language_model": True}, False, True),
        ({"vision_model": False}, False, True),
        ({"language_model": False}, True, False),
        ({"vision_model": True, "language_model": True}, True, True),
        ({"vision_model": False, "language_model": False}, False, False),
    ],
)
def test_what_is_named_is_unfrozen_and_nothing_else(kwargs, vision, language):
    model = frozen_flamingo()
    model.unfreeze_backbones(**kwargs)
    assert {p.requires_grad for p in model.vision_model.parameters()} == {vision}
    assert {p.requires_grad for p in model.language_model.parameters()} == {language}
    assert (model.input_token_rows is None) == language


@pytest.mark.parametrize("frozen", ["nothing", "backbones", "everything"])
@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_pixels_get_their_gradient_whatever_is_frozen(frozen, has_labels, training):
    """Saliency maps and adversarial examples ask for it. The gradient is that of the model with nothing frozen."""
    model = tiny_flamingo("llama")  # has no dropout
    ids, pixels = prompt("aIbcIde"), random_images(1, 2)

    def gradient() -> torch.Tensor:
        given = pixels.clone().requires_grad_()
        output = model(input_ids=ids, pixel_values=given, labels=ids if has_labels else None)
        (output.loss if has_labels else output.logits[0, -1, 7]).backward()
        return given.grad

    expected = gradient()
    if frozen == "backbones":
        model.freeze_backbones()
    elif frozen == "everything":
        model.requires_grad_(False)
    model.train(training)
    assert expected.abs().amax(dim=(2, 3, 4)).min() > 0
    torch.testing.assert_close(gradient(), expected, rtol=1e-4, atol=1e-7)


def test_given_features_and_embeddings_get_their_gradient_from_a_frozen_model():
    model = tiny_flamingo().requires_grad_(False)
    features = torch.randn(1, 1, 4, 24, requires_grad=True)
    embeddings = model.get_input_embeddings()(prompt("aIb")).requires_grad_()
    outputs = {"image": {"last_hidden_state": features}}
    model(inputs_embeds=embeddings, mm_encoder_outputs=outputs).logits[0, -1, 7].backward()
    assert features.grad.abs().max() > 0 and embeddings.grad.abs().max() > 0


def test_construction_freezes_nothing():
    assert all(p.requires_grad for p in tiny_flamingo().parameters())


def test_a_frozen_vision_encoder_records_no_graph():
    model = frozen_flamingo()
    grad_modes = []
    model.vision_model.register_forward_pre_hook(lambda m, args: grad_modes.append(torch.is_grad_enabled()))
    model(**batch())
    model.unfreeze_backbones()
    model(**batch())
    assert grad_modes == [False, True]


def test_training_on_text_alone_and_on_images_in_one_batch():
    """A sample without an image trains what text reaches; nothing is NaN."""
    model = frozen_flamingo()
    ids = prompt("aIbcE", "abcdE")
    mask = torch.tensor([[1], [0]])
    train(model, input_ids=ids, labels=ids, frame_attention_mask=mask)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    model.zero_grad()
    model(input_ids=prompt("abcdE"), labels=prompt("abcdE")).loss.backward()
    assert all(block.ffn_gate.grad.abs() > 0 for block in model.gated_cross_attention)


def test_one_batch_is_learned_by_heart():
    torch.manual_seed(0)
    # A frozen head with the usual tiny weights could not express a certain answer.
    model = tiny_flamingo(gates=0.0, text_kwargs={"initializer_range": 0.3})
    model.freeze_backbones()
    # The same words before, other words after: only the image can tell.
    ids = prompt("IabcE", "IxyzE")
    inputs = {"input_ids": ids, "pixel_values": random_images(2, 1), "labels": ids}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    generated = model.eval().generate(input_ids=ids[:, :1], pixel_values=inputs["pixel_values"], max_new_tokens=6)
    assert generated[:, :5].tolist() == ids.tolist()


@families
@tied_or_not
def test_rows_may_be_trained_as_outputs_alone(text, tied):
    """Their gradient as inputs is the only one below the first block. That of the head is as before."""
    model = frozen_flamingo(text, tied)
    expected = copy.deepcopy(model)
    # The gradient of the head alone: of the text no token is a new one
    inputs = {
        "inputs_embeds": model.get_input_embeddings()(batch()["input_ids"]).detach(),
        "labels": batch()["labels"],
    }
    expected(**inputs, pixel_values=batch()["pixel_values"]).loss.backward()
    model.unfreeze_backbones()
    model.freeze_backbones(train_token_embeddings=False)
    model(**batch()).loss.backward()
    rows = model.head_token_rows
    for token_id, row in expected.head_token_rows.items():
        torch.testing.assert_close(getattr(rows, f"token_{token_id}").grad, row.grad, atol=1e-6, rtol=1e-4)
    if not tied:
        assert not any(row.requires_grad for row in model.input_token_rows.parameters())
        assert all(row.grad is None for row in model.input_token_rows.parameters())
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits, tiny_logits(text, tied))
    detached = copy.deepcopy(model)
    detached.detach_token_rows()
    torch.testing.assert_close(detached(**batch()).logits, tiny_logits(text, tied))


def tiny_logits(text: str, tied: bool) -> torch.Tensor:
    with torch.no_grad():
        return tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied})(**batch()).logits


@tied_or_not
@pytest.mark.parametrize("trains_rows", [True, False])
def test_no_gradient_is_computed_below_what_is_trained(trains_rows, tied):
    """The first block stands before layer 1: layer 0 is passed for the new embeddings alone."""
    model = frozen_flamingo(tied=tied, cross_attention_layers=[1])
    model.freeze_backbones(train_token_embeddings=trains_rows)
    model.resize_token_embeddings(model.config.text_config.vocab_size)  # makes the rows anew
    model = copy.deepcopy(model)
    needs_gradient = {}
    layers = find_decoder_layers(model.language_model)
    for index, layer in enumerate(layers):
        layer.register_forward_hook(
            lambda layer, args, output, index=index: needs_gradient.update({index: states_of(output).requires_grad})
        )
    model.train()
    model(**batch()).loss.backward()
    assert needs_gradient == {0: trains_rows, 1: True, 2: True}
    frozen = [*model.vision_model.parameters(), *model.language_model.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def states_of(output) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("text", ["gpt2", "llama"])
@pytest.mark.parametrize("part", ["model", "language_model"])
def test_a_frozen_model_can_be_offloaded(text, part, tmp_path):
    """Offloaded weights are loaded for the forward of their module, and those of the rows have none."""
    model = tiny_flamingo(text)
    inputs = {"input_ids": prompt("aIbcIde"), "pixel_values": random_images(1, 2)}
    expected = model(**inputs).logits
    model.freeze_backbones()
    disk_offload(model if part == "model" else model.language_model, tmp_path, execution_device=torch.device("cpu"))
    assert model.get_input_embeddings().weight.is_meta
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=0)
