# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the layouts in which people have the files of a benchmark: ImageNet from its devkit, videos whole or cut, YouCook2's folders."""

import json
from pathlib import Path

import pytest

from transformers_flamingo.data import VideoSegment
from transformers_flamingo.evaluation.task import Prediction
from transformers_flamingo.evaluation.tasks import make_task
from transformers_flamingo.evaluation.tasks.videos import VideoFiles
from transformers_flamingo.evaluation.tasks.vqa import OkVqaStemmer


def write(root: Path, *names: str, content="") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


VALIDATION = [f"ILSVRC2012_val_{number:08d}" for number in (1, 2, 3)]


def imagenet(root: Path, folder: str = "") -> None:
    """A flat validation split, as it is published, of the classes n02, n01 and n02."""
    write(root / folder, "train/n01/n01_1.JPEG", "train/n02/n02_1.JPEG", *(f"val/{name}.JPEG" for name in VALIDATION))


def check_imagenet(root: Path, folder: str = "") -> None:
    task = make_task("imagenet", str(root))
    queries = task.queries()
    assert [query.id for query in queries] == [f"{name}.JPEG" for name in VALIDATION]
    assert queries[0].media == [str(root / folder / "val" / f"{VALIDATION[0]}.JPEG")]
    assert [query.answer for query in queries] == ["goldfish", "tench", "goldfish"]
    assert queries[0].candidates == ["tench", "goldfish"]
    assert [shown.id for shown in task.support()] == ["n01/n01_1.JPEG", "n02/n02_1.JPEG"]


@pytest.mark.parametrize("folder", ["", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_from_kaggle(tmp_path, folder):
    imagenet(tmp_path, folder)
    write(tmp_path, "LOC_synset_mapping.txt", content="n02 goldfish, Carassius auratus\nn01 tench, Tinca tinca\n")
    rows = [f"{name},n0{label} 1 2 3 4 n0{label} 5 6 7 8" for name, label in zip(VALIDATION, (2, 1, 2), strict=True)]
    write(tmp_path, "LOC_val_solution.csv", content="\n".join(["ImageId,PredictionString", *reversed(rows)]))
    check_imagenet(tmp_path, folder)
    write(tmp_path, "LOC_val_solution.csv", content=f"ImageId,PredictionString\n{VALIDATION[0]},n03 1 2 3 4\n")
    with pytest.raises(
        ValueError, match=r"LOC_val_solution.csv' names the class 'n03', which is not among the 2 classes"
    ):
        make_task("imagenet", str(tmp_path))
    write(tmp_path, "LOC_val_solution.csv", content=f"ImageId,PredictionString\n{VALIDATION[0]},n02 1 2 3 4\n")
    with pytest.raises(ValueError, match=f"row 1: it has no '{VALIDATION[1]}'"):
        make_task("imagenet", str(tmp_path)).queries()


@pytest.mark.parametrize("folder", ["ILSVRC2012_devkit_t12/data", "data", ""])
@pytest.mark.parametrize("has_index", [False, True])
def test_imagenet_from_its_devkit(tmp_path, folder, has_index):
    io = pytest.importorskip("scipy.io")
    import numpy as np

    imagenet(tmp_path)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [
        (1, "n02", "goldfish, Carassius auratus", 0),
        (2, "n01", "tench, Tinca tinca", 0),
        (1001, "n00", "fish", 2),
    ]
    write(tmp_path / folder, "ILSVRC2012_validation_ground_truth.txt", content="1\n2\n1\n")
    io.savemat(tmp_path / folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    if has_index:
        write(tmp_path, "imagenet_class_index.json", content={"0": ["n01", "tench"], "1": ["n02", "goldfish"]})
    check_imagenet(tmp_path)


def test_what_imagenet_lacks_is_said(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="needs the names of its classes: 'imagenet_class_index.json', 'LOC_synset"
    ):
        make_task("imagenet", str(tmp_path))
    write(tmp_path, "LOC_synset_mapping.txt", content="n01 tench, Tinca tinca\nn02 goldfish, Carassius auratus\n")
    with pytest.raises(FileNotFoundError, match="needs a folder 'train' or 'ILSVRC/Data/CLS-LOC/train'"):
        make_task("imagenet", str(tmp_path))
    imagenet(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"val' has no folder of a class, such as 'n01', .*'LOC_val_solution.csv' nor"
    ):
        make_task("imagenet", str(tmp_path))
    write(tmp_path, "ILSVRC2012_validation_ground_truth.txt", content="1\n2\n1\n")
    # Its numbers are not the places of the classes in another file: they would be scored as other classes
    with pytest.raises(FileNotFoundError, match="has the numbers of `meta.mat`, which are in no other file"):
        make_task("imagenet", str(tmp_path))


@pytest.mark.parametrize("content", ["a fish\nanother fish\n", '["a fish", "another fish"]'])
def test_other_names_of_classes(tmp_path, content):
    write(tmp_path, "train/n02/a.JPEG", "train/n01/a.JPEG", "val/n02/a.JPEG", "val/n01/b.JPEG")
    write(tmp_path, "imagenet_class_index.json", content={"0": ["n02", "goldfish"], "1": ["n01", "tench"]})
    write(tmp_path, "names.txt", content=content)
    task = make_task("imagenet", str(tmp_path), {"names": str(tmp_path / "names.txt")})
    assert [(query.id, query.answer) for query in task.queries()] == [
        ("n01/b.JPEG", "a fish"),
        ("n02/a.JPEG", "another fish"),
    ]
    write(tmp_path, "names.txt", content="a fish")
    with pytest.raises(ValueError, match="has 1 names, and there are 2 classes"):
        make_task("imagenet", str(tmp_path), {"names": str(tmp_path / "names.txt")})


def test_videos_have_any_extension_and_place(tmp_path):
    write(tmp_path, "videos/deep/er/a.webm", "videos/b.MKV", "videos/b.info.json", "raw/a.mp4", "raw/c.mp4")
    videos = VideoFiles(str(tmp_path), ("videos", "raw", "gone"))
    assert videos.segment("a", 1, 2, 4) == VideoSegment(str(tmp_path / "videos/deep/er/a.webm"), 1, 2, 4)
    assert videos.segment("b") == VideoSegment(str(tmp_path / "videos/b.MKV"))
    assert videos.segment("c") == VideoSegment(str(tmp_path / "raw/c.mp4"))
    assert videos.segment("d", extension=".avi") == VideoSegment(str(tmp_path / "videos/d.avi"))
    assert VideoFiles(str(tmp_path), ("gone", "raw")).segment("d") == VideoSegment(str(tmp_path / "raw/d.mp4"))


def test_a_part_is_cut_out_once(tmp_path):
    write(tmp_path, "videos/v_1_3.5.mp4", "videos/whole_one.mp4", "videos/x_4_9.mp4", "videos/x.mp4")
    videos = VideoFiles(str(tmp_path), ("videos",))
    # A clip that was cut out already has no part any more; frames beyond its end would be an error
    assert videos.segment("v", 1.0, 3.5) == VideoSegment(str(tmp_path / "videos/v_1_3.5.mp4"))
    assert videos.segment("v", 1.0, 4.0) == VideoSegment(str(tmp_path / "videos/v.mp4"), 1.0, 4.0)
    # MSVD and VATEX name clips; only the whole video may be there
    assert videos.segment("whole_one_000012_000022") == VideoSegment(
        str(tmp_path / "videos/whole_one.mp4"), 12.0, 22.0
    )
    assert videos.segment("x_4_9") == VideoSegment(str(tmp_path / "videos/x_4_9.mp4"))


@pytest.mark.parametrize("annotations", ["", "annotations/"])
@pytest.mark.parametrize("video", ["raw_videos/validation/101/v.mkv", "videos/v.mp4", "video/v.webm"])
def test_youcook2_as_it_is_distributed(tmp_path, annotations, video):
    segments = [{"id": 0, "segment": [10, 15], "sentence": "cut"}]
    database = {"v": {"subset": "validation", "recipe_type": "101", "annotations": segments}}
    write(tmp_path, f"{annotations}youcookii_annotations_trainval.json", content={"database": database})
    write(tmp_path, video)
    (query,) = make_task("youcook2", str(tmp_path)).queries()
    assert query.media == [VideoSegment(str(tmp_path / video), 10, 15)]


def test_clips_and_videos_of_other_tasks(tmp_path):
    rows = "video_id,start,end,question,answer1,answer2\nv,1,4,what?,pan,pan\nw,2,3,what?,pan,pan\n"
    write(tmp_path, "train.csv", "test.csv", content=rows)
    write(tmp_path, "video/v_1_4.webm", "video/w.mp4")
    cut, part = make_task("ivqa", str(tmp_path)).queries()
    assert cut.media == [VideoSegment(str(tmp_path / "video/v_1_4.webm"))]
    assert part.media == [VideoSegment(str(tmp_path / "video/w.mp4"), 2.0, 3.0)]

    questions = [{"id": 3, "video_id": 12, "question": "who runs?", "answer": "man"}]
    write(tmp_path, "train_qa.json", "test_qa.json", content=questions)
    write(tmp_path, "youtube_mapping.txt", content="abc_1_2 vid12")
    write(tmp_path, "YouTubeClips/abc.mp4")
    (query,) = make_task("msvd_qa", str(tmp_path)).queries()
    assert query.media == [VideoSegment(str(tmp_path / "YouTubeClips/abc.mp4"), 1.0, 2.0)]
    write(tmp_path, "videos/video12.mp4")
    (query,) = make_task("msrvtt_qa", str(tmp_path)).queries()
    assert query.media == [VideoSegment(str(tmp_path / "videos/video12.mp4"))]


def test_few_clips_of_rareact_are_those_of_few_actions(tmp_path):
    columns = "id,video_id,start,end,class_id,verb,noun,annotation"
    labels = [0] * 7 + [1] * 3
    rows = [
        f"{action}{i},v{action}{i},0,1,{action},do{action},it{action},{label if action != 3 else 0}"
        for action in range(5)
        for i, label in enumerate(labels)
    ]
    write(tmp_path, "rareact.csv", content="\n".join([columns, *rows]))
    task = make_task("rareact", str(tmp_path))
    queries = task.queries()
    order = {query.id: i for i, query in enumerate(queries)}

    def of(number: int) -> dict[str, list[int]]:
        drawn = task.subset(queries, number)
        assert len(drawn) == number
        assert [order[query.id] for query in drawn] == sorted(order[query.id] for query in drawn)
        assert task.subset(queries, number) == drawn
        kinds: dict[str, list[int]] = {}
        for query in drawn:
            kinds.setdefault(query.references["verb"], []).append(query.references["annotation"])
        # Whatever is drawn can be scored
        likelihoods = [Prediction(q, q.candidates[0], [0.0] * len(q.candidates)) for q in drawn]
        assert 0 < task.score(likelihoods)["mWAP"] <= 100
        return kinds

    assert [sum(labels) for labels in of(1).values()] == [1]
    assert [sorted(labels) for labels in of(2).values()] == [[0, 1]]
    whole = of(20)
    assert [sorted(labels) for labels in whole.values()] == [sorted(labels) for labels in [[0] * 7 + [1] * 3] * 2]
    assert "do3" not in of(40)  # nobody shows it, so its clips count for nothing
    assert len(task.subset(queries, 45)) == 40


STEMS = OkVqaStemmer(
    [
        ("children", "child"),
        ("men", "man"),
        ("knives", "knife"),
        ("people", "people"),
        ("surfing", "surf"),
        ("The firefighters", "firefight"),
        ("a gas stove", "gas stove"),
        ("skiing boots", "ski boot"),
        ("ride", "ride"),
        ("run", "run"),
        ("organ", "organ"),
        ("organization", "organization"),
        ("too many words", "other length"),
    ]
)


@pytest.mark.parametrize(
    ("answer", "stem"),
    [
        # The words that Porter's stemmer loses or confuses
        *(("Children.", "child"), ("men", "man"), ("knives", "knife"), ("people", "people")),
        *(("organ", "organ"), ("organization", "organization"), ("organizations", "organization")),
        # By position, whatever the other words are
        *(
            ("surfing boots", "surf boot"),
            ("firefighters", "firefight"),
            ("gas", "gas"),
            ("the gas stoves", "gas stove"),
        ),
        # Not written by an annotator: singular, and "-ing" where that leaves a stem
        *(("women", "woman"), ("horses", "horse"), ("glass", "glass"), ("riding", "ride"), ("running", "run")),
        *(("skiing", "ski"), ("singing", "singing"), ("ring", "ring"), ("ing", "ing"), ("two dogs", "2 dog")),
    ],
)
def test_the_stem_of_a_word_is_that_of_the_annotations(answer, stem):
    assert STEMS(answer) == stem


def test_okvqa_stems_the_answers_of_the_model_alone(tmp_path):
    for split, number in (("train2014", 1), ("val2014", 2)):
        question = {"question_id": number, "image_id": number, "question": "Who?"}
        raw = {"raw_answer": "children", "answer": "child"}
        other = {"raw_answer": "buses", "answer": "buses"}  # as the files have it, right or wrong
        write(tmp_path, f"OpenEnded_mscoco_{split}_questions.json", content={"questions": [question]})
        annotation = {"question_id": number, "answers": [raw] * 6 + [other] * 4}
        write(tmp_path, f"mscoco_{split}_annotations.json", content={"annotations": [annotation]})
    task = make_task("okvqa", str(tmp_path))
    (query,) = task.queries()
    assert task.support()[0].answer == "child"
    answers = ("Children", "a child", "buses", "bus")
    assert task.score_each([Prediction(query, answer) for answer in answers]) == [1.0, 1.0, 1.0, 0.0]
