# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that a few examples label images in any form, and that each prediction is what the model computes from the whole prompt."""

import math
import pickle

import datasets
import numpy as np
import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from transformers.pipelines.pt_utils import KeyDataset
from words import draw_image

from transformers_flamingo import FewShotPredictor
from transformers_flamingo.few_shot.predictor import FewShotPrediction


SHOTS = [(draw_image(1), "w4 w5"), (draw_image(2), "w6"), (draw_image(3), "w7 w8"), (draw_image(4), "w6")]
ASKED = [(draw_image(10 + i), f"w{20 + i}" if i % 3 else f"w{20 + i} w9 w9") for i in range(7)]
IMAGES = [image for image, _ in ASKED]
QUESTIONS = [question for _, question in ASKED]
ANSWERS = [(draw_image(1), "w9", "w4 w5"), (draw_image(2), "w8 w9", "w6"), (None, "w5", "w7")]


@pytest.fixture(scope="module")
def parts():
    return tiny_flamingo(gates=0.7), tiny_processor()


def make(parts, demonstrations=SHOTS, task="caption", **kwargs) -> FewShotPredictor:
    return FewShotPredictor(
        *parts, demonstrations, task, **{"batch_size": 2, "prompt": "w11", "separator": "", **kwargs}
    )


def generate(parts, text: str, images: list, **kwargs) -> str:
    """Generate a text after a whole prompt, without any cache of it."""
    model, processor = parts
    inputs = processor(images=[images], text=[text], return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, eos_token_id=model.config.end_of_chunk_token_id, **kwargs)
    return processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def test_captions_are_those_of_the_whole_prompt(parts):
    texts = "".join(f"<image>w11{text}<|endofchunk|>" for _, text in SHOTS).replace("w11", "w11 ") + "<image>w11"
    predictor = make(parts, [(image, f" {text}") for image, text in SHOTS], max_new_tokens=4, num_beams=1)
    got = predictor(IMAGES)
    assert got == [
        FewShotPrediction(
            generate(parts, texts, [*(shown for shown, _ in SHOTS), image], max_new_tokens=4, num_beams=1),
            demonstrations=(0, 1, 2, 3),
        )
        for image in IMAGES
    ]
    assert predictor(IMAGES[3]) == got[3]
    assert len({prediction.text for prediction in got}) > 1


def test_answers_need_questions(parts):
    predictor = make(parts, ANSWERS, "answer", prompt="w3 {question} w4 ", max_new_tokens=3, num_beams=2)
    got = predictor(IMAGES, QUESTIONS)
    prefix = "<image>w3 w9 w4 w4 w5<|endofchunk|><image>w3 w8 w9 w4 w6<|endofchunk|>w3 w5 w4 w7<|endofchunk|>"
    settings = {"max_new_tokens": 3, "num_beams": 2, "length_penalty": 0.0}
    for (image, question), prediction in zip(ASKED, got, strict=True):
        text = f"{prefix}<image>w3 {question} w4 "
        assert prediction.text == generate(parts, text, [ANSWERS[0][0], ANSWERS[1][0], image], **settings)
    rows = [{"image": image, "question": question, "id": 3} for image, question in ASKED]
    assert predictor(rows) == got
    assert predictor(IMAGES[0], QUESTIONS[0]) == predictor(rows[0]) == got[0]
    assert predictor(IMAGES, "w20")[4] == predictor(IMAGES[4], "w20")
    with pytest.raises(ValueError, match="image 0: the question is None"):
        predictor(IMAGES)
    with pytest.raises(ValueError, match="There are 6 questions, and more images"):
        predictor(IMAGES, QUESTIONS[:-1])
    with pytest.raises(ValueError, match="There are 6 images, and more questions"):
        predictor(IMAGES[:-1], QUESTIONS)
    with pytest.raises(ValueError, match="There are questions, but the task is 'caption'"):
        make(parts)(IMAGES, QUESTIONS)


def test_classes_get_the_probabilities_of_their_texts(parts):
    model, processor = parts
    predictor = make(parts, [(image, f" {text}") for image, text in SHOTS], "classify")
    assert predictor.candidates == [" w4 w5", " w6", " w7 w8"]
    prediction = predictor(IMAGES[0])
    prefix = "".join(f"<image>w11 {text}<|endofchunk|>" for _, text in SHOTS) + "<image>w11"
    means = []
    for candidate in predictor.candidates:
        images = [*(image for image, _ in SHOTS), IMAGES[0]]
        inputs = processor(images=[images], text=[prefix + candidate], return_tensors="pt")
        count = len(candidate.split())
        with torch.no_grad():
            log_probs = model(**inputs, use_cache=False).logits[0].log_softmax(dim=-1)[-count - 1 : -1]
        means.append(log_probs.gather(1, inputs["input_ids"][0, -count:, None]).mean().item())
    expected = torch.tensor(means).softmax(dim=0).tolist()
    assert list(prediction.probabilities) == predictor.candidates
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert math.isclose(sum(prediction.probabilities.values()), 1)
    best = max(range(3), key=expected.__getitem__)
    assert (prediction.text, prediction.score) == (predictor.candidates[best], max(prediction.probabilities.values()))
    sums = make(parts, task="classify", length_normalized=False)(IMAGES[0]).probabilities
    assert list(sums.values()) != pytest.approx(expected, abs=1e-3)
    assert list(make(parts, candidates=["w10", "w12"])(IMAGES[0]).probabilities) == ["w10", "w12"]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("selection", ["fixed", "random", "rices"])
def test_batches_and_forms_of_input_change_nothing(parts, tmp_path, monkeypatch, selection, batch_size):
    settings = {"selection": selection, "top_k": 2, "max_new_tokens": 3}
    paths = [tmp_path / f"{number}.png" for number in range(len(IMAGES))]
    for image, path in zip(IMAGES, paths, strict=True):
        image.save(path)
    expected = make(parts, batch_size=2, **settings)([str(path) for path in paths])
    assert all(len(set(prediction.demonstrations)) == 2 for prediction in expected)
    predictor = make(parts, batch_size=batch_size, **settings)
    streamed = predictor(iter(paths))
    assert not isinstance(streamed, list)
    assert list(streamed) == expected
    assert [predictor(str(path)) for path in paths[:2]] == expected[:2]
    assert list(predictor(paths[:2] * 2, show_progress_bar=True)) == expected[:2] * 2
    rows = datasets.Dataset.from_dict({"image": [str(path) for path in paths]}).cast_column("image", datasets.Image())
    assert list(predictor(rows)) == expected
    assert predictor([np.asarray(image) for image in IMAGES]) == expected
    assert predictor([path.read_bytes() for path in paths]) == expected
    assert predictor(np.stack([np.asarray(image) for image in IMAGES])) == expected
    assert predictor(IMAGES[::-1], batch_size=5) == expected[::-1]
    monkeypatch.chdir(tmp_path)
    assert predictor(["./0.png", f"../{tmp_path.name}/1.png"]) == expected[:2]
    assert list(predictor(PlainDataset(paths))) == list(predictor(KeyDataset(rows, "image"))) == expected


class PlainDataset(torch.utils.data.Dataset):
    """A dataset with a length and items, and no iterator."""

    def __init__(self, items: list):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> object:
        return self.items[number]


def test_columns_are_no_row(parts):
    predictor = make(parts, max_new_tokens=1)
    rows = datasets.Dataset.from_dict({"image": IMAGES[:3], "question": QUESTIONS[:3]})
    for columns in (
        rows[:3],
        {"image": IMAGES[:2]},
        {"image": IMAGES[0], "question": QUESTIONS[:1]},
        next(iter(torch.utils.data.DataLoader([{"image": np.asarray(image)} for image in IMAGES], batch_size=2))),
    ):
        with pytest.raises(ValueError, match=r"Columns of several rows, such as `dataset\[:3\]`"):
            predictor(columns)
        with pytest.raises(ValueError, match="must be rows"):
            list(predictor(iter([columns])))
    arrays = [np.asarray(image) for image in IMAGES]
    with pytest.raises(ValueError, match="a DataLoader that makes batches"):
        list(predictor(torch.utils.data.DataLoader(arrays, batch_size=2)))
    assert list(predictor(torch.utils.data.DataLoader(arrays, batch_size=None))) == predictor(IMAGES)
    assert predictor({"video": IMAGES[:2]}) == predictor([IMAGES[:2]])[0]


@pytest.mark.parametrize("selection", ["random", "rices"])
def test_no_image_is_its_own_demonstration(parts, selection):
    shots = [*SHOTS, (SHOTS[1][0].copy(), "w9")]  # twice
    predictor = make(parts, shots, selection=selection, top_k=3, max_new_tokens=1)
    asked = [(image, predictor(image).demonstrations) for image, _ in shots]
    for number, (_, shown) in enumerate(asked):
        own = {1, 4} if number in (1, 4) else {number}
        assert len(shown) == 3 and not own & set(shown)
    everything = make(parts, shots, selection=selection, top_k=5, max_new_tokens=1)
    assert sorted(everything(shots[1][0]).demonstrations) == [0, 2, 3]
    assert sorted(everything(IMAGES[0]).demonstrations) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("selection", ["fixed", "rices"])
def test_training_between_predictions(selection):
    model = tiny_flamingo(gates=0.7)
    model.requires_grad_(True)
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    for dropout in dropouts:
        dropout.p = 0.5
    predictor = make((model, tiny_processor()), task="classify", selection=selection, top_k=3)
    before = predictor(IMAGES[:3])
    model.train()
    model.vision_model.eval()
    assert dropouts and predictor(IMAGES[:3]) == before
    assert model.training and model.language_model.training and not model.vision_model.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    after = predictor(IMAGES[:3])
    assert after != before
    assert after == make((model, predictor.processor), task="classify", selection=selection, top_k=3)(IMAGES[:3])
    for weight in model.parameters():
        weight.data.mul_(0.9)
    predictor.reset()
    assert predictor(IMAGES[:3]) == make((model, predictor.processor), task="classify", selection=selection, top_k=3)(
        IMAGES[:3]
    )


def test_demonstrations_in_any_form(parts, tmp_path):
    shots = [(image, text.replace(" ", "_")) for image, text in SHOTS]
    for number, (image, text) in enumerate(shots):
        (tmp_path / text).mkdir(exist_ok=True)
        image.save(tmp_path / text / f"{number}.png")
    expected = make(parts, max_new_tokens=2)(IMAGES[:2])
    rows = [{"image": image, "text": text, "id": 1} for image, text in SHOTS]
    assert make(parts, rows, max_new_tokens=2)(IMAGES[:2]) == expected
    assert make(parts, datasets.Dataset.from_list(rows), max_new_tokens=2)(IMAGES[:2]) == expected
    assert make(parts, PlainDataset(rows), max_new_tokens=2)(IMAGES[:2]) == expected
    read = make(parts, tmp_path, None)
    assert (read.task, sorted(read.candidates)) == ("classify", ["w4 w5", "w6", "w7 w8"])
    answers = [dict(zip(("image", "question", "answer"), shown, strict=True)) for shown in ANSWERS]
    settings = {"task": "answer", "prompt": "{question}", "max_new_tokens": 2}
    assert make(parts, answers, **settings)(IMAGES[0], "w4") == make(parts, ANSWERS, **settings)(IMAGES[0], "w4")


def test_the_most_similar_are_shown_last(parts):
    predictor = make(parts, selection="rices", top_k=3, max_new_tokens=1)
    for number, (image, _) in enumerate(SHOTS):
        similar = image.copy()  # the same image is not shown
        similar.putpixel((0, 0), (9, 9, 9))
        assert predictor(similar).demonstrations[-1] == number


def test_the_embeddings_of_a_pool_are_kept(parts, tmp_path):
    shots = []
    for number, (image, text) in enumerate(SHOTS):
        image.save(tmp_path / f"{number}.png")
        shots.append((tmp_path / f"{number}.png", text))
    settings = {"selection": "rices", "top_k": 2, "max_new_tokens": 2, "index_dir": tmp_path / "index"}
    first, second = (make(parts, shots, **settings) for _ in range(2))
    expected = first(IMAGES)
    files = list((tmp_path / "index").iterdir())
    assert first.pool.index.num_embedded == 4 and len(files) == 1
    assert second(IMAGES) == make(parts, selection="rices", top_k=2, max_new_tokens=2)(IMAGES) == expected
    assert second.pool.index.num_embedded == 0 and list((tmp_path / "index").iterdir()) == files


def test_what_is_computed_once(parts):
    predictor = make(parts, max_new_tokens=1)
    lengths = []
    hook = parts[0].language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    list(predictor(iter(IMAGES)))
    predictor(IMAGES[:2] * 2)
    hook.remove()
    assert sum(shape[1] > 4 for shape in lengths) == 1  # the prompt of the demonstrations
    assert predictor.engine.num_encoded == 4 + 7 + 2


def test_an_iterator_is_read_a_little_ahead(parts):
    read = []
    images = (read.append(number) or IMAGES[number % 7] for number in range(1000))
    predictions = make(parts, max_new_tokens=1)(images)
    assert read == []
    next(predictions)
    assert len(read) == 16
    assert len([next(predictions) for _ in range(20)]) == 20
    assert len(read) == 32
    predictions.close()


def test_a_bad_image_is_an_error_or_is_skipped(parts, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    images = [IMAGES[0], str(bad), IMAGES[1], str(tmp_path / "missing.png"), None, IMAGES[2], np.zeros((2, 2, 7))]
    with pytest.raises(ValueError, match=r"bad\.png.*cannot be decoded"):
        make(parts)(images)
    with pytest.raises(ValueError, match=r"missing\.png"):
        make(parts)(images[3])
    with pytest.raises(ValueError, match="demonstration '4'.*cannot be decoded"):  # which is the fault of no query
        make(parts, [*SHOTS, (str(bad), "w4")], on_error="skip")(images)
    got = make(parts, on_error="skip", max_new_tokens=2)(images)
    assert [prediction.text is None for prediction in got] == [False, True, False, True, True, False, True]
    assert [got[i] for i in (0, 2, 5)] == make(parts, max_new_tokens=2)(IMAGES[:3])
    assert "cannot be decoded" in got[1].error and "No such file" in got[3].error and "7)" in got[6].error
    assert got[1].demonstrations == ()

    predictor = make(parts, ANSWERS, "answer", prompt="{question}", on_error="skip")
    assert predictor(IMAGES[0], "w4 <image>").error.startswith("image 0: the text is 'w4 <image>'. It has '<image>'")
    too_long = predictor(IMAGES[:2], ["w4 " * 120, "w4"])
    assert "but the language model has 128 positions" in too_long[0].error and too_long[1].text is not None


def test_nan_is_an_error_or_is_skipped():
    model = tiny_flamingo(gates=0.7)
    predictor = FewShotPredictor(
        model, tiny_processor(), SHOTS, "classify", prompt="w11", separator="", on_error="skip"
    )
    expected = predictor(IMAGES[:3])
    with torch.no_grad():
        model.language_model.lm_head.weight.fill_(float("nan"))
    assert all("NaN" in prediction.error for prediction in predictor(IMAGES[:3]))
    assert all(prediction.error is None for prediction in expected)
    predictor.on_error = "raise"
    with pytest.raises(ValueError, match="NaN"):
        predictor(IMAGES[0])


@pytest.mark.parametrize("selection", ["fixed", "random", "rices"])
def test_it_can_be_sent_to_workers(parts, selection):
    predictor = make(parts, task="classify", selection=selection, top_k=2)
    sent = pickle.loads(pickle.dumps(predictor))
    expected = predictor(IMAGES[:3])
    assert sent(IMAGES[:3]) == pickle.loads(pickle.dumps(predictor))(IMAGES[:3]) == expected


def test_classes_are_balanced_in_random_sets(parts):
    shots = [(draw_image(i), "w6" if i else "w7") for i in range(9)]
    for selection in ("fixed", "random"):
        assert 0 in make(parts, shots, "classify", selection=selection, top_k=2)(IMAGES[0]).demonstrations


def test_no_demonstrations(parts):
    assert make(parts, selection="rices", top_k=0)(IMAGES[0]) == make(parts, ())(IMAGES[0])
    got = make(parts, (), max_new_tokens=3, num_beams=1)(IMAGES[0])
    assert got.text == generate(parts, "<image>w11", IMAGES[:1], max_new_tokens=3, num_beams=1)


@pytest.mark.parametrize(
    ("demonstrations", "kwargs", "message"),
    [
        (SHOTS, {"task": "describe"}, "`task` is 'describe'. It can be 'caption', 'answer', 'classify'"),
        (SHOTS, {"on_error": "ignore"}, "`on_error` is 'ignore'"),
        (SHOTS, {"selection": "best"}, "`selection` is 'best'"),
        (
            SHOTS,
            {"index_dir": "x"},
            "`clip`, `index_dir` and `faiss` compare images, and with `selection='fixed'` none are",
        ),
        (SHOTS, {"top_k": 5}, "`top_k` is 5, but it must be from 0 to 4"),
        (SHOTS, {"batch_size": 0}, "`batch_size` is 0"),
        (SHOTS, {"batch_size": "a"}, "`batch_size` is 'a', but it must be an integer"),
        (SHOTS, {"top_k": "4"}, "`top_k` is '4', but it must be an integer"),
        (SHOTS, {"top_k": 2.5}, "`top_k` is 2.5"),
        (SHOTS, {"num_beams": 0}, "`num_beams` is 0, but it must be at least 1"),
        (SHOTS, {"max_new_tokens": 2.5}, "`max_new_tokens` is 2.5"),
        (SHOTS, {"length_penalty": "a"}, "`length_penalty` is 'a', but it must be a number"),
        (SHOTS, {"separator": 3}, "`separator` is 3, but it must be a text"),
        (SHOTS, {"prompt": 3}, "`prompt` is 3, but it must be a text"),
        (SHOTS, {"seed": -1}, "`seed` is -1"),
        (SHOTS, {"generate_kwargs": 3}, "`generate_kwargs` is 3"),
        (SHOTS, {"selection": "rices", "index_dir": 3}, "`index_dir` is 3, but it must be the path of a folder"),
        (SHOTS, {"selection": "rices", "index_dir": "/proc/x"}, "`index_dir` is '/proc/x', which cannot be made"),
        (None, {}, "`demonstrations` is None, but it must be a list"),
        ({"cat.png": "cat"}, {}, "`demonstrations` is a dict"),
        (3, {}, "The demonstrations are a int"),
        ([{"image": draw_image(1), "label": 3}], {}, "demonstration 0 has 'image', 'label', and no 'text'"),
        ([{"image": None, "text": "w4", "question": "w5"}], {}, "demonstration 0 has a question"),
        (SHOTS, {"candidates": ["w4 ", " w4"]}, "The candidates 'w4 ' and ' w4' have the same tokens"),
        (SHOTS, {"candidates": ["zebra", "horse"]}, "The candidates 'zebra' and 'horse' have the same tokens"),
        (
            SHOTS,
            {"task": "answer", "prompt": "{question}"},
            r"demonstration 0 is a tuple of 2.*\(image, question, answer\)",
        ),
        (ANSWERS, {"task": "answer", "prompt": "w3"}, "`prompt` is 'w3', without {question}"),
        (ANSWERS, {"task": "answer", "prompt": "{question} {foo}"}, "with {foo}, which nothing fills in"),
        (SHOTS, {"prompt": "{question}"}, "with {question}, but the task asks no question"),
        ([(draw_image(1), "")], {}, "demonstration 0: the text is ''"),
        ([(draw_image(1), "w4<|endofchunk|>")], {}, "It has '<|endofchunk|>', which would be read as a special token"),
        ([("nowhere.png", "w4")], {}, "demonstration 0: 'nowhere.png' cannot be read"),
        (SHOTS[1:2], {"task": "classify"}, "The demonstrations have 1 classes"),
        (SHOTS, {"candidates": "w4"}, "`candidates` is 'w4'"),
        (SHOTS, {"candidates": ["w4", "w4"]}, "The candidate 'w4' is given twice"),
        (SHOTS, {"task": "classify", "candidates": ["w4", "w6"]}, "A demonstration is of class 'w4 w5'"),
        (SHOTS, {"generate_kwargs": {"do_sample": True}}, "`generate_kwargs` has 'do_sample'"),
        (
            [(draw_image(1), "w4 " * 40)] * 4,
            {},
            "4 demonstrations have 168 tokens, .* may have 21, .* 128 positions.*at most 2 of them fit",
        ),
        (
            [(draw_image(1), "w4 " * 110)] * 2,
            {"selection": "random"},
            "The 2 longest demonstrations.*not one of them fits",
        ),
    ],
)
def test_errors(parts, demonstrations, kwargs, message):
    with pytest.raises(ValueError, match=message.replace("<|", r"<\|").replace("|>", r"\|>").replace("{q", r"\{q")):
        make(parts, demonstrations, **{"prompt": "w11", **kwargs})


def test_a_name_is_no_model(parts):
    with pytest.raises(ValueError, match=r"`model` is 'm', a name. Use `FewShotPredictor.from_pretrained\('m'"):
        FewShotPredictor("m", parts[1], SHOTS)
    with pytest.raises(ValueError, match="`processor` is a NoneType, but it must be the FlamingoProcessor"):
        FewShotPredictor(parts[0], None, SHOTS)
