# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test every benchmark on a few rows in its published layout: prompts, answers, media, scores, and missing files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transformers_flamingo.data import VideoSegment, load_media
from transformers_flamingo.evaluation.task import Prediction, Task
from transformers_flamingo.evaluation.tasks import TASKS, make_task
from transformers_flamingo.evaluation.tasks.rareact import weighted_average_precision
from transformers_flamingo.evaluation.tasks.visdial import ndcg
from transformers_flamingo.few_shot.examples import Example


def write(root: Path, name: str, content) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".json"):
        path.write_text(json.dumps(content))
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif name.endswith(".csv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, content[0])
            writer.writeheader()
            writer.writerows(content)
    else:
        path.write_text(content)


def shown(task: Task, example: Example) -> str:
    """Return a demonstration as it is in a prompt."""
    return "<image>" * len(example.media) + example.prompt + example.answer + "<eoc>" + task.demonstration_separator


def predicted(example: Example, text: str) -> Prediction:
    return Prediction(example, text)


def karpathy(root: Path, file: str, folder: str | None) -> None:
    def image(i: int, split: str) -> dict:
        filepath = {} if folder is None else {"filepath": folder, "cocoid": 1000 + i}
        return {
            **filepath,
            "filename": f"{i}.jpg",
            "imgid": i,
            "split": split,
            "sentences": [{"raw": f" a cat {i}. "}, {"raw": "an animal"}],
        }

    write(root, file, {"images": [image(0, "train"), image(1, "test"), image(2, "val"), image(3, "restval")]})


@pytest.mark.parametrize(
    ("name", "file", "folder", "image", "id"),
    [
        ("coco", "dataset_coco.json", "val2014", "val2014/1.jpg", "1001"),
        ("flickr30k", "dataset_flickr30k.json", None, "flickr30k-images/1.jpg", "1"),
    ],
)
def test_captions(tmp_path, name, file, folder, image, id):
    karpathy(tmp_path, file, folder)
    task = make_task(name, str(tmp_path))
    (query,), (support,) = task.queries(), task.support()
    assert (query.id, query.prompt, query.media) == (id, "Output:", [str(tmp_path / image)])
    assert query.references == ["a cat 1.", "an animal"]
    assert shown(task, support) == "<image>Output:a cat 0.<eoc>\n"
    assert task.postprocess('a "red" cat Output:a dog') == "a red cat"
    assert (task.generation.max_new_tokens, task.generation.num_beams, task.generation.length_penalty) == (20, 3, 0)
    other = Example("2", [], "Output:", references=["a dog runs over green grass"])
    words = Example("3", [], "Output:", references=["a man rides a blue bicycle"])
    right = [predicted(e, e.references[0]) for e in (other, words)]
    wrong = [predicted(other, words.references[0]), predicted(words, other.references[0])]
    assert task.score(right)["CIDEr"] == pytest.approx(1000)
    assert task.score(wrong)["CIDEr"] < 100


def coco_vqa(root: Path, questions: str, annotations: str) -> None:
    for split, number in (("train2014", 1), ("val2014", 2)):
        question = {"question_id": number, "image_id": 40 + number, "question": "What is it?"}
        answers = [{"answer": "cat"}] * 7 + [{"answer": "dog"}] * 3
        write(root, questions.format(split), {"questions": [question]})
        write(root, annotations.format(split), {"annotations": [{"question_id": number, "answers": answers}]})


@pytest.mark.parametrize(
    ("name", "questions", "annotations"),
    [
        ("vqav2", "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"),
        ("okvqa", "OpenEnded_mscoco_{}_questions.json", "mscoco_{}_annotations.json"),
    ],
)
def test_questions_about_coco(tmp_path, name, questions, annotations):
    coco_vqa(tmp_path, questions, annotations)
    task = make_task(name, str(tmp_path))
    (query,), (support,) = task.queries(), task.support()
    assert query.media == [str(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")]
    assert query.prompt == "Question:What is it? Short answer:"
    assert shown(task, support) == "<image>Question:What is it? Short answer:cat<eoc>\n"
    assert task.postprocess(" cat, dog Question:What") == "cat"
    assert task.generation.max_new_tokens == 5
    # Of the other nine annotators, three or two said dog: (3 * 2/3 + 7 * 1) / 10
    assert task.score([predicted(query, "The dog."), predicted(query, "bird")]) == {"accuracy": pytest.approx(45.0)}
    stems = task.score_each([predicted(query, text) for text in ("cats", "cat", "caterpillar")])
    assert stems == ([1.0, 1.0, 0.0] if name == "okvqa" else [0.0, 1.0, 0.0])  # OK-VQA's references are stemmed
    write(tmp_path, annotations.format("val2014"), {"annotations": []})
    with pytest.raises(ValueError, match=f"{name}: 1 questions of val2014 have no annotation, such as 2"):
        task.queries()


def test_textvqa(tmp_path):
    for split in ("train", "val"):
        row = {"question_id": 5, "image_id": "abc", "question": "what?", "answers": ["no"] * 10}
        write(tmp_path, f"TextVQA_0.5.1_{split}.json", {"data": [row]})
    task = make_task("textvqa", str(tmp_path))
    (query,) = task.queries()
    assert query.media == [str(tmp_path / "train_images" / "abc.jpg")]
    assert query.references == ["no"] * 10 and task.generation.max_new_tokens == 10


def test_vizwiz(tmp_path):
    for split in ("train", "val"):
        row = {"image": f"VizWiz_{split}_0.jpg", "question": "what?", "answers": [{"answer": "unanswerable"}] * 10}
        write(tmp_path, f"Annotations/{split}.json", [row])
    (query,) = make_task("vizwiz", str(tmp_path)).queries()
    assert query.media == [str(tmp_path / "val" / "VizWiz_val_0.jpg")]
    assert query.id == "VizWiz_val_0.jpg" and query.references == ["unanswerable"] * 10


def test_hateful_memes(tmp_path):
    rows = [{"id": i, "img": f"img/{i}.png", "label": i % 2, "text": "look 'here'"} for i in range(4)]
    write(tmp_path, "train.jsonl", rows)
    write(tmp_path, "dev_seen.jsonl", rows)
    write(tmp_path, "test_seen.jsonl", rows[:1])
    task = make_task("hateful_memes", str(tmp_path))
    queries, support = task.queries(), task.support()
    assert shown(task, support[1]) == (
        "<image>is an image with: 'look 'here'' written on it. Is it hateful? Answer:yes<eoc>"
    )
    assert queries[1].candidates == ["no", "yes"] and queries[1].group == "yes"
    assert queries[2].media == [str(tmp_path / "img" / "2.png")]
    scores = ([-1.0, -2.0], [-3.0, -1.0], [-1.0, -1.5], [-2.0, -2.2])
    predictions = [Prediction(q, "", list(s)) for q, s in zip(queries, scores, strict=True)]
    # "yes" leads by -1, 2, -.5 and -.2: of the four pairs of a hateful and a harmless one, all are in order
    assert task.score(predictions) == {"ROC-AUC": pytest.approx(100.0)}
    predictions[3] = Prediction(queries[3], "", [-1.0, -1.7])  # -.7: ranks after one of two
    assert task.score(predictions) == {"ROC-AUC": pytest.approx(75.0)}
    # Both would round to the probability 1
    sure = [Prediction(queries[0], "", [-40.0, 0.0]), Prediction(queries[1], "", [-50.0, 0.0])]
    assert task.score(sure) == {"ROC-AUC": pytest.approx(100.0)}
    assert len(make_task("hateful_memes", str(tmp_path), {"split": "test_seen"}).queries()) == 1


def test_imagenet(tmp_path):
    write(tmp_path, "imagenet_class_index.json", {"0": ["n01", "great_white_shark"], "1": ["n02", "tench"]})
    for split in ("train", "val"):
        for folder in ("n01", "n02"):
            write(tmp_path, f"{split}/{folder}/a.JPEG", "")
    task = make_task("imagenet", str(tmp_path))
    queries = task.queries()
    assert [query.id for query in queries] == ["n01/a.JPEG", "n02/a.JPEG"]
    assert queries[0].candidates is task.support()[1].candidates or queries[0].candidates is queries[1].candidates
    assert queries[0].candidates == ["great white shark", "tench"]
    assert shown(task, task.support()[0]) == "<image>Output:great white shark<eoc>"
    answers = [predicted(queries[0], "great white shark"), predicted(queries[1], "great white shark")]
    assert task.score(answers) == {"accuracy": 50.0}


def test_video_questions(tmp_path):
    for split in ("train", "test"):
        row = {"id": 3, "video_id": 12, "question": "who runs?", "answer": "man"}
        write(tmp_path, f"{split}_qa.json", [row])
    write(tmp_path, "youtube_mapping.txt", "abc_1_2 vid12\nxyz vid13\n")
    task = make_task("msvd_qa", str(tmp_path), {"num_frames": "4"})
    (query,) = task.queries()
    assert query.media == [VideoSegment(str(tmp_path / "YouTubeClips" / "abc_1_2.avi"), num_frames=4)]
    assert task.score([predicted(query, "a man"), predicted(query, "woman")]) == {"accuracy": 50.0}
    task = make_task("msrvtt_qa", str(tmp_path))
    assert task.queries()[0].media == [VideoSegment(str(tmp_path / "TrainValVideo" / "video12.mp4"))]
    write(tmp_path, "TestVideo/video12.mp4", "")
    assert task.queries()[0].media == [VideoSegment(str(tmp_path / "TestVideo" / "video12.mp4"))]


def test_video_captions(tmp_path):
    for split in ("training_v1.0", "validation_v1.0", "public_test_english_v1.1"):
        write(tmp_path, f"vatex_{split}.json", [{"videoID": f"{split}_0", "enCap": ["a man runs", "running"]}])
    task = make_task("vatex", str(tmp_path))
    (query,) = task.queries()
    assert query.media == [VideoSegment(str(tmp_path / "videos" / "public_test_english_v1.1_0.mp4"))]
    assert make_task("vatex", str(tmp_path), {"split": "validation_v1.0"}).queries()[0].id == "validation_v1.0_0"
    assert shown(task, task.support()[0]) == "<image>Output:a man runs<eoc>\n"

    segments = [{"id": i, "segment": [10 * i, 10 * i + 5], "sentence": f"cut {i}"} for i in range(2)]
    database = {name: {"subset": name, "annotations": segments} for name in ("training", "validation", "testing")}
    write(tmp_path, "youcookii_annotations_trainval.json", {"database": database})
    queries = make_task("youcook2", str(tmp_path)).queries()
    assert [query.id for query in queries] == ["validation/0", "validation/1"]
    assert queries[1].media == [VideoSegment(str(tmp_path / "videos" / "validation.mp4"), 10, 15)]
    assert queries[1].references == ["cut 1"]


def test_ivqa(tmp_path):
    answers = {f"answer{i}": answer for i, answer in enumerate(["pan", "pan", "Pan.", "pot", "lid"], 1)}
    row = {"video_id": "v", "start": 1, "end": 3.5, "question": "in what?", **answers}
    for split in ("train", "test"):
        write(tmp_path, f"{split}.csv", [row])
    task = make_task("ivqa", str(tmp_path))
    (query,) = task.queries()
    assert query.media == [VideoSegment(str(tmp_path / "videos" / "v.mp4"), 1.0, 3.5)]
    assert task.score_each([predicted(query, text) for text in ("a pan", "pot", "cup")]) == [1.0, 0.5, 0.0]


def test_choices_about_videos(tmp_path):
    choices = [{"choice_id": i, "choice": text} for i, text in enumerate(("The bag.", "The cup."))]
    row = {"question_id": "T1", "question": "What?", "video_id": "v", "start": 2.5, "end": 9.0}
    for split in ("train", "val"):
        write(tmp_path, f"STAR_{split}.json", [{**row, "answer": "The cup.", "choices": choices}])
    task = make_task("star", str(tmp_path))
    (query,) = task.queries()
    assert query.candidates == ["The bag.", "The cup."] and query.references == "The cup."
    assert query.media == [VideoSegment(str(tmp_path / "Charades_v1_480" / "v.mp4"), 2.5, 9.0)]
    assert shown(task, query) == "<image>Question:What? Answer:The cup.<eoc>"

    row = {"video": "77", "question": "why did he run", "answer": "2", "qid": "6"}
    for split in ("train", "val"):
        write(tmp_path, f"{split}.csv", [{**row, **{f"a{i}": f"reason {i}" for i in range(5)}}])
    write(tmp_path, "map_vid_vidorID.json", {"77": "1164/77"})
    task = make_task("nextqa", str(tmp_path))
    (query,) = task.queries()
    assert query.media == [VideoSegment(str(tmp_path / "NExTVideo" / "1164" / "77.mp4"))]
    assert query.references == "reason 2" and query.prompt == "Question:why did he run? Answer:"
    assert task.score([predicted(query, "reason 2")]) == {"accuracy": 100.0}


def rareact(root: Path, rows: list[tuple[str, str, int]]) -> Task:
    """`rows` are video, action and annotation."""
    columns = ("id", "video_id", "start", "end", "class_id", "verb", "noun", "annotation")
    write(
        root,
        "rareact.csv",
        [
            dict(zip(columns, (i, video, i, i + 2, 0, *action.split(), label), strict=True))
            for i, (video, action, label) in enumerate(rows)
        ],
    )
    return make_task("rareact", str(root))


def test_rareact(tmp_path):
    task = rareact(
        tmp_path,
        [
            ("a", "cut keyboard", 1),
            ("b", "cut keyboard", 3),
            ("c", "cut door", 1),
            ("c", "cut door", 1),
            ("d", "wash tree", 0),
        ],
    )
    queries = task.queries()
    assert queries[0].media == [VideoSegment(str(tmp_path / "videos" / "a.mp4"), 0.0, 2.0)]
    assert queries[0].candidates == ["cut door", "cut keyboard", "wash tree"]
    assert [example.answer for example in task.support()] == ["open door", "wash dish"] and task.support()[
        0
    ].media == []

    def score(*shares: tuple[float, float, float]) -> dict[str, float]:
        """Of the probabilities of the actions; each clip's likelihoods have another scale, which must not count."""
        return task.score(
            [
                Prediction(query, query.candidates[int(np.argmax(share))], (np.log(share) - i).tolist())
                for i, (query, share) in enumerate(zip(queries, shares, strict=True))
            ]
        )

    sure = (0.9, 0.05, 0.05)
    best = score((0.1, 0.8, 0.1), (0.2, 0.5, 0.3), sure, sure, (0.1, 0.1, 0.8))
    assert best == {"mWAP": pytest.approx(100.0), "accuracy": 100.0}
    # "cut keyboard" ranks clip a after video c, a hard negative that counts once: precision 1/2. "cut door" is
    # found in all of c before a. "wash tree" is shown nowhere, and does not count.
    worse = score((0.1, 0.3, 0.6), (0.1, 0.2, 0.7), (0.5, 0.4, 0.1), (0.5, 0.4, 0.1), (0.1, 0.1, 0.8))
    assert worse == {"mWAP": pytest.approx(75.0), "accuracy": pytest.approx(200 / 3)}
    with pytest.raises(ValueError, match="rareact: none of the 1 clips shows its action"):
        task.score([Prediction(queries[4], "cut door", [0.0, 0.0, 0.0])])


def test_clips_of_other_actions_count_only_where_it_is_known_what_they_show(tmp_path):
    task = rareact(tmp_path, [("a", "cut keyboard", 1), ("b", "wash tree", 0)])
    # Nobody said whether b, which shows no washing of trees, shows a cut keyboard: its high score is no mistake
    predictions = [
        Prediction(query, "", scores) for query, scores in zip(task.queries(), ([-2, -1], [0, -9]), strict=True)
    ]
    assert task.score(predictions)["mWAP"] == pytest.approx(100.0)


def test_weighted_average_precision():
    assert weighted_average_precision([3, 2, 1], [True, False, True], [1, 1, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert weighted_average_precision([3, 2, 1], [True, False, True], [1, 0.5, 0.5]) == pytest.approx(
        (1 + 0.375) / 1.5
    )
    assert weighted_average_precision([1, 1], [True, False], [1, 1]) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(1, 3)), min_size=1, max_size=8))
def test_an_example_of_weight_n_counts_as_n_examples(rows):
    scores, labels, weights = zip(*[*rows, (2, True, 1)], strict=True)
    repeated = [np.repeat(values, weights) for values in (scores, labels)]
    expected = weighted_average_precision(*repeated, np.ones(sum(weights)))
    assert weighted_average_precision(scores, labels, weights) == pytest.approx(expected)


def test_visdial(tmp_path):
    def dialog(image_id: int) -> dict:
        turns = [{"question": i, "answer": i, "answer_options": [2, 1, 0], "gt_index": 1} for i in range(3)]
        return {"image_id": image_id, "caption": "a dog", "dialog": turns}

    words = {"questions": ["is it big", "is it red", "who"], "answers": ["yes", "no", "a man"]}
    for split in ("train", "val"):
        write(tmp_path, f"visdial_1.0_{split}.json", {"data": {"dialogs": [dialog(7), dialog(8)], **words}})
    dense = [{"image_id": 8, "round_id": 2, "gt_relevance": [0.0, 1.0, 0.5]}]
    write(tmp_path, "visdial_1.0_val_dense_annotations.json", dense)
    task = make_task("visdial", str(tmp_path))
    (query,) = task.queries()
    assert query.prompt == "a dog. Question:is it big? Answer:yes. Question:is it red? Answer:"
    assert query.candidates == ["a man", "no", "yes"]
    name = "VisualDialog_val2018_000000000008.jpg"
    assert query.media == [str(tmp_path / "VisualDialog_val2018" / name)]
    assert shown(task, task.support()[0]) == "<image>a dog. Question:is it big? Answer:yes<eoc>"
    assert task.score([Prediction(query, "", [-3.0, -1.0, -2.0])]) == {"NDCG": pytest.approx(100.0)}
    # The two best places go to relevances 0 and 1: 0 / log2(2) + 1 / log2(3), over 1 / log2(2) + 0.5 / log2(3)
    expected = (1 / np.log2(3)) / (1 + 0.5 / np.log2(3))
    assert ndcg([-1.0, -2.0, -3.0], [0.0, 1.0, 0.5]) == pytest.approx(expected)


@pytest.fixture
def pairs(tmp_path) -> str:
    for split in ("train", "test"):
        rows = []
        for i in range(4):
            (tmp_path / split).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / split / f"{i}.png")
            rows.append(
                {
                    "file_name": f"{i}.png",
                    "text": ("cat", "dog")[i % 2],
                    "question": "what?",
                    "answers": ["a cat", "tabby"] if i % 2 else ["dog"],
                }
            )
        write(tmp_path, f"{split}/metadata.jsonl", rows)
    return str(tmp_path)


def test_classification_reads_folders_of_classes(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for name in ("black_cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    task = make_task("classification", str(tmp_path))
    assert task.queries()[0].candidates == ["black cat", "dog"]
    assert sorted(example.answer for example in task.queries()) == ["black cat", "dog"]
    assert len(task.support()) == 4
    apart = {"support_data": str(tmp_path / "train")}
    assert make_task("classification", str(tmp_path / "test"), apart).queries() == task.queries()
    # An id says which image it is, wherever the folder is: draws and comparisons of runs go by it
    copy = tmp_path.with_name("another name")
    shutil.copytree(tmp_path, copy)
    ids = {example.id: example.answer for example in task.support()}
    assert {example.id: example.answer for example in make_task("classification", str(copy)).support()} == ids
    assert ids == {
        "black_cat/0.png": "black cat",
        "black_cat/1.png": "black cat",
        "dog/0.png": "dog",
        "dog/1.png": "dog",
    }


def test_custom_data(pairs):
    captions = make_task("captioning", pairs)
    assert [example.references for example in captions.queries()] == [["cat"], ["dog"], ["cat"], ["dog"]]
    assert shown(captions, captions.support()[1]) == "<image>Output:dog<eoc>\n"
    questions = make_task("question_answering", pairs, {"template": "Q:{question} A:"})
    query = questions.queries()[1]
    assert (query.prompt, query.answer, query.references) == ("Q:what? A:", "a cat", ["a cat", "tabby"])
    assert questions.score_each([predicted(query, text) for text in ("Tabby", "the cat", "dog")]) == [1.0, 1.0, 0.0]
    classes = make_task("classification", pairs, {"prompt": "class:"})
    assert classes.queries()[0].candidates == ["cat", "dog"] and classes.queries()[0].group == "cat"
    assert shown(classes, classes.support()[1]) == "<image>class:dog<eoc>"
    assert make_task("classification", pairs, {"classes": "[dog, cow, cat]"}).queries()[0].candidates[1] == "cow"
    with pytest.raises(
        ValueError, match="train/metadata.jsonl, row 2 is of class 'cat', which is not one of `classes`"
    ):
        make_task("classification", pairs, {"classes": "[dog]", "support_split": "train"}).queries()
    for name, option, message in (
        ("captioning", {"prompt": "{question}"}, "`prompt` is .*the task asks no question"),
        ("classification", {"prompt": "A {label}:"}, "with {label}, which nothing fills in"),
        ("question_answering", {"template": "{question} {x}"}, "`template` is .*with {x}, which"),
    ):
        with pytest.raises(ValueError, match=message):
            make_task(name, pairs, option)
    with pytest.raises(
        FileNotFoundError, match="of split 'gone'.*If yours have other names, give `--option queries_split="
    ):
        make_task("captioning", pairs, {"queries_split": "gone"})


def test_custom_queries_and_demonstrations_in_two_files(tmp_path):
    captions = [("1.png", "a cat"), ("2.png", "a dog"), ("1.png", "a pet")]
    write(tmp_path, "ask.jsonl", [{"file_name": name, "text": text} for name, text in captions])
    write(tmp_path, "show.csv", [{"file_name": "3.png", "text": "a cow"}])
    files = {"data": str(tmp_path / "ask.jsonl"), "support_data": str(tmp_path / "show.csv")}
    task = TASKS["captioning"](**files, prompt="A picture of")
    assert [query.references for query in task.queries()] == [["a cat", "a pet"], ["a dog"]]  # one query per image
    assert [query.media[0]["path"] for query in task.queries()] == [str(tmp_path / f"{i}.png") for i in (1, 2)]
    assert shown(task, task.support()[0]) == "<image>A picture ofa cow<eoc>\n"
    for options in ({"support_data": files["data"]}, {"queries_split": "ask", "support_split": "ask"}):
        with pytest.raises(ValueError, match="reads queries and demonstrations from .*ask.jsonl"):
            make_task("captioning", files["data"], options)


def test_captions_in_a_file_of_cocos_layout(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    for split, caption in (("train", "a cow"), ("test", "a cat")):
        content = {
            "images": [{"id": 7, "file_name": "1.png"}],
            "annotations": [{"image_id": 7, "caption": text} for text in (caption, "a pet")],
        }
        write(tmp_path, f"captions_{split}.json", content)
    task = make_task("captioning", str(tmp_path))
    (query,) = task.queries()
    assert query.references == ["a cat", "a pet"]
    assert query.media[0]["path"] == str(tmp_path / "1.png")
    assert shown(task, task.support()[0]) == "<image>Output:a cow<eoc>\n"
    with pytest.raises(ValueError, match="'coco_captions', and classification reads .* Use `--task captioning`"):
        make_task("classification", str(tmp_path))


def test_answers_that_are_missing_are_no_references(tmp_path):
    row = {"image": "1.png", "question": " what? ", "answers": [{"answer": " cat"}, {"answer": None}, {"answer": ""}]}
    write(tmp_path, "test.jsonl", [row])
    write(tmp_path, "train.jsonl", [row])
    (query,) = make_task("question_answering", str(tmp_path)).queries()
    assert query.references == ["cat"] and query.prompt == "Question:what? Short answer:"


def test_the_miniature_needs_no_files():
    for name in ("miniature_captions", "miniature_questions", "miniature_shapes"):
        task = make_task(name, None, {"num_queries": "12", "num_support": "9"})
        queries, support = task.queries(), task.support()
        assert queries and support
        right = [predicted(query, (query.answer or "").strip() or query.references[0]) for query in queries]
        if task.generation is None:
            right = [predicted(query, query.references) for query in queries]
            assert all(query.references in query.candidates for query in queries)
        assert task.score(right)[task.metric] >= 100
        assert all(isinstance(example.media[0], Image.Image) for example in queries)


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("miniature")])
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"\.(jsonl?|csv|txt|parquet)"):
        make_task(name, str(tmp_path))


def test_all_missing_files_are_named_at_once(tmp_path):
    write(tmp_path, "train_qa.json", [])
    with pytest.raises(FileNotFoundError, match=r"msvd_qa needs 'test_qa.json', 'youtube_mapping.txt' in "):
        make_task("msvd_qa", str(tmp_path))


BROKEN = {
    "captions without raw": (
        "coco",
        {
            "dataset_coco.json": {
                "images": [{"imgid": 1, "filename": "a", "split": "test", "filepath": "x", "sentences": [{}]}]
            }
        },
        "row 0: it has no 'raw'",
    ),
    "images without captions": (
        "coco",
        {
            "dataset_coco.json": {
                "images": [{"imgid": 1, "filename": "a", "split": "test", "filepath": "x", "sentences": []}]
            }
        },
        r"row 0: the captions of 1 are \[\]",
    ),
    "images without a split": (
        "flickr30k",
        {"dataset_flickr30k.json": {"images": [{"imgid": 1}]}},
        "row 0: it has no 'split'",
    ),
    "an image that is a number": ("coco", {"dataset_coco.json": {"images": [3]}}, "dataset_coco.json', row 0"),
    "a question that is a number": (
        "vqav2",
        {
            "v2_OpenEnded_mscoco_val2014_questions.json": {"questions": [3]},
            "v2_mscoco_val2014_annotations.json": {"annotations": []},
        },
        "questions.json', row 0",
    ),
    "a dialog that is a number": (
        "visdial",
        {
            "visdial_1.0_val_dense_annotations.json": [],
            "visdial_1.0_val.json": {"data": {"questions": [], "answers": [], "dialogs": [3]}},
        },
        "visdial_1.0_val.json', row 0",
    ),
    "segments that are a number": (
        "youcook2",
        {
            "youcookii_annotations_trainval.json": {
                "database": {"v": {"subset": "validation", "annotations": 3}},
            }
        },
        "row 0: 'int' object is not iterable",
    ),
    "a list for a map": ("coco", {"dataset_coco.json": []}, "dataset_coco.json' has no list 'images'"),
    "no answers": (
        "textvqa",
        {"TextVQA_0.5.1_val.json": {"data": [{"question_id": 1, "question": "q", "image_id": "i"}]}},
        "TextVQA_0.5.1_val.json', row 0: it has no 'answers'",
    ),
    "answers of another type": (
        "vizwiz",
        {"Annotations/val.json": [{"image": "i", "question": "q", "answers": "yes"}]},
        "Annotations/val.json', row 0",
    ),
    "a label that is unknown": (
        "hateful_memes",
        {"dev_seen.jsonl": [{"id": 1, "img": "i", "text": "t", "label": -1}]},
        "row 0: the label is -1, not 0 or 1",
    ),
    "no label": (
        "hateful_memes",
        {"dev_seen.jsonl": [{"id": 1, "img": "i", "text": "t"}]},
        "row 0: it has no 'label'",
    ),
    "a column that is missing": (
        "ivqa",
        {"test.csv": [{"video_id": "v", "start": 0}]},
        "test.csv', row 0: it has no 'end'",
    ),
    "a time that is no number": (
        "ivqa",
        {"test.csv": [{"video_id": "v", "start": "x", "end": 1, "question": "q", "answer1": "a"}]},
        "row 0: could not convert",
    ),
    "an answer out of range": (
        "nextqa",
        {"val.csv": [{"video": "v", "qid": 1, "question": "q", "answer": -1, **{f"a{i}": "x" for i in range(5)}}]},
        "row 0: the answer is '-1', not 0 to 4",
    ),
    "no choices": (
        "star",
        {
            "STAR_val.json": [
                {"question_id": "q", "video_id": "v", "start": 0, "end": 1, "question": "q", "answer": "a"}
            ]
        },
        "row 0: it has no 'choices'",
    ),
    "rows that are a number": ("star", {"STAR_val.json": 3}, "STAR_val.json' holds a int, not rows"),
    "a video without captions": (
        "vatex",
        {"vatex_public_test_english_v1.1.json": [{"videoID": "v"}]},
        "row 0: it has no 'enCap'",
    ),
    "a segment without an end": (
        "youcook2",
        {
            "youcookii_annotations_trainval.json": {
                "database": {
                    "v": {"subset": "validation", "annotations": [{"id": 0, "segment": [1], "sentence": "s"}]}
                }
            }
        },
        "row 0: not enough values",
    ),
    "no database": ("youcook2", {"youcookii_annotations_trainval.json": {}}, "no `database`"),
    "no annotation": (
        "rareact",
        {"rareact.csv": [{"id": 1, "video_id": "v", "start": 0, "end": 1, "verb": "a", "noun": "b"}]},
        "row 0: it has no 'annotation'",
    ),
    "no relevance": (
        "visdial",
        {"visdial_1.0_val_dense_annotations.json": [{"image_id": 1, "round_id": 1}]},
        "row 0: it has no 'gt_relevance'",
    ),
    "no dialogs": (
        "visdial",
        {"visdial_1.0_val_dense_annotations.json": [], "visdial_1.0_val.json": {"data": {}}},
        "has no `data`",
    ),
    "a video without a name": (
        "msvd_qa",
        {
            "test_qa.json": [{"id": 1, "video_id": 5, "question": "q", "answer": "a"}],
            "youtube_mapping.txt": "name vid1",
        },
        "row 0: it has no 'vid5'",
    ),
    "a name without a number": (
        "msvd_qa",
        {"test_qa.json": [{"id": 1, "video_id": 5, "question": "q", "answer": "a"}], "youtube_mapping.txt": "name"},
        "youtube_mapping.txt', row 0 is not a pair",
    ),
    "questions without answers": (
        "vqav2",
        {
            "v2_OpenEnded_mscoco_val2014_questions.json": {"questions": []},
            "v2_mscoco_val2014_annotations.json": {"annotations": [{"question_id": 1}]},
        },
        "v2_mscoco_val2014_annotations.json', row 0: it has no 'answers'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_with_its_file(tmp_path, name):
    task, files, message = BROKEN[name]
    empty = {".csv": [{"x": 1}], ".jsonl": [{"x": 1}], ".json": {}, ".txt": ""}
    for file in TASKS[task].files:
        file = file.format(split=getattr(TASKS[task], "split", ""))
        write(tmp_path, file, empty[Path(file).suffix])
    for file, content in files.items():
        write(tmp_path, file, content)
    with pytest.raises(ValueError, match=f"^{task}: .*{message}"):
        make_task(task, str(tmp_path)).queries()


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_a_file_that_is_cut_short_is_named(tmp_path, content):
    write(tmp_path, "dataset_coco.json", {})
    (tmp_path / "dataset_coco.json").write_text(content)
    with pytest.raises(ValueError, match=r"coco: .*dataset_coco.json' is not JSON"):
        make_task("coco", str(tmp_path)).queries()


def test_what_could_never_be_right_is_refused():
    choice = TASKS["star"]
    example = Example("1", [], "", references="cat", candidates=["dog", "horse"])
    with pytest.raises(ValueError, match="'cat' is not one of the candidates"):
        choice.score_each(object.__new__(choice), [Prediction(example, "dog")])
    with pytest.raises(ValueError, match="not 2 scores for 3"):
        ndcg([1.0, 2.0], [0, 1, 0])
    with pytest.raises(ValueError, match="no answer is relevant"):
        ndcg([1.0, 2.0], [0, 0])


def test_answers_as_datasets_stores_them(tmp_path):
    """A list of `{"answer"}` may come back as one dict of lists: its keys are not answers."""
    row = {"image": "a.png", "question": "q?", "answers": {"answer": ["yes", "yes", "no"], "answer_id": [1, 2, 3]}}
    for split in ("train", "test"):
        write(tmp_path, f"{split}.jsonl", [row])
    (query,) = make_task("question_answering", str(tmp_path)).queries()
    assert query.references == ["yes", "no"]
    write(tmp_path, "test.jsonl", [{**row, "answers": 3}])
    with pytest.raises(ValueError, match="test.jsonl, row 0"):
        make_task("question_answering", str(tmp_path)).queries()
    del row["answers"]
    write(tmp_path, "test.jsonl", [row])
    with pytest.raises(ValueError, match="test.jsonl, row 0: no value in 'answers' or 'answer'"):
        make_task("question_answering", str(tmp_path)).queries()
    with pytest.raises(ValueError, match="without {question}, so no prompt"):
        make_task("question_answering", str(tmp_path), {"template": "Q:"})


def test_every_benchmark_knows_its_size():
    sizes = {name: dict(task.split_sizes) for name, task in TASKS.items() if task.split_sizes}
    assert sizes["coco"] == {"test": 5000} and sizes["vqav2"] == {"val2014": 214354}
    custom = {"captioning", "question_answering", "classification"}
    assert set(TASKS) - set(sizes) == custom | {name for name in TASKS if name.startswith("miniature")}
    assert TASKS["hateful_memes"].split in sizes["hateful_memes"] and TASKS["vatex"].split in sizes["vatex"]


def test_wrong_tasks(tmp_path):
    with pytest.raises(ValueError, match="no task 'cocoa'. Available: coco,"):
        make_task("cocoa")
    with pytest.raises(ValueError, match=r"'coco' needs `data`, .* \(--data\)"):
        make_task("coco")
    with pytest.raises(ValueError, match="'hateful_memes' has no splits. Its fields are data, split"):
        make_task("hateful_memes", "x", {"splits": "y"})
    with pytest.raises(ValueError, match="`num_frames` of the task 'vatex' cannot be 'many'"):
        make_task("vatex", "x", {"num_frames": "many"})
    with pytest.raises(ValueError, match=r"cannot be 'cat, dog'. Write a list of texts, such as '\[a, b\]'"):
        make_task("classification", "x", {"classes": "cat, dog"})
    for value in ("0", "1.5", "true", "null", "[8]", "-1"):
        with pytest.raises(
            ValueError, match="`num_frames` of the task 'vatex' cannot be .* whole number of at least 1"
        ):
            make_task("vatex", "x", {"num_frames": value})
    with pytest.raises(ValueError, match="no queries in split 'validation'"):
        make_task("miniature_captions", None, {"split": "validation"})


def test_frames_of_a_part_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for i in range(40):  # 4 seconds; the gray of a frame tells when
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 6 * i, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    def grays(video: VideoSegment) -> list[float]:
        return [np.asarray(frame).mean() / 6 for frame in load_media(video, "query '1'")]

    assert grays(VideoSegment(path, num_frames=4)) == pytest.approx([5, 15, 25, 35], abs=1.5)
    assert grays(VideoSegment(path, 2.0, 3.0, num_frames=2)) == pytest.approx([22.5, 27.5], abs=1.5)
    assert len(grays(VideoSegment(path, 3.9, 4.5, num_frames=3))) == 3
    late = str(tmp_path / "late.mp4")  # its first frame is shown at 2 s
    with av.open(path) as source, av.open(late, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts + 2 / packet.time_base, packet.dts + 2 / packet.time_base
                packet.stream = stream
                container.mux(packet)
    assert grays(VideoSegment(late, 0.0, 1.0, num_frames=2)) == pytest.approx([0, 0], abs=1.5)
    with pytest.raises(ValueError, match="query '1': the video .*nothing.mp4' cannot be read"):
        load_media(VideoSegment(str(tmp_path / "nothing.mp4")), "query '1'")


def test_a_missing_folder_and_missing_files_name_the_help(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nowhere', which is a folder that does not exist.*--task coco --help` lists"
    ):
        make_task("coco", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="coco needs .*`flamingo evaluate --task coco --help` lists its files"):
        make_task("coco", str(tmp_path))
