# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Features of a frozen vision encoder, computed once and cached."""

import json
import os
from dataclasses import replace

import datasets
import pytest
import torch
from datasets import Dataset
from factory import IMAGE_SIZE, tiny_processor
from PIL import Image
from processes import launch
from runs import NO_DROPOUT, counted_images, losses, model, png, source, train_on_features, trainer, write_pairs
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_flamingo.data import FORMATS, BadSampleError, EncodedDocuments, encode_documents
from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.training import DataMixture, DataSource, FlamingoDataCollator, add_image_features


# One more image is encoded to learn the shape of the features
PROBE = 1


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def numbered_image(number: int) -> Image.Image:
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (number * 40 % 256, number * 7, 200))


def on_disk(rows: Dataset, path) -> Dataset:
    rows.to_parquet(path)
    return datasets.load_dataset("parquet", data_files=[str(path)], split="train")


@pytest.fixture
def images_on_disk(tmp_path) -> Dataset:
    rows = [
        {"images": [numbered_image(i + j) for j in range(i % 3)], "text": "<image>w5" * (i % 3) + "w6 w7"}
        for i in range(5)
    ]
    features = datasets.Features(images=datasets.List(datasets.Image()), text=datasets.Value("string"))
    return on_disk(Dataset.from_list(rows, features=features), tmp_path / "images.parquet")


def test_features_are_those_of_the_encoder_and_train_as_the_images_do(images_on_disk):
    flamingo, processor = model(), tiny_processor()
    rows = add_image_features(images_on_disk, flamingo, processor, dtype="float32", batch_size=2)
    assert sorted(rows.column_names) == ["image_features", "num_frames", "text"]
    pixels = processor(images=[[numbered_image(2), numbered_image(3)]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = flamingo.get_image_features(pixels).last_hidden_state[0]
    torch.testing.assert_close(rows[2]["image_features"], expected)
    assert rows[2]["num_frames"] == [1, 1]
    assert rows[0]["image_features"].shape == (0, *expected.shape[1:])

    collator = FlamingoDataCollator(processor)
    kept, seen = collator(list(rows)), collator(list(images_on_disk))
    assert "pixel_values" not in kept
    assert torch.equal(kept["frame_attention_mask"], seen["frame_attention_mask"])
    with torch.no_grad():
        torch.testing.assert_close(flamingo(**kept).loss, flamingo(**seen).loss)

    half = add_image_features(images_on_disk, flamingo, processor)
    assert half[2]["image_features"].dtype == torch.float16
    torch.testing.assert_close(half[2]["image_features"], expected.half(), rtol=1e-3, atol=1e-3)


def test_videos_keep_their_frames():
    """A batch mixes videos, images and text alone, whichever form the features have."""
    flamingo, processor = model(), tiny_processor()
    media = [[[numbered_image(0), numbered_image(1), numbered_image(2)], numbered_image(3)], None, [numbered_image(4)]]
    texts = ["<image>w5<image>w6", "w7 w4", "<image>w8"]
    seen = [{"images": images, "text": text} for images, text in zip(media, texts, strict=True)]
    frames = processor(images=[[*media[0][0], media[0][1], media[2][0]]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        features = flamingo.get_image_features(frames).last_hidden_state[0]
    flat = [
        {"image_features": features[:4], "num_frames": [3, 1], "text": texts[0]},
        {"image_features": None, "text": texts[1]},
        {"image_features": features[4:], "num_frames": [1], "text": texts[2]},
    ]
    listed = [
        {"image_features": [features[:3], features[3]], "text": texts[0]},
        {"image_features": [], "text": texts[1]},
        {"image_features": features[4:], "text": texts[2]},
    ]
    collator = FlamingoDataCollator(processor)
    expected = collator(seen)
    with torch.no_grad():
        logits = flamingo(**expected).logits
        for rows in (flat, listed):
            batch = collator(rows)
            assert torch.equal(batch["frame_attention_mask"], expected["frame_attention_mask"])
            torch.testing.assert_close(flamingo(**batch).logits, logits)

    videos = datasets.Features(images=datasets.List(datasets.List(datasets.Image())))
    videos = Dataset.from_dict({"images": [[media[0][0], [numbered_image(3)]], None]}, features=videos)
    rows = add_image_features(videos, flamingo, processor, dtype="float32")
    assert rows[0]["num_frames"] == [3, 1]
    torch.testing.assert_close(rows[0]["image_features"], features[:4])


def test_a_second_run_reads_the_features_of_the_first(images_on_disk):
    num_images, processor = 0 + 1 + 2 + 0 + 1, tiny_processor()

    def encode(flamingo, processor=processor, **kwargs) -> int:
        with counted_images(flamingo) as seen:
            add_image_features(images_on_disk, flamingo, processor, **kwargs)
        return sum(seen) - PROBE

    assert encode(model()) == num_images
    assert encode(model()) == 0
    assert encode(model(seed=1)) == num_images
    assert encode(model(), dtype="float32") == num_images
    assert encode(model(vision_feature_select_strategy="full")) == num_images
    for layers in (-2, [-2, -1]):
        assert encode(model(vision_feature_layer=layers)) == num_images
    assert encode(model(vision_feature_layer=[-2])) == 0
    other = tiny_processor()
    other.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert encode(model(), other) == num_images
    assert encode(model()) == 0


def test_an_image_that_was_replaced_is_encoded_again(tmp_path):
    """The new file has the name, size and time of the old one, as a copy of a folder would leave it."""
    path = write_pairs(tmp_path / "pairs", 4)
    image = tmp_path / "pairs" / "1.png"

    def encode() -> tuple[int, list[torch.Tensor]]:
        flamingo, mixture = model(), DataMixture([source("a", path, cache_features=True)], tiny_processor())
        with counted_images(flamingo) as seen:
            mixture.cache_features(flamingo, dtype="float32")
        return sum(seen) - PROBE, list(mixture.rows[0]["image_features"])

    count, before = encode()
    assert count == 4
    assert encode()[0] == 0
    data, status = image.read_bytes(), image.stat()
    other = png(7)
    image.write_bytes(other + b"\0" * (len(data) - len(other)))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    count, after = encode()
    assert count == 4
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]
    image.touch()  # another time, and the same content
    assert encode()[0] == 0


def test_a_dataset_of_paths_knows_its_files(tmp_path):
    write_pairs(tmp_path / "pairs", 2)
    images = [str(tmp_path / "pairs" / f"{i}.png") for i in range(2)]
    features = datasets.Features(image=datasets.Image(decode=False), text=datasets.Value("string"))
    rows = on_disk(
        Dataset.from_dict({"image": [{"bytes": None, "path": p} for p in images], "text": ["a", "b"]}, features),
        tmp_path / "rows.parquet",
    )

    def encode() -> int:
        flamingo = model()
        with counted_images(flamingo) as seen:
            add_image_features(rows, flamingo, tiny_processor())
        return sum(seen) - PROBE

    assert [encode(), encode()] == [2, 0]
    (tmp_path / "pairs" / "1.png").write_bytes(png(9))
    assert [encode(), encode()] == [2, 0]


def test_another_processor_has_other_features(images_on_disk):
    def encode(processor) -> int:
        flamingo = model()
        with counted_images(flamingo) as seen:
            add_image_features(images_on_disk, flamingo, processor)
        return sum(seen) - PROBE

    assert encode(tiny_processor()) == 4
    other = tiny_processor()
    other.image_processor = SiglipImageProcessorPil(size=dict(other.image_processor.size))
    assert encode(other) == 4
    assert encode(tiny_processor()) == 0


def test_what_cannot_be_cached_is_refused(images_on_disk):
    trained = model()
    trained.unfreeze_backbones(language_model=False)
    with pytest.raises(ValueError, match="The vision encoder is not frozen"):
        add_image_features(images_on_disk, trained, tiny_processor())
    with pytest.raises(ValueError, match="It needs either `image` or `images`"):
        add_image_features(images_on_disk.remove_columns("images"), model(), tiny_processor())
    with pytest.raises(ValueError, match="`dtype` is 'int8'"):
        add_image_features(images_on_disk, model(), tiny_processor(), dtype="int8")
    huge = model()
    with torch.no_grad():
        huge.vision_model.encoder.layers[-1].mlp.fc2.weight.mul_(1e8)
    with pytest.raises(ValueError, match="too large for float16"):
        add_image_features(images_on_disk, huge, tiny_processor())
    with pytest.raises(ValueError, match="`cache_features` is True"):
        source("a", "a/*.tar", streaming=True, cache_features=True)


def write_documents(directory) -> str:
    """Write interleaved documents with a video, with text alone, and with more images than their budget."""
    directory.mkdir()
    for i in range(9):
        (directory / f"{i}.png").write_bytes(png(i * 5))

    def image(i):
        return {"type": "image", "image": f"{i}.png"}

    def text(words):
        return {"type": "text", "text": words}

    documents = [
        [image(0), text("w10 w11"), image(1), text("w12")],
        [text("w13 w14"), {"type": "video", "video": ["2.png", "3.png", "4.png"]}, text("w15"), image(5), text("w16")],
        [text("w17 w18 w19")],
        [image(6), text("w20"), image(7), text("w21"), image(8), text("w22")],
    ]
    lines = [json.dumps({"parts": parts}) for parts in documents]
    (directory / "documents.jsonl").write_text("\n".join(lines))
    return str(directory / "documents.jsonl")


def run(directory, *sources, **kwargs):
    trained = trainer(
        directory, list(sources), **{"flamingo": model(text_kwargs=NO_DROPOUT), "max_steps": 4, **kwargs}
    )
    with counted_images(trained.model) as seen:
        trained.train()
    return losses(trained.state.log_history), sum(seen)


def test_training_on_kept_features_gives_the_losses_of_training_on_images(tmp_path):
    pairs, documents = write_pairs(tmp_path / "pairs", 6), write_documents(tmp_path / "documents")

    def sources(cache_features):
        options = {"format": "parts", "path": documents, "batch_size": 3, "max_images": 2, "max_length": 7}
        return (
            source("pairs", pairs, weight=0.5, cache_features=cache_features),
            DataSource(name="parts", next_image_probability=0.5, cache_features=cache_features, **options),
        )

    expected, _ = run(tmp_path / "a", *sources(False))
    kept, num_images = run(tmp_path / "b", *sources(True))
    for entry, other in zip(kept, expected, strict=True):
        assert entry == pytest.approx(other, rel=1e-5)
    # Each frame once: 6 pairs, and of the documents 2 images, 3 frames and an image, and 2 of 3 images
    assert num_images == PROBE + 6 + PROBE + 2 + 4 + 2
    again, num_images = run(tmp_path / "c", *sources(True))
    assert again == kept
    assert num_images == 2 * PROBE


def test_mixed_precision_keeps_features_in_half_the_space(tmp_path):
    path = write_pairs(tmp_path / "pairs", 6)
    expected, _ = run(tmp_path / "a", source("a", path), bf16=True)
    trained = trainer(
        tmp_path / "b",
        [source("a", path, cache_features=True)],
        max_steps=4,
        bf16=True,
        flamingo=model(text_kwargs=NO_DROPOUT),
    )
    trained.train()
    batch = next(iter(trained.mixture.loader())).inputs
    assert batch["mm_encoder_outputs"]["image"]["last_hidden_state"].dtype == torch.float16
    for entry, other in zip(losses(trained.state.log_history), expected, strict=True):
        assert entry["loss"] == pytest.approx(other["loss"], rel=2e-2)


def test_a_source_may_cache_features_next_to_one_that_does_not(tmp_path):
    paths = [write_pairs(tmp_path / name, 4) for name in "ab"]
    mixture = DataMixture([source("a", paths[0], cache_features=True), source("b", paths[1])], tiny_processor())
    mixture.cache_features(model())
    mixture.cache_features(model())  # from the images, and not from their features
    first, second = (batch.inputs for batch, _ in zip(mixture.loader(), range(2), strict=False))
    assert "mm_encoder_outputs" in first and "pixel_values" not in first
    assert "pixel_values" in second and "mm_encoder_outputs" not in second


def test_a_file_that_many_rows_name_is_encoded_once(tmp_path):
    """Features of repeated images are those of the images, in any order of the rows, also next to a bad row."""
    folder = tmp_path / "episodes"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(number))
    shown = [
        (0, 1),
        (2, 2, 0),
        (),
        (3, 9),
        (3, 1, 0, 2),
        (1, 3),
    ]  # 9 is missing, so row 3 is bad, and 3 is new in row 4
    rows = [[{"type": "image", "image": f"{n}.png"} for n in row] for row in shown]
    rows = [[part for image in row for part in (image, {"type": "text", "text": "a red circle"})] for row in rows]
    rows[2] = [{"type": "text", "text": "a red circle"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"parts": row}) + "\n" for row in rows))
    flamingo, processor, reader = model(), tiny_processor(), FORMATS["parts"]()
    loaded = reader.load(str(folder / "rows.jsonl"))
    with pytest.raises(BadSampleError, match="row 3: .*9.png"):
        encode_documents(loaded, reader, flamingo, processor)
    with counted_images(flamingo) as seen:
        encoded = encode_documents(loaded, reader, flamingo, processor, skip_bad_samples=True, batch_size=2)
    assert sum(seen) == PROBE + 4
    assert [len(features) for features in encoded["image_features"]] == [2, 1, 0, 0, 1, 0]
    kept = EncodedDocuments(encoded=encoded)
    for number in (5, 4, 2, 1, 0):
        document, wanted = kept.read(encoded[number]), reader.read(loaded[number])
        assert [chunk.text for chunk in document] == [chunk.text for chunk in wanted]
        given = [chunk.item for chunk in document if chunk.item is not None]
        assert len(given) == len(shown[number])
        for features, image in zip(given, shown[number], strict=True):
            (expected,) = encode_images(
                flamingo, processor, [Image.open(folder / f"{image}.png")], output="last_hidden_state"
            )
            torch.testing.assert_close(features, expected[None].half(), rtol=1e-3, atol=1e-3)


def test_conversations_keep_their_turns(tmp_path):
    numbered_image(1).save(tmp_path / "1.png")
    content = [{"type": "text", "text": "w5"}, {"type": "image"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "w6"}]
    messages += [{"role": "user", "content": "w7"}, {"role": "assistant", "content": "w8"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages, "images": ["1.png"]}))
    reader = FORMATS["messages"]()
    rows = reader.load(str(tmp_path / "rows.jsonl"))
    encoded = encode_documents(rows, reader, model(), tiny_processor())
    kept, wanted = EncodedDocuments(encoded=encoded).read(encoded[0]), reader.read(rows[0])
    assert [replace(chunk, item=None) for chunk in kept] == [replace(chunk, item=None) for chunk in wanted]
    assert [turn.role for chunk in kept for turn in chunk.turns if turn.role] == ["user", "assistant"] * 2
    assert isinstance(kept[0].item, torch.Tensor)


def test_bad_rows_are_named_or_skipped_as_without_a_cache(tmp_path):
    path = write_pairs(tmp_path / "broken", 8, broken=(2, 5))
    with pytest.raises(BadSampleError, match=r"^Data source 'a': .*metadata.jsonl, row 2: .*cannot be decoded"):
        run(tmp_path / "a", source("a", path, cache_features=True))
    rows = Dataset.from_dict({"image": [png(0), b"broken"]}).cast_column("image", datasets.Image())
    with pytest.raises(BadSampleError, match="Row 1 of the dataset: .*cannot be decoded"):
        add_image_features(rows, model(), tiny_processor())
    expected, _ = run(tmp_path / "b", source("a", path, batch_size=4), skip_bad_samples=True)
    kept, _ = run(tmp_path / "c", source("a", path, batch_size=4, cache_features=True), skip_bad_samples=True)
    assert expected[-1]["skipped/a"] > 0
    for entry, other in zip(kept, expected, strict=True):
        assert entry == pytest.approx(other, rel=1e-5)


def test_one_process_encodes_for_all(tmp_path):
    path = write_pairs(tmp_path / "pairs", 8)
    records = []
    for world_size in (1, 2):
        directory = tmp_path / str(world_size)
        directory.mkdir()
        kwargs = {"batch_size": 4 // world_size}
        assert launch(train_on_features, str(directory), path, world_size=world_size, **kwargs) == [0] * world_size
        records.append([json.loads((directory / f"{rank}.json").read_text()) for rank in range(world_size)])
    (alone,), (first, second) = records
    assert (alone["world_size"], first["world_size"]) == (1, 2)
    assert (alone["images"], first["images"], second["images"]) == (8 + PROBE, 8 + PROBE, PROBE)
    for entry, other in zip(first["losses"], alone["losses"], strict=True):
        assert entry == pytest.approx(other, rel=1e-4)
