# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Layouts that people have, as tiny files, up to the samples that the model sees: their texts, images and labels."""

import gzip
import json
import logging

import numpy as np
import pytest
from data_factory import (
    both,
    embedded,
    first,
    number_of,
    png,
    sample,
    video_file,
    write_jsonl,
    write_png,
    write_tar,
)
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PillowImage

from transformers_flamingo.data import (
    FORMATS,
    BadSampleError,
    detect_format,
    document_to_sample,
    load_media,
    row_location,
)
from transformers_flamingo.data.data_files import SeveralSplitsError, find_files


EOC = "<|endofchunk|>"
PAIR = (f"<image>a red cat{EOC}", [1], [f"a red cat{EOC}"])


def texts(name, path, split=None, streaming=False, **options):
    """Return the texts and the numbers of the images of all rows, in the order of their images."""
    reader = FORMATS[name](**options)
    found = []
    for row in reader.load(str(path), split=split, streaming=streaming):
        (chunk,) = reader.read(row)
        image = PillowImage.open(chunk.item["path"]) if chunk.item["bytes"] is None else None
        found.append((number_of(image) if image else None, chunk.text, *chunk.alternatives))
    return sorted(found)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# COCO and VQAv2


def coco(root, annotations="annotations", images="train2014"):
    for number in (1, 2):
        write_png(root / images / f"COCO_train2014_{number:012d}.jpg", number)
    records = [{"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg"} for number in (1, 2)]
    captions = [(1, "a red cat"), (2, "a dog "), (1, "an animal")]
    captions = [{"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(captions)]
    write_json(root / annotations / "captions_train2014.json", {"images": records, "annotations": captions})
    write_json(root / annotations / "captions_val2014.json", {"images": [], "annotations": []})
    write_json(root / annotations / "instances_train2014.json", {"images": records, "annotations": [{"bbox": []}]})


@both
@pytest.mark.parametrize("images", ["train2014", "images/train2014", "annotations/train2014"])
def test_coco_captions(tmp_path, streaming, images, processor):
    coco(tmp_path, images=images)
    found = texts("coco_captions", tmp_path, "train", streaming)
    assert found == [(1, "a red cat", "an animal"), (2, "a dog")]
    direct = tmp_path / "annotations" / "captions_train2014.json"
    assert texts("coco_captions", direct, streaming=streaming) == found
    assert texts("coco_captions", direct, streaming=streaming, media_root=str(tmp_path / images)) == found
    with pytest.raises(SeveralSplitsError, match="split: train"):
        FORMATS["coco_captions"]().load(str(tmp_path))
    path = direct.with_name("instances_train2014.json")
    with pytest.raises(Exception, match="no 'caption': it is of boxes or keypoints"):
        list(FORMATS["coco_captions"]().load(str(path), streaming=True))


@both
@pytest.mark.parametrize("folder", [".", "photos", "images/sub", "../images"])
def test_coco_captions_of_a_file_of_ones_own(tmp_path, streaming, folder, caplog):
    root = tmp_path / "mine"
    write_png(root / folder / "a.png", 1)
    records = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    write_json(root / "captions_mine.json", records)
    assert texts("coco_captions", root / "captions_mine.json", streaming=streaming) == [(1, "a cat")]
    assert texts("coco_captions", root, streaming=streaming, media_root=str(root / folder)) == [(1, "a cat")]
    records["annotations"].append({"image_id": 99, "caption": "a dog"})
    write_json(root / "captions_mine.json", records)
    assert texts("coco_captions", root, streaming=streaming) == [(1, "a cat")]
    assert "has 1 caption of images that are not in 'images', such as 99" in caplog.text
    (root / folder / "a.png").unlink()
    write_png(root / "x" / "a.png", 2)
    write_png(root / "y" / "a.png", 3)
    with pytest.raises(
        BadSampleError, match=r"'a.png' is in several folders \('x/a.png', 'y/a.png'\): give the right one"
    ):
        texts("coco_captions", root, streaming=streaming)


def test_one_of_several_captions_is_drawn(tmp_path, processor):
    coco(tmp_path)
    reader = FORMATS["coco_captions"]()
    row = reader.load(str(tmp_path), split="train")[0]
    rng = np.random.default_rng(0)
    made = [
        document_to_sample(reader.read(row), processor, rng, location="row", leading_space_probability=0)["text"]
        for _ in range(20)
    ]
    assert set(made) == {f"<image>a red cat{EOC}", f"<image>an animal{EOC}"}


@both
@pytest.mark.parametrize("flickr", [False, True])
def test_karpathy_splits(tmp_path, streaming, flickr):
    folder, name = ("flickr30k-images", "dataset_flickr30k.json") if flickr else ("val2014", "dataset_coco.json")
    images = []
    for number, split in enumerate(("train", "restval", "test", "val"), 1):
        write_png(tmp_path / folder / f"{number}.jpg", number)
        of_coco = {} if flickr else {"filepath": folder, "cocoid": 10 + number}
        sentences = [{"raw": f" caption {number}. "}, {"raw": "other"}]
        images.append(
            {**of_coco, "imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences}
        )
    write_json(tmp_path / name, {"images": images})
    for path in (tmp_path, tmp_path / name):
        assert texts("coco_captions", path, "train+restval", streaming) == [
            (1, "caption 1.", "other"),
            (2, "caption 2.", "other"),
        ]
        assert texts("coco_captions", path, "test", streaming) == [(3, "caption 3.", "other")]
    with pytest.raises(SeveralSplitsError, match=r"splits train, restval, val and test in one file"):
        FORMATS["coco_captions"]().load(str(tmp_path / name), streaming=streaming)


@both
@pytest.mark.parametrize("prefix", ["v2_", ""])
def test_vqav2(tmp_path, streaming, prefix, processor):
    write_png(tmp_path / "train2014" / "COCO_train2014_000000000007.jpg", 7)
    for split in ("train2014", "val2014"):
        questions = [{"question_id": 71, "image_id": 7, "question": "what is it?"}]
        answers = [{"answer": "dog"}, {"answer": "cat"}, {"answer": "cat"}]
        write_json(tmp_path / f"{prefix}OpenEnded_mscoco_{split}_questions.json", {"questions": questions})
        annotations = [{"question_id": 71, "answers": answers}]
        write_json(tmp_path / f"{prefix}mscoco_{split}_annotations.json", {"annotations": annotations})
    prompt = "<image>Question:what is it? Short answer:"
    assert sample("vqav2", tmp_path, processor, streaming, split="train") == (f"{prompt}cat{EOC}", [7], [f"cat{EOC}"])
    # Answers that are replaced are read again
    path = tmp_path / f"{prefix}mscoco_train2014_annotations.json"
    write_json(path, {"annotations": [{"question_id": 71, "answers": [{"answer": "a lion"}]}]})
    assert sample("vqav2", tmp_path, processor, streaming, split="train")[0] == f"{prompt}a lion{EOC}"
    write_json(path, {"annotations": []})
    with pytest.raises(BadSampleError, match="no value in 'answers'"):
        sample("vqav2", tmp_path, processor, streaming, split="train")
    path.unlink()
    with pytest.raises(Exception, match="mscoco_train2014_annotations.json' with its answers is missing"):
        sample("vqav2", tmp_path, processor, streaming, split="train")


# Folders of `save_to_disk`


@both
def test_save_to_disk(tmp_path, streaming, processor, caplog):
    features = Features({"image": Image(), "text": Value("string"), "label": ClassLabel(names=["red_cat", "dog"])})
    rows = Dataset.from_list(
        [{"image": embedded(i), "text": f"text {i}", "label": i % 2} for i in range(5)], features=features
    )
    rows.save_to_disk(tmp_path / "rows", num_shards=2)
    reader = FORMATS["image_text_pairs"]()
    (tmp_path / "rows" / "cache-0123.arrow").write_bytes(b"of an earlier map")
    loaded = list(reader.load(str(tmp_path / "rows"), streaming=streaming))
    assert [reader.read(row)[0].text for row in loaded] == [f"text {i}" for i in range(5)]
    assert row_location(loaded[4]).endswith("data-00001-of-00002.arrow, row 1")
    text = f"<image>red cat{EOC}"
    assert sample("image_classes", tmp_path / "rows", processor, streaming) == (text, [0], [f"red cat{EOC}"])
    (tmp_path / "rows" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ValueError, match="names 2 files, and 1 of them cannot be found"):
        reader.load(str(tmp_path / "rows"), streaming=streaming)


@both
def test_dataset_dict(tmp_path, streaming, processor):
    features = Features({"images": List(Image()), "texts": List(Value("string"))})
    row = {"images": [embedded(1), None], "texts": [None, "a red cat"]}
    held_out = {"images": [embedded(2), None], "texts": [None, "a dog"]}
    DatasetDict(
        train=Dataset.from_list([row], features=features), validation=Dataset.from_list([held_out], features=features)
    ).save_to_disk(tmp_path)
    with pytest.raises(SeveralSplitsError) as caught:
        FORMATS["obelics"]().load(str(tmp_path))
    assert caught.value.words == {"train": ["train"], "validation": ["validation"]}
    assert sample("obelics", tmp_path, processor, streaming, split="train") == PAIR
    assert sample("obelics", tmp_path, processor, streaming, split="validation")[1] == [2]


# Folders of images


@both
def test_folders_of_classes(tmp_path, streaming, processor):
    for i, name in enumerate(("train/red_cat/1.JPG", "train/dog/[2].png", "validation/dog/3.png", "train/dog/4.gif")):
        write_png(tmp_path / name, i + 1)
    (tmp_path / ".hidden").write_text("")
    found = texts("image_classes", tmp_path, "train", streaming)
    assert found == [(1, "red cat"), (2, "dog"), (4, "dog")]
    options = {"template": "A photo of a {class}.", "names": {"red_cat": "tomcat"}, "prompt": "Output:"}
    rows = FORMATS["image_classes"](**options)
    chunks = [rows.read(row)[0] for row in rows.load(str(tmp_path / "train"), streaming=streaming)]
    assert {chunk.text for chunk in chunks} == {"A photo of a tomcat.", "A photo of a dog."}
    assert all(chunk.prompt == "Output:" for chunk in chunks)
    with pytest.raises(SeveralSplitsError):
        rows.load(str(tmp_path))
    for path, split in ((tmp_path / "train" / "dog", None), (tmp_path, "validation")):
        with pytest.raises(ValueError, match="1 image in the folder|2 images in the folder"):
            rows.load(str(path), split=split)
    with pytest.raises(ValueError, match="without {class}"):
        FORMATS["image_classes"](template="a cat")


def test_numbers_of_classes(tmp_path):
    row = {"image": {"bytes": b"", "path": None}, "label": 1}
    for names in (["red", "blue"], {"1": "blue"}, {1: "blue"}):
        reader = FORMATS["image_classes"](names=names)
        assert [chunk.text for chunk in (*reader.read(row), *reader.read({**row, "label": "1"}))] == ["blue"] * 2
        for label in (-1, 2):
            with pytest.raises(BadSampleError, match=f"the class is {label}, which `names` does not name"):
                reader.read({**row, "label": label})
    with pytest.raises(BadSampleError, match="the class is 1: numbers without names"):
        FORMATS["image_classes"]().read(row)
    for names in ("red", [1, 2], {"0": 1}):
        with pytest.raises(ValueError, match="`names` is .*Give a list"):
            FORMATS["image_classes"](names=names)


def test_what_systems_leave_is_no_class_and_a_stray_image_is_an_error(tmp_path):
    for name in ("cat/1.png", "dog/2.png", ".ipynb_checkpoints/3.png", "__MACOSX/cat/._1.png", "cat/._1.png"):
        write_png(tmp_path / name, 1)
    rows = FORMATS["image_classes"]()
    assert sorted(rows.read(row)[0].text for row in rows.load(str(tmp_path))) == ["cat", "dog"]
    write_png(tmp_path / "4.png", 1)
    with pytest.raises(
        ValueError, match=r"1 image beside folders of images, such as '.*4\.png', so whether '.*' is a class"
    ):
        rows.load(str(tmp_path))


def test_folders_of_splits_are_no_classes(tmp_path):
    write_png(tmp_path / "train" / "1.png", 1)
    write_png(tmp_path / "training" / "2.png", 2)
    with pytest.raises(ValueError, match=r"folders named 'train', 'training', and not in a folder for each class"):
        FORMATS["image_classes"]().load(str(tmp_path))


@both
def test_a_text_beside_each_image(tmp_path, streaming, processor, caplog):
    write_png(tmp_path / "sub" / "A.JPG", 1)
    (tmp_path / "sub" / "A.TXT").write_bytes("\ufeffa red cat\n".encode())
    assert sample("image_text_pairs", tmp_path, processor, streaming) == PAIR
    write_png(tmp_path / "[1].png", 2)
    write_json(tmp_path / "[1].json", {"caption": "a dog", "url": "https://a/b"})
    assert texts("image_text_pairs", tmp_path, streaming=streaming) == [(1, "a red cat"), (2, "a dog")]
    pattern = texts("image_text_pairs", tmp_path / "sub" / "*.JPG", streaming=streaming)
    assert pattern == [(1, "a red cat")]
    (tmp_path / "sub" / "A.TXT").write_text("another")  # no stale cache
    assert texts("image_text_pairs", tmp_path / "sub", streaming=streaming) == [(1, "another")]
    (tmp_path / "sub" / "A.TXT").unlink()
    with pytest.raises(BadSampleError, match=r"A.JPG: there is no text beside it"):
        texts("image_text_pairs", tmp_path / "sub", streaming=streaming)
    (tmp_path / "sub" / "A.TXT").write_bytes(b"\xff")
    with pytest.raises(BadSampleError, match=r"A.JPG: 'A.TXT' beside it is not UTF-8"):
        texts("image_text_pairs", tmp_path / "sub", streaming=streaming)


def test_files_that_are_not_read_are_counted(tmp_path, caplog):
    write_png(tmp_path / "a.png", 1)
    for name in ("a.txt", "README.md", "b.heic", "orphan.txt"):
        (tmp_path / name).write_text("text")
    with caplog.at_level(logging.WARNING, "transformers_flamingo"):
        find_files(str(tmp_path), media=("png",))
    assert "has 2 other files that are not read, such as" in caplog.text


@both
def test_a_list_of_captions(tmp_path, streaming, processor):
    write_png(tmp_path / "a.png", 1)
    records = [
        {"image": "a.png", "captions": ["a red cat", " ", "an animal"]},
        {"file_name": "a.png", "caption": ["a red cat"]},
        {"image": "a.png", "sentences": [{"raw": "a red cat", "tokens": []}]},
    ]
    for record in records:
        write_jsonl(tmp_path / "a.jsonl", [record])
        assert sample("image_text_pairs", tmp_path, processor, streaming)[0] in (PAIR[0], f"<image>an animal{EOC}")
    for captions in ([], [" "], ["a", 3], {"a": 1}):
        write_jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "captions": captions}])
        with pytest.raises(BadSampleError, match="a.jsonl, row 0"):
            sample("image_text_pairs", tmp_path, processor, streaming)


# WebDataset, and names


@both
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_webdataset_as_people_have_it(tmp_path, streaming, ending, processor):
    members = {"0.JPG": png(1), "0.json": json.dumps({"caption": "a red cat", "url": "u", "image": "x.png"}).encode()}
    write_tar(tmp_path / "a.tar", members)
    path = tmp_path / f"[1].{ending}"
    data = (tmp_path / "a.tar").read_bytes()
    path.write_bytes(gzip.compress(data) if "gz" in ending else data)
    assert sample("image_text_pairs", path, processor, streaming) == PAIR
    path.write_bytes(path.read_bytes()[: 700 if ending == "tar" else -20])
    with pytest.raises(Exception, match="cannot be read to its end"):
        list(FORMATS["image_text_pairs"]().load(str(path), streaming=streaming))


def test_the_text_of_a_sample(tmp_path):
    both_texts = {"0.png": png(1), "0.txt": b"text", "0.json": b"{"}  # what is in .txt counts
    write_tar(tmp_path / "a.tar", {**both_texts, "1.png": png(2), "1.json": b"[]", "2.png": png(1), "2.jpg": png(1)})
    reader = FORMATS["image_text_pairs"]()
    rows = list(reader.load(str(tmp_path)))
    assert reader.read(rows[0])[0].text == "text"
    with pytest.raises(BadSampleError, match="sample '1': its JSON is a list"):
        reader.read(rows[1])
    with pytest.raises(BadSampleError, match="sample '2': it has an image in 'jpg' and in 'png'"):
        reader.read(rows[2])


def test_shards_of_img2dataset(tmp_path, processor):
    write_tar(tmp_path / "00000.tar", {"0.jpg": png(1), "0.txt": b"a red cat"})
    Dataset.from_list([{"url": "u", "caption": "c"}]).to_parquet(tmp_path / "00000.parquet")
    write_json(tmp_path / "00000_stats.json", {"count": 1})
    assert sample("image_text_pairs", tmp_path, processor) == PAIR


def test_a_gif_is_its_first_frame_or_a_video(tmp_path, processor, caplog, monkeypatch):
    monkeypatch.setattr("transformers_flamingo.data.image_decoding._has_warned", False)
    data = video_file(tmp_path / "a.gif", frames=4, rate=2, codec="gif")
    write_tar(tmp_path / "a.tar", {"0.gif": data, "0.txt": b"a red cat"})
    with caplog.at_level(logging.WARNING, "transformers_flamingo"):
        for _ in range(2):
            reader, row = first("image_text_pairs", tmp_path / "a.tar")
            image = load_media(reader.read(row)[0].item, "row")
    assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 0) and image.tell() == 0
    assert caplog.text.count("has 4 frames, and the first one is used") == 1
    reader = FORMATS["video_text_pairs"](fps=2)
    (row,) = reader.load(str(tmp_path / "a.tar"))
    frames = [number_of(frame) for frame in reader.read(row)[0].item]
    assert len(frames) == 4 and frames == sorted(frames) and frames[0] == 0 < frames[-1]
    (tmp_path / "a.tar").unlink()
    (tmp_path / "a.txt").write_text("a red cat")
    (row,) = reader.load(str(tmp_path))
    assert (reader.read(row)[0].text, len(reader.read(row)[0].item)) == ("a red cat", 4)


def test_a_pattern_of_folders_stands_for_their_files(tmp_path):
    for name in ("part-0", "part-1", "part-2"):
        (tmp_path / name / ".cache").mkdir(parents=True)
        (tmp_path / name / "rows.jsonl").write_text('{"image": "a.png", "text": "a"}\n')
        (tmp_path / name / ".cache" / "rows.jsonl").write_text("{}")
    names = [str(tmp_path / name / "rows.jsonl") for name in ("part-0", "part-1", "part-2")]
    reader = FORMATS["image_text_pairs"]()
    assert reader.find(str(tmp_path / "part-{0..1}")) == names[:2]
    assert reader.find(str(tmp_path / "{part-0,part-2/rows.jsonl}")) == [names[0], names[2]]
    assert reader.find(str(tmp_path / "part-*")) == names
    with pytest.raises(
        FileNotFoundError, match="stands for 4 names, and there is no file for 1 of them, such as '.*part-3'"
    ):
        reader.find(str(tmp_path / "part-{0..3}"))


def test_braces_and_brackets(tmp_path):
    folder = tmp_path / "data [x]"
    folder.mkdir()
    names = [f"{i:03d}.jsonl" for i in range(8, 12)]
    for name in [*names, "a[1].jsonl", "a1.jsonl", "b.jsonl"]:
        (folder / name).write_text("{}\n")

    def found(pattern):
        return [file.removeprefix(f"{folder}/") for file in find_files(f"{folder}/{pattern}")]

    assert found("{008..011}.jsonl") == names
    assert found("{a1,b}.jsonl") == ["a1.jsonl", "b.jsonl"]
    assert found("00{8..9}.{jsonl,jsonl}") == names[:2]
    assert found("a[1].jsonl") == ["a[1].jsonl"]  # it exists
    assert found("a[0-9].jsonl") == ["a1.jsonl"]
    assert found("{0*,b}.jsonl") == [*names, "b.jsonl"]
    with pytest.raises(
        FileNotFoundError, match=r"stands for 5 names, and there is no file for 1 of them, such as '.*012"
    ):
        found("{008..012}.jsonl")
    with pytest.raises(ValueError, match="stands for 10,000,001 files"):
        found("{0..10000000}.jsonl")
    Dataset.from_list([{"image": "a.png", "text": "a"}]).to_parquet(folder / "[2].parquet")
    for streaming in (False, True):
        (row,) = FORMATS["image_text_pairs"]().load(str(folder / "[2].parquet"), streaming=streaming)
        assert row_location(row).endswith("[2].parquet, row 0")


# Conversations


@both
def test_the_cauldron(tmp_path, streaming, processor):
    turns = [
        {"user": "what?", "assistant": "a cat", "source": "x"},
        {"user": "why?", "assistant": "so", "source": "x"},
    ]
    features = Features(
        {"images": List(Image()), "texts": List({name: Value("string") for name in ("user", "assistant", "source")})}
    )
    rows = [{"images": [embedded(1), embedded(2)], "texts": turns}]
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "a.parquet")
    text = f"<image><image>what? a cat{EOC}why? so{EOC}"
    assert sample("cauldron", tmp_path, processor, streaming) == (text, [1, 2], [f" a cat{EOC}", f" so{EOC}"])


@pytest.mark.parametrize("texts", [[], ["a"], [{"user": "a"}], [{"user": "a", "assistant": None}], "a"])
def test_malformed_rows_of_the_cauldron(texts):
    with pytest.raises(BadSampleError, match="unknown origin"):
        FORMATS["cauldron"]().read({"images": ["a.png"], "texts": texts})


@both
def test_prompt_and_completion(tmp_path, streaming, processor):
    write_png(tmp_path / "a.png", 1)
    write_jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "prompt": "What? ", "completion": "a red cat"}])
    taught = [f"a red cat{EOC}"]
    text = f"<image>What? a red cat{EOC}"
    assert sample("prompt_completion", tmp_path, processor, streaming) == (text, [1], [f" {taught[0]}"])
    row = {"images": ["a.png", "a.png"], "prompt": "See <image>and<image>: ", "completion": "a red cat"}
    write_jsonl(tmp_path / "a.jsonl", [row])
    text = f"See <image>and<image>: a red cat{EOC}"
    assert sample("prompt_completion", tmp_path, processor, streaming) == (text, [1, 1], [f" {taught[0]}"])
    write_jsonl(tmp_path / "a.jsonl", [{**row, "images": ["a.png"]}])
    with pytest.raises(BadSampleError, match="2 `<image>` in 'prompt', 1 image,"):
        sample("prompt_completion", tmp_path, processor, streaming)


def test_answers_in_a_prompt_are_not_learned(tmp_path, processor):
    write_png(tmp_path / "a.png", 1)
    given = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "color?"},
    ]
    row = {"images": ["a.png"], "prompt": given, "completion": [{"role": "assistant", "content": "red"}]}
    write_jsonl(tmp_path / "a.jsonl", [row])
    text = f"<image>what?\na cat\ncolor? red{EOC}"
    assert sample("prompt_completion", tmp_path, processor) == (text, [1], [f" red{EOC}"])
    # All answers of `messages` are learned
    write_jsonl(tmp_path / "a.jsonl", [{"images": ["a.png"], "messages": [*given, *row["completion"]]}])
    assert sample("messages", tmp_path, processor)[2] == [f" a cat{EOC}", f" red{EOC}"]
    with pytest.raises(BadSampleError, match="Give texts in both, or messages in both"):
        FORMATS["prompt_completion"]().read({"prompt": given, "completion": "red"})
    with pytest.raises(BadSampleError, match="no message of 'completion' is of the assistant"):
        FORMATS["prompt_completion"]().read({"prompt": given, "completion": given[2:], "image": "a.png"})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
    ],
)
def test_messages_with_their_own_images(tmp_path, processor, part):
    write_png(tmp_path / "a.png", 1)
    user = {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
    write_jsonl(tmp_path / "a.jsonl", [{"messages": [user, {"role": "assistant", "content": "a cat"}]}])
    assert sample("messages", tmp_path, processor) == (f"<image>what? a cat{EOC}", [1], [f" a cat{EOC}"])


# Exports of tools


def label_studio(image, *results):
    """Return a task of Label Studio with an annotation for each list of results."""
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(result)} for result in results]}


def textarea(*written, name="caption"):
    return {"from_name": name, "to_name": "image", "type": "textarea", "value": {"text": list(written)}}


@both
@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("/data/upload/1/ab-a.png", "upload/1/ab-a.png"),
        ("/data/upload/1/ab-a.png", "images/ab-a.png"),
        ("/data/local-files/?d=photos/a%20b.png", "photos/a b.png"),
    ],
)
def test_label_studio(tmp_path, streaming, processor, address, place):
    write_png(tmp_path / place, 1)
    choice = {"from_name": "class", "type": "choices", "value": {"choices": ["red", "cat"]}}
    box = {"from_name": "box", "type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}}
    write_json(
        tmp_path / "export.json", [label_studio(address, [box, textarea(" a red cat ")], [textarea("a red cat")])]
    )
    assert sample("label_studio", tmp_path / "export.json", processor, streaming) == PAIR
    write_json(tmp_path / "export.json", [label_studio(address, [choice, textarea("a red cat")])])
    with pytest.raises(BadSampleError, match="there are texts of 'class', 'caption'. Choose one with `control`"):
        sample("label_studio", tmp_path / "export.json", processor, streaming)
    chosen = sample("label_studio", tmp_path / "export.json", processor, streaming, control="class")
    assert chosen[0] == f"<image>red, cat{EOC}"
    canceled = label_studio(address, [textarea("a red cat")])
    canceled["annotations"][0]["was_cancelled"] = True
    write_json(tmp_path / "export.json", [canceled])
    with pytest.raises(BadSampleError, match="no annotation has a text"):
        sample("label_studio", tmp_path / "export.json", processor, streaming)


@both
def test_label_studio_json_min(tmp_path, streaming, processor):
    path = tmp_path / "export.json"
    write_png(tmp_path / "cat.png", 1)
    own = {"id": 1, "annotator": 1, "annotation_id": 2, "created_at": "2026", "updated_at": "2026", "lead_time": 1.5}
    for column, value in (("caption", "a red cat"), ("words", ["a red cat", "a red cat"]), ("label", "a red cat")):
        write_json(path, [{**own, "image": "/data/upload/1/cat.png", column: value}])
        assert detect_format(str(path)).format == "label_studio"
        assert sample("label_studio", path, processor, streaming) == PAIR
    write_json(
        path, [{**own, "photo": "/data/upload/1/cat.png", "kind": {"choices": ["a", "b"]}, "caption": "a red cat"}]
    )
    with pytest.raises(BadSampleError, match="there are texts of 'kind', 'caption'. Choose one with `control`"):
        sample("label_studio", path, processor, streaming)
    assert sample("label_studio", path, processor, streaming, control="caption") == PAIR
    assert sample("label_studio", path, processor, streaming, control="kind")[0] == f"<image>a, b{EOC}"
    path = tmp_path / "export.csv"
    for value, text in (
        ("a red cat", "a red cat"),
        ('"{""choices"":[""a"",""b""]}"', "a, b"),
        ('"[""a"",""a""]"', "a"),
    ):
        path.write_text(f"id,image,caption,annotator,annotation_id\n1,/data/upload/1/cat.png,{value},1,2\n")
        assert detect_format(str(path)).format == "label_studio"
        assert sample("label_studio", path, processor, streaming)[0] == f"<image>{text}{EOC}"


@both
def test_fiftyone(tmp_path, streaming, processor):
    write_png(tmp_path / "data" / "a.png", 1)
    label = {"_cls": "Classification", "label": "a red cat"}
    boxes = {"_cls": "Detections", "detections": []}
    shared = {"filepath": "data/a.png", "_media_type": "image", "tags": ["x"], "boxes": boxes}
    write_json(tmp_path / "metadata.json", {"name": "x"})
    write_json(tmp_path / "samples.json", {"samples": [{**shared, "truth": label}]})
    assert sample("fiftyone", tmp_path, processor, streaming) == PAIR
    write_json(tmp_path / "samples.json", {"samples": [{**shared, "truth": label, "caption": "a cat"}]})
    with pytest.raises(BadSampleError, match="texts in 'truth', 'caption'. Choose one with `label_field`"):
        sample("fiftyone", tmp_path, processor, streaming)
    text, _, _ = sample("fiftyone", tmp_path, processor, streaming, label_field="caption")
    assert text == f"<image>a cat{EOC}"
    write_json(tmp_path / "samples.json", {"samples": [shared]})
    with pytest.raises(BadSampleError, match="no text and no classification"):
        sample("fiftyone", tmp_path, processor, streaming)


@both
@pytest.mark.parametrize(("classes", "label"), [(["dog", "a red cat"], 1), (None, "a red cat")])
def test_classes_of_fiftyone(tmp_path, streaming, processor, classes, label, caplog):
    write_png(tmp_path / "data" / "a.png", 1)
    write_png(tmp_path / "data" / "b.png", 2)
    write_json(tmp_path / "labels.json", {"classes": classes, "labels": {"a": label, "c": label}})
    with caplog.at_level(logging.WARNING, "transformers_flamingo"):
        assert sample("fiftyone", tmp_path, processor, streaming) == PAIR
    assert "has 1 image without a class in" in caplog.text
    reader = FORMATS["fiftyone"]()
    *_, missing = reader.load(str(tmp_path), streaming=streaming)
    with pytest.raises(BadSampleError, match="labels.json, row 1: no value in 'filepath'"):
        reader.read(missing)


# Addresses


@pytest.mark.parametrize("column", ["image_url", "url", "URL"])
def test_a_column_of_addresses(tmp_path, processor, column):
    write_jsonl(tmp_path / "a.jsonl", [{column: "https://example.org/a.png", "caption": "a red cat"}])
    with pytest.raises(
        BadSampleError, match=rf"'{column}' is an address, .* was not fetched. Fetch the images first.*img2dataset"
    ):
        sample("image_text_pairs", tmp_path, processor)
    write_png(tmp_path / "a.png", 1)
    write_jsonl(tmp_path / "a.jsonl", [{column: "a.png", "caption": "a red cat"}])
    assert sample("image_text_pairs", tmp_path, processor) == PAIR
    row = {"image_url": "https://example.org/a.png", "question": "what?", "answer": "a"}
    with pytest.raises(BadSampleError, match="flamingo fetch.*img2dataset"):
        FORMATS["question_answering"]().read(row)


def test_texts_of_all_captions_are_checked(tmp_path, processor):
    write_jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "captions": ["a", "b <image>"]}])
    with pytest.raises(BadSampleError, match="the text contains '<image>'"):
        sample("image_text_pairs", tmp_path, processor)
