# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measure on a batch whether a model uses its images: right pairs, right losses, and nothing changed."""

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo
from flamingos import pad_images, shared_model

from transformers_flamingo.training import measure_image_use
from transformers_flamingo.training.image_use import _choose_others, plan_swap


def batch(*rows: str, **kwargs) -> dict:
    input_ids = prompt(*rows)
    return {"input_ids": input_ids, "labels": input_ids.clone(), **kwargs}


def loss_of(model, inputs: dict, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return model(**{**inputs, "labels": labels}).loss.item()


def test_each_text_meets_the_image_of_another_row():
    model, pixels = shared_model(), random_images(3, 1)
    inputs = batch("Iabc", "Idef", "xIgh", pixel_values=pixels)
    measured = measure_image_use(model, inputs)
    labels = inputs["labels"].clone()
    labels[2, :2] = -100  # the marker of the last row is predicted from a token that sees no image
    assert measured.loss == pytest.approx(loss_of(model, inputs, labels), abs=1e-6)
    swapped = {**inputs, "pixel_values": pixels[[1, 2, 0]]}
    assert measured.swapped_loss == pytest.approx(loss_of(model, swapped, labels), abs=1e-6)
    assert abs(measured.loss - measured.swapped_loss) > 1e-4
    assert not measured.is_blank


def test_rows_with_several_images_and_padding():
    model = shared_model()
    images = [random_images(2, seed=1), random_images(1, seed=2), random_images(2, seed=3)]
    pixels, mask = pad_images(images)
    pixels[1], mask[1] = pixels[1].roll(1, dims=0), mask[1].roll(1)  # padding first: the model moves it to the end
    inputs = batch("IaIbc", "Idefg", "IhIij", pixel_values=pixels, frame_attention_mask=mask)
    swap = plan_swap(model, inputs)
    # The images of a row get different ones, in their order, where the next row has as many
    assert dict(zip(swap.places, swap.sources, strict=True)) == {
        (0, 0): (1, 0),
        (0, 1): (2, 0),
        (1, 0): (2, 0),
        (2, 0): (0, 0),
        (2, 1): (0, 1),
    }
    others = [torch.stack([images[1][0], images[2][0]]), images[2][:1], images[0]]
    pixels, mask = pad_images(others)
    swapped = {**inputs, "pixel_values": pixels, "frame_attention_mask": mask}
    expected = loss_of(model, swapped, swap.labels)
    assert measure_image_use(model, inputs).swapped_loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_no_image_is_replaced_by_the_same_content(seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (5,), generator=generator).tolist()
    places = [(row, number) for row, count in enumerate(counts) for number in range(count)]
    contents = torch.randint(0, 3, (len(places),), generator=generator).tolist()
    content_of = dict(zip(places, contents, strict=True))
    texts = [[row % 2] for row in range(5)]
    chosen = _choose_others(places, contents, counts, texts)
    if len(set(contents)) < 2:
        assert chosen is None
        return
    for place, source in zip(places, chosen, strict=True):
        assert content_of[place] != content_of[source]
        others = [p[0] for p in places if content_of[p] != content_of[place]]
        if any(texts[row] != texts[place[0]] for row in others):
            assert texts[source[0]] != texts[place[0]]
        elif any(row != place[0] for row in others):
            assert source[0] != place[0]


def test_an_image_with_the_same_text_is_not_a_wrong_one():
    inputs = batch("Iabc", "Iabc", "Idef", pixel_values=random_images(3, 1))
    assert plan_swap(shared_model(), inputs).sources == [(2, 0), (2, 0), (0, 0)]


def test_the_loss_is_a_mean_whatever_the_trainer_divides_by():
    inputs = batch("Iabc", "Idef", pixel_values=random_images(2, 1))
    expected = measure_image_use(shared_model(), inputs)
    given = {"num_items_in_batch": torch.tensor(100), "shift_labels": inputs["labels"].roll(-1, dims=1)}
    assert measure_image_use(shared_model(), {**inputs, **given}) == expected


def test_where_all_images_are_the_same_they_become_blank():
    model = shared_model()
    pixels = random_images(1, 1).expand(2, -1, -1, -1, -1)
    for inputs in (batch("Iabc", "Idef", pixel_values=pixels), batch("Iabc", pixel_values=pixels[:1])):
        measured = measure_image_use(model, inputs)
        assert measured.is_blank
        blank = {**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}
        assert measured.swapped_loss == pytest.approx(loss_of(model, blank, inputs["labels"]), abs=1e-6)
        assert abs(measured.loss - measured.swapped_loss) > 1e-4


def test_features_and_latents_measure_what_pixels_do():
    model, pixels = shared_model(), random_images(2, 1)
    expected = measure_image_use(model, batch("Iabc", "Idef", pixel_values=pixels))
    with torch.no_grad():
        features = model.get_image_features(pixels)
    for given in ({"last_hidden_state": features.last_hidden_state}, features):
        measured = measure_image_use(model, batch("Iabc", "Idef", mm_encoder_outputs={"image": given}))
        assert measured.loss == pytest.approx(expected.loss, abs=1e-6)
        assert measured.swapped_loss == pytest.approx(expected.swapped_loss, abs=1e-6)
        assert measured.attn == pytest.approx(expected.attn, rel=1e-4)
    alone = batch("Iabc", mm_encoder_outputs={"image": {"last_hidden_state": features.last_hidden_state[:1]}})
    assert measure_image_use(model, alone).is_blank


def test_videos():
    model, frames = shared_model(), random_images(2, 1, 3)
    mask = torch.tensor([[[1, 1, 0]], [[1, 1, 1]]])
    inputs = batch("Iabc", "Idef", pixel_values=frames, frame_attention_mask=mask)
    measured = measure_image_use(model, inputs)
    assert measured.loss == pytest.approx(loss_of(model, inputs, inputs["labels"]), abs=1e-6)
    swapped = {**inputs, "pixel_values": frames[[1, 0]], "frame_attention_mask": mask[[1, 0]]}
    assert measured.swapped_loss == pytest.approx(loss_of(model, swapped, inputs["labels"]), abs=1e-6)


def test_packed_documents_and_a_given_media_index():
    model, pixels = shared_model(), random_images(1, 2)
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2]])  # "Iab", "cd" without an image, "Ief"
    packed = batch("IabcdIef", pixel_values=pixels, position_ids=positions)
    assert plan_swap(model, packed).sees_image.tolist() == [[True] * 3 + [False] * 2 + [True] * 3]
    assert (plan_swap(model, packed).labels != -100).tolist() == [[False, True, True, True] + [False] * 2 + [True] * 2]
    assert measure_image_use(model, packed).swapped_loss == pytest.approx(
        loss_of(model, {**packed, "pixel_values": pixels[:, [1, 0]]}, plan_swap(model, packed).labels), abs=1e-6
    )
    index = torch.tensor([[0, 0, 0, 0, 1, 2, 2, 2]])
    given = batch("IabcdIef", pixel_values=pixels, media_index=index)
    assert plan_swap(model, given).sees_image.tolist() == [(index > 0)[0].tolist()]


def test_nothing_to_measure():
    model, pixels = shared_model(), random_images(2, 1)
    assert measure_image_use(model, batch("abc", "def")) is None
    assert measure_image_use(model, {"input_ids": prompt("Iab", "Icd"), "pixel_values": pixels}) is None
    inputs = batch("abI_", "cdI_", pixel_values=pixels)
    inputs["labels"][:, 3:] = -100
    assert measure_image_use(model, inputs) is None  # what is learned comes before the images
    row = batch("Iab", "xcd", pixel_values=pixels, frame_attention_mask=torch.tensor([[1], [0]]))
    assert (plan_swap(model, row).labels != -100).sum() == 2  # a row without an image does not count


def test_padding_is_not_measured():
    model, pixels = shared_model(), random_images(2, 1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    padded = batch("Iabc", "Id__", pixel_values=pixels, attention_mask=mask)
    assert plan_swap(model, padded).sees_image.tolist() == mask.bool().tolist()


def test_it_changes_nothing():
    model = tiny_flamingo(text_kwargs={"resid_pdrop": 0.3})
    model.freeze_backbones()
    model.train()
    model.vision_model.eval()
    modes = [module.training for module in model.modules()]
    inputs = batch("Iabc", "Idef", pixel_values=random_images(2, 1))
    model(**inputs).loss.backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    state = torch.get_rng_state()
    first = measure_image_use(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == measure_image_use(model, inputs)  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, gradients, strict=True))
    assert not any(block._forward_hooks or block.mlp._forward_pre_hooks for block in model.gated_cross_attention)
    with pytest.raises(ValueError):  # also when it fails
        measure_image_use(model, {**inputs, "pixel_values": inputs["pixel_values"][:, :, :2] * float("nan")})
    assert [module.training for module in model.modules()] == modes
    assert not any(block._forward_hooks for block in model.gated_cross_attention)


def test_the_sizes_of_the_branches():
    inputs = batch("Iabc", "xIef", pixel_values=random_images(2, 1))
    closed = measure_image_use(shared_model(gates=0.0), inputs)
    assert closed.attn == closed.ffn == [0.0, 0.0, 0.0]
    assert closed.loss == closed.swapped_loss
    model = shared_model()
    states = []
    block = model.gated_cross_attention[0]
    handle = block.register_forward_hook(
        lambda module, args, kwargs, output: states.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
        handle.remove()
        (hidden_states, latents), kwargs = states[0]
        scale = block.attn_gate.tanh()
        attended, _ = block._cross_attend(hidden_states, latents, kwargs["layout"], None, False, scale)
        sees_image = torch.tensor([[True] * 4, [False, True, True, True]])
        ratio = attended[sees_image].pow(2).mean().sqrt() / hidden_states[sees_image].pow(2).mean().sqrt()
        middle = hidden_states + attended
        added = (block.mlp(middle) * block.ffn_gate.tanh())[sees_image]
    measured = measure_image_use(model, inputs)
    assert measured.attn[0] == pytest.approx(ratio.item(), rel=1e-4)
    assert measured.ffn[0] == pytest.approx((added.norm() / middle[sees_image].norm()).item(), rel=1e-4)
    assert len(measured.attn) == len(measured.ffn) == 3
    assert measure_image_use(shared_model(cross_attention_ffn_mult=0), inputs).ffn == []
