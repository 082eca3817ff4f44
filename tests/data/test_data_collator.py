# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from factory import END_OF_CHUNK, IMAGE, IMAGE_SIZE, PAD, tiny_flamingo, tiny_processor
from PIL import Image
from runs import NO_DROPOUT

from transformers_flamingo.training import FlamingoDataCollator
from transformers_flamingo.visibility_flamingo import compute_media_index, find_documents


PICTURE = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (200, 30, 30))


@pytest.fixture(scope="module")
def collator() -> FlamingoDataCollator:
    return FlamingoDataCollator(tiny_processor())


def test_only_the_completion_is_supervised(collator):
    batch = collator(
        [
            {"image": PICTURE, "prompt": "<image>w5 w6", "completion": " w7 w8<|endofchunk|>"},
            {"image": PICTURE, "prompt": "<image>", "completion": "w9<|endofchunk|>"},
        ]
    )
    assert batch["input_ids"].tolist() == [
        [IMAGE, 5, 6, 7, 8, END_OF_CHUNK],
        [IMAGE, 9, END_OF_CHUNK, PAD, PAD, PAD],
    ]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, 7, 8, END_OF_CHUNK],
        [-100, 9, END_OF_CHUNK, -100, -100, -100],
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert batch["pixel_values"].shape == (2, 1, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert batch["frame_attention_mask"].tolist() == [[1], [1]]


def test_text_is_supervised_except_for_markers_and_padding(collator):
    batch = collator(
        [
            {"images": [PICTURE, PICTURE], "text": "w5<image>w6<|endofchunk|><image>w7"},
            {"text": "w8 <pad>"},  # the pad token as text: the mask decides, not the id
        ]
    )
    assert batch["labels"].tolist() == [
        [5, -100, 6, END_OF_CHUNK, -100, 7],
        [8, PAD, -100, -100, -100, -100],
    ]
    assert batch["frame_attention_mask"].tolist() == [[1, 1], [0, 0]]


def test_supervised_parts_of_a_text_hold_the_tokens_that_start_in_them(collator):
    row = {
        "text": "w5 w6<|endofchunk|><image>w7 w8<|endofchunk|>",
        "images": [PICTURE],
        "supervised": [(3, 5), (26, 45)],
    }
    batch = collator([row, {"text": "w9 w4"}])
    assert batch["labels"].tolist() == [
        [-100, 6, -100, -100, 7, 8, END_OF_CHUNK],
        [9, 4, -100, -100, -100, -100, -100],
    ]


def test_a_video_is_a_list_of_frames_among_the_images(collator):
    batch = collator([{"images": [PICTURE, [PICTURE, PICTURE]], "text": "<image>w5<image>w6"}])
    assert batch["frame_attention_mask"].tolist() == [[[1, 0], [1, 1]]]
    assert batch["pixel_values"].shape == (1, 2, 2, 3, IMAGE_SIZE, IMAGE_SIZE)


def test_rows_without_features_are_text(collator):
    rows = [{"text": "w5 w4", "image_features": torch.zeros(0, 4, 24)}, {"text": "w6 w4", "image_features": None}]
    assert set(collator(rows)) == {"input_ids", "attention_mask", "labels"}
    mixed = collator([rows[0], {"text": "<image>w7", "image_features": torch.ones(1, 4, 24)}])
    assert mixed["frame_attention_mask"].tolist() == [[0], [1]]


def test_a_batch_of_text_alone_has_no_pixels(collator):
    batch = collator([{"text": "w5 w6"}, {"prompt": None, "completion": "w7 w8 w9"}])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["labels"].tolist() == [[5, 6, -100], [7, 8, 9]]


def test_the_batch_is_what_the_model_trains_on(collator):
    model = tiny_flamingo()
    rows = [{"image": PICTURE, "prompt": "<image>", "completion": f"w{i}<|endofchunk|>"} for i in (5, 6)]
    together = model(**collator(rows)).loss
    alone = torch.stack([model(**collator([row])).loss for row in rows]).mean()
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": PICTURE}, "Row 0 .* needs either `text`, .*or `completion`"),
        ({"text": "w5", "completion": "w6"}, "needs either `text`, .*or `completion`"),
        ({"prompt": "w5", "text": "w6"}, r"\['prompt', 'text'\] describe its text"),
        ({"supervised": [(0, 2)], "completion": "w6"}, r"\['completion', 'supervised'\] describe its text"),
        ({"image": PICTURE, "images": [PICTURE], "text": "<image>w6"}, "Row 0 of the batch has `image` and `images`"),
        ({"image": PICTURE, "image_features": torch.zeros(1, 4, 24), "text": "<image>w6"}, "`image_features`"),
        ({"text": "w5", "supervised": []}, "Row 0 of the batch has no token to learn from"),
        ({"prompt": "w5", "completion": ""}, "Row 0 of the batch has no token to learn from"),
        ({"text": "w5"}, "Row 0 of the batch has no token to learn from .* only the first token"),
        ({"completion": "w5"}, "only the first token"),
        ({"text": "w5 w6 w7", "supervised": [(0, 2)]}, "only the first token"),
        ({"text": "w5 w6", "supervised": [(3, 9)]}, r"`supervised` of row 0 .* in the 5 characters"),
        ({"text": "w5 w6", "supervised": [(3, 1)]}, r"`supervised` of row 0"),
        ({"text": "w5 w6", "supervised": [3, 5]}, r"`supervised` of row 0 of the batch is \[3, 5\]"),
        ({"text": ["w5", "w6"]}, r"The text of row 0 of the batch is \[\['w5', 'w6'\]\]: give strings"),
        ({"prompt": b"w5", "completion": "w6"}, "The text of row 0 of the batch is .*: give strings"),
        ({"text": "<image>", "image": PICTURE}, "no token to learn from"),
        ({"text": "<image>w5"}, ""),
        ({"text": "w5", "image": PICTURE}, "image"),
    ],
)
def test_bad_rows_are_errors(collator, row, message):
    if row == {"text": "<image>w5"}:
        # Without any image in the batch the model itself refuses the marker.
        with pytest.raises(ValueError, match="sample 0: 1 markers, 0 images"):
            tiny_flamingo()(**collator([row]))
        return
    with pytest.raises(ValueError, match=message):
        collator([row])


def test_a_completion_that_is_cut_off_is_an_error():
    collator = FlamingoDataCollator(tiny_processor(), max_length=3)
    kept = collator([{"prompt": "w5", "completion": " w6 w7 w8"}])
    assert kept["labels"].tolist() == [[-100, 6, 7]]
    with pytest.raises(ValueError, match="max_length 3"):
        collator([{"prompt": "w5 w6 w7", "completion": " w8"}])


def test_features_take_the_place_of_images(collator):
    model = tiny_flamingo()
    rows = [
        {"images": [PICTURE, PICTURE], "text": "<image>w5<image>w6"},
        {"text": "w7 w4"},
        {"image": PICTURE, "text": "w8<image>w9"},
    ]
    pixels = collator(rows)
    features = model.get_image_features(pixels["pixel_values"], pixels["frame_attention_mask"]).last_hidden_state
    counts = (2, 0, 1)
    with_features = collator(
        [
            {"text": row["text"], "image_features": features[i, :n] if n else None}
            for i, (row, n) in enumerate(zip(rows, counts, strict=True))
        ]
    )
    assert "pixel_values" not in with_features
    assert with_features["frame_attention_mask"].tolist() == [[1, 1], [0, 0], [1, 0]]
    torch.testing.assert_close(model(**with_features).loss, model(**pixels).loss)


def test_rows_that_are_cut_to_their_first_token_are_an_error():
    rows = [{"text": "w5 w6"}, {"text": "w5 w6", "supervised": [(0, 2)]}]
    for packing in (False, True):
        collator = FlamingoDataCollator(tiny_processor(), max_length=1, packing=packing)
        with pytest.raises(ValueError, match="Row 0 .*only the first token.*or raise `max_length`"):
            collator(rows[:1])
        with pytest.raises(ValueError, match="Row 1 .*only the first token"):
            FlamingoDataCollator(tiny_processor(), max_length=2, packing=packing)(rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_may_be_of_numpy(collator, dtype):
    features = np.random.default_rng(0).normal(size=(2, 4, 24)).astype(dtype)
    row = {"text": "<image>w5<image>w6"}
    expected = torch.from_numpy(features).to(torch.float16 if dtype == np.float16 else torch.float32)
    for given in (features, list(features), features.tolist()):
        batch = collator([{**row, "image_features": given}])
        kept = batch["mm_encoder_outputs"]["image"]["last_hidden_state"][0]
        torch.testing.assert_close(kept, expected.to(kept.dtype), rtol=0, atol=0)
        assert batch["frame_attention_mask"].tolist() == [[1, 1]]
    assert kept.dtype == torch.float32  # of a list
    video = collator([{**row, "image_features": features[[0, 0, 1]], "num_frames": np.array([2, 1])}])
    assert video["frame_attention_mask"].tolist() == [[[1, 1], [1, 0]]]
    tiny_flamingo()(**collator([{**row, "image_features": features.astype(np.float64)}]))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([None, "a"], dtype=object), "`image_features` of row 0 of the batch are not features"),
        (["a.png"], "`image_features` of row 0 of the batch are not features"),
        (
            np.zeros((1, 4, 24), dtype=np.uint8),
            r"of image 0 of row 0 of the batch are of shape \(1, 4, 24\) and torch.uint8",
        ),
        (np.zeros((1, 24)), r"of shape \(24,\)"),
        (np.zeros((1, 1, 1, 4, 24)), r"of shape \(1, 1, 4, 24\)"),
        ([np.zeros((0, 4, 24))], r"of shape \(0, 4, 24\)"),
        (np.full((1, 4, 24), np.nan), "are not finite"),
        ([torch.zeros(4, 24), torch.zeros(5, 24)], r"different shapes .*\[\(4, 24\), \(5, 24\)\]"),
        (np.zeros((2, 4, 24)), "Row 0 of the batch has 1 markers .* and features of 2 images"),
    ],
)
def test_features_that_are_none_are_refused(collator, features, message):
    with pytest.raises(ValueError, match=message):
        collator([{"text": "<image>w5", "image_features": features}])


def test_frames_are_counted(collator):
    row = {"text": "<image>w5", "image_features": np.zeros((3, 4, 24))}
    with pytest.raises(ValueError, match=r"do not match `num_frames` \[2\]"):
        collator([{**row, "num_frames": [2]}])
    with pytest.raises(ValueError, match="Row 1 of the batch has 1 markers .* and features of 0 images"):
        collator([{**row, "num_frames": [3]}, {"text": "<image>w5"}])


def test_images_and_features_in_one_batch_are_an_error(collator):
    rows = [{"image": PICTURE, "text": "<image>w5"}, {"image_features": torch.zeros(1, 4, 24), "text": "<image>w5"}]
    with pytest.raises(ValueError, match="one kind at a time"):
        collator(rows)


def packing_collator(max_length: int) -> FlamingoDataCollator:
    return FlamingoDataCollator(tiny_processor(), max_length=max_length, packing=True)


def test_packed_documents_share_rows():
    rows = [
        {"image": PICTURE, "prompt": "w4 <image>", "completion": "w5<|endofchunk|>"},
        {"text": "w6 w7 w8 w9 w10 w11"},
        {"text": "w12 w13"},
        {"images": [PICTURE, PICTURE], "text": "<image>w14<image>"},
    ]
    batch = packing_collator(8)(rows)
    assert set(batch) == {"input_ids", "labels", "position_ids", "pixel_values", "frame_attention_mask"}
    assert batch["input_ids"].tolist() == [
        [4, IMAGE, 5, END_OF_CHUNK, IMAGE, 14, IMAGE, PAD],
        [6, 7, 8, 9, 10, 11, 12, 13],
    ]
    assert batch["labels"].tolist() == [
        [-100, -100, 5, END_OF_CHUNK, -100, 14, -100, -100],
        [-100, 7, 8, 9, 10, 11, -100, 13],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5, 0, 1]]
    assert batch["frame_attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0]]
    documents = find_documents(batch["position_ids"], batch["input_ids"].shape, None)
    media_index = compute_media_index(batch["input_ids"] == IMAGE, documents)
    assert media_index.tolist() == [[0, 1, 1, 1, 2, 2, 3, 0], [0] * 8]


@pytest.mark.parametrize("kind", ["pixels", "videos", "features", "text"])
def test_packing_changes_neither_loss_nor_gradients(kind):
    model = tiny_flamingo(text_kwargs=NO_DROPOUT).train()
    texts = ["w4 <image>w5 w6 w7", "<image>w8 w3", "w9 w10 w11", "<image>w12<image>w13 w14", "w15 <image>w16"]
    rows = []
    for index, text in enumerate(texts):
        row = {"text": text.replace("<image>", " ") if kind == "text" else text}
        pictures = [
            Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (40 * index, 9 * i, 3)) for i in range(row["text"].count("<"))
        ]
        if kind == "features":
            row["image_features"] = torch.randn(len(pictures), 4, 24, generator=torch.Generator().manual_seed(index))
        elif kind == "videos":
            row["images"] = [[picture] * (1 + i) for i, picture in enumerate(pictures)]
        else:
            row["images"] = pictures
        rows.append(row)
    padded, packed = FlamingoDataCollator(tiny_processor())(rows), packing_collator(12)(rows)
    assert len(packed["input_ids"]) < len(padded["input_ids"])
    num_items = (padded["labels"][:, 1:] != -100).sum()
    assert (packed["labels"][:, 1:] != -100).sum() == num_items

    def step(batch):
        model.zero_grad()
        loss = model(**batch, num_items_in_batch=num_items).loss
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    (loss, gradients), (packed_loss, packed_gradients) = step(padded), step(packed)
    torch.testing.assert_close(packed_loss, loss, atol=1e-6, rtol=1e-5)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-6, rtol=1e-4)


def test_rows_may_be_longer_than_the_table_of_positions():
    rows = [{"text": f"w{i} w{i} w{i} w{i}"} for i in range(5, 12)]
    batch = packing_collator(20)(rows)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["position_ids"].max() == 3
    tiny_flamingo(text_kwargs={"n_positions": 4})(**batch)


def test_a_document_longer_than_a_row_is_cut_as_without_packing():
    assert packing_collator(3)([{"text": "w5 w6 w7 w8"}, {"text": "w9 w10"}])["input_ids"].tolist() == [
        [5, 6, 7],
        [9, 10, PAD],
    ]
    row = {"text": "w5 w6 w7<image>w8", "image": PICTURE}
    errors = []
    for collator in (packing_collator(3), FlamingoDataCollator(tiny_processor(), max_length=3)):
        with pytest.raises(ValueError) as error:
            collator([row])
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_packing_needs_the_length_of_a_row():
    with pytest.raises(ValueError, match="`packing` is set without `max_length`"):
        FlamingoDataCollator(tiny_processor(), packing=True)


@pytest.mark.parametrize("max_length", [0, -3, 3.5])
def test_a_length_that_is_none_is_refused(max_length):
    with pytest.raises(ValueError, match=f"`max_length` is {max_length}"):
        FlamingoDataCollator(tiny_processor(), max_length=max_length)


def test_an_empty_batch_and_an_empty_text_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        FlamingoDataCollator(tiny_processor())([])
    with pytest.raises(ValueError, match="text of row 1 of the batch is empty"):
        FlamingoDataCollator(tiny_processor())([{"text": "w5"}, {"text": ""}])
