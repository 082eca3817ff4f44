# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Score a trained model on the drawings of the house that it was not trained on.

    python benchmarks/real_pictures/score.py runs/real-captions --data real-pictures --output runs/real-captions/score

writes into the output folder

    score.json           the scores: each with the right pictures, with gray ones (blind) and with those of other rows (permuted)
    score.md             the same as tables; `--docs FILE --name NAME` writes them into the block NAME of a page
    predictions.jsonl    each answer
    contact-sheet.png    right and wrong answers about drawings that may be shown (`pictures.LICENSED_HOUSES`)
    contact-sheet-private.png   about drawings of the unseen house, if their license does not allow to show them
    real-pictures-few-shots.png   accuracy against shots, with `--parts few_shots`; `--docs` puts it next to the page
"""

import argparse
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import few_shots
import numpy as np
from neighbors import measure_neighbors, score_ranking
from pictures import LICENSED_HOUSES, read_record, read_rows
from PIL import Image

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo.cards.plotting import plot_captions
from transformers_flamingo.cards.rendering import render_card
from transformers_flamingo.data import FORMATS, blank_image
from transformers_flamingo.evaluation.metrics import exact_match
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import GenerationSettings
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt
from transformers_flamingo.saving_flamingo import write_text
from transformers_flamingo.utils.loading import load_flamingo


Pictures = Literal["right", "blind", "permuted"]
Row = dict[str, Any]

PARTS = ("names", "questions", "chat", "few_shots", "neighbors")
TEMPLATE = Path(__file__).parent / "score.md.jinja"
CHAT_QUESTION = "What is this?"
NUM_SHOWN = 40


@dataclass
class Scorer:
    """
    A model, and the prepared pictures that it is asked about.

    Args:
        model ([`FlamingoModel`]): The model.
        processor ([`FlamingoProcessor`]): Its processor.
        data (`Path`): What `prepare.py` wrote.
        batch_size (`int`): Prompts answered together.
        max_new_tokens (`int`, *optional*, defaults to 12): Maximum length of an answer.
    """

    model: FlamingoModel
    processor: FlamingoProcessor
    data: Path
    batch_size: int
    max_new_tokens: int = 12

    def __post_init__(self):
        self.engine = FewShotEngine(self.model, self.processor, batch_size=self.batch_size)

    def prompts(self, rows: Sequence[Row], texts: Sequence[str], pictures: Pictures = "right") -> list[Prompt]:
        """Make a prompt of each row, with its own picture, a gray one, or that of a row about another thing."""
        shown = list(rows)
        if pictures == "permuted":
            shown = [rows[index] for index in other_things([row["name"] for row in rows])]
        prompts = []
        for row, text in zip(shown, texts, strict=True):
            path = self.data / row["image"]
            item = MediaItem("blank", blank_image((64, 64))) if pictures == "blind" else MediaItem(path, str(path))
            prompts.append(Prompt("", text, query_media=(item,)))
        return prompts

    def answer(self, prompts: Sequence[Prompt], ends: Sequence[str] = ()) -> list[str]:
        """
        Generate an answer to each prompt. Equal prompts, such as those with gray pictures, are answered once.

        Args:
            prompts (`Sequence[Prompt]`): The prompts.
            ends (`Sequence[str]`, *optional*): Tokens that end an answer, in addition to `<|endofchunk|>`.
        """
        tokenizer = self.processor.tokenizer
        ids = tokenizer.convert_tokens_to_ids([self.processor.end_of_chunk_token, *ends])
        settings = GenerationSettings(self.max_new_tokens, num_beams=1, extra={"eos_token_id": ids})
        return self._once(prompts, lambda unique: self.engine.generate(unique, settings))

    def rank(self, prompts: Sequence[Prompt], names: Sequence[str], space: str) -> list[list[str]]:
        """Sort the names by their likelihood after each prompt, to the end of the chunk, which tells "cat" from "cat face"."""
        candidates = [f"{space}{name}{self.processor.end_of_chunk_token}" for name in names]
        scores = self._once(
            prompts,
            lambda unique: self.engine.rank(unique, [candidates] * len(unique), length_normalized=False),
        )
        return [[names[i] for i in np.argsort(np.negative(row), kind="stable")] for row in scores]

    def _once(self, prompts: Sequence[Prompt], function: Callable[[list[Prompt]], list]) -> list:
        unique = list(dict.fromkeys(prompts))
        self.engine.encode([item for prompt in unique for item in prompt.media])
        return list(map(dict(zip(unique, function(unique), strict=True)).__getitem__, prompts))


def other_things(names: Sequence[str]) -> list[int]:
    """
    Choose for each row the index of a row of another name, each row about equally often, in a fixed order.

    Raises:
        ValueError: all rows have one name.
    """
    if len(set(names)) < 2:
        raise ValueError(
            f"All {len(names)} rows are of {names[:1]}, so no picture of another thing can be shown. Give more."
        )
    order = np.random.RandomState(0).permutation(len(names)).tolist()
    chosen = [0] * len(names)
    for position, index in enumerate(order):
        candidates = (order[(position + 1 + step) % len(order)] for step in range(len(order)))
        chosen[index] = next(other for other in candidates if names[other] != names[index])
    return chosen


def share(answers: Sequence[str], truths: Sequence[str]) -> float:
    """Return the share of answers that are exactly right, ignoring case and white space."""
    return float(np.mean([exact_match(answer, truth) for answer, truth in zip(answers, truths, strict=True)]))


def score_names(scorer: Scorer, space: str) -> tuple[dict[str, Any], list[Row]]:
    """
    Score the names of the unseen house, and of one training house beside it.

    Returns:
        `tuple[dict[str, Any], list[dict]]`: The scores, and a row for each answer about the unseen house.
    """
    rows = named(read_rows(scorer.data / "test.jsonl"))
    names = [row["name"] for row in rows]
    texts = [scorer.processor.image_token] * len(rows)
    answers = {kind: scorer.answer(scorer.prompts(rows, texts, kind)) for kind in ("right", "blind", "permuted")}
    ranked = {kind: scorer.rank(scorer.prompts(rows, texts, kind), names, space) for kind in ("right", "blind")}
    drawings = [row for row in named(read_rows(scorer.data / "train.jsonl")) if row["view"] == 0]
    drawings = [row for row in drawings if row["house"] == drawings[0]["house"]]
    trained = scorer.answer(scorer.prompts(drawings, texts))
    categories = {}
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [index for index, row in enumerate(rows) if row["category"] == category]
        categories[category] = share([answers["right"][i] for i in chosen], [names[i] for i in chosen])
    scores = {
        "count": len(rows),
        "house": rows[0]["house"],
        "exact_match": {kind: share(texts, names) for kind, texts in answers.items()},
        "ranking": {kind: score_ranking(ranking, names) for kind, ranking in ranked.items()},
        "categories": categories,
        "training_house": {
            "house": drawings[0]["house"],
            "exact_match": share(trained, [r["name"] for r in drawings]),
        },
    }
    details = zip(rows, answers["right"], ranked["right"], strict=True)
    return scores, [
        {**row, "answer": answer.strip(), "rank": 1 + order.index(row["name"]), "first": order[:5]}
        for row, answer, order in details
    ]


def score_questions(scorer: Scorer) -> tuple[dict[str, Any], list[Row]]:
    """Score the questions about the unseen house, by question."""
    template = FORMATS["question_answering"]().template
    rows = read_rows(scorer.data / "questions_test.jsonl")
    texts = [scorer.processor.image_token + template.replace("{question}", row["question"]) for row in rows]
    answers = {kind: scorer.answer(scorer.prompts(rows, texts, kind)) for kind in ("right", "blind", "permuted")}
    scores = {}
    for question in dict.fromkeys(row["question"] for row in rows):
        chosen = [index for index, row in enumerate(rows) if row["question"] == question]
        truths = [rows[index]["answer"] for index in chosen]
        scores[question] = {
            "count": len(chosen),
            "most_frequent": max(map(truths.count, truths)) / len(truths),
            **{kind: share([given[index] for index in chosen], truths) for kind, given in answers.items()},
        }
    return scores, [
        {**row, "truth": row["answer"], "answer": answer.strip()}
        for row, answer in zip(rows, answers["right"], strict=True)
    ]


def score_chat(scorer: Scorer) -> tuple[dict[str, Any], list[Row]]:
    """
    Ask "What is this?" in a chat: in the few-shot template of [`FlamingoProcessor`], and in the turns of the language model's own
    template. The recipe says which one was trained: by default the second.

    An answer counts as containing the name if it has the name's words in their order.
    """
    rows = named(read_rows(scorer.data / "test.jsonl"))
    names, tokenizer = [row["name"] for row in rows], scorer.processor.tokenizer
    content = [{"type": "image"}, {"type": "text", "text": CHAT_QUESTION}]
    turns = [{"role": "user", "content": content}]
    prompts = {"flamingo": scorer.processor.apply_chat_template(turns, chat_template="few_shot")}
    # Not the processor's: a model that was trained in the few-shot template has lost this one
    own = scorer.data / "smollm2" / "chat_template.jinja"
    if own.is_file():
        turn = {"role": "user", "content": scorer.processor.image_token + CHAT_QUESTION}
        prompts["language_model"] = tokenizer.apply_chat_template(
            [turn], chat_template=own.read_text(encoding="utf-8"), tokenize=False, add_generation_prompt=True
        )
    scores, details = {}, []
    for template, text in prompts.items():
        given = {
            kind: scorer.answer(scorer.prompts(rows, [text] * len(rows), kind), ends=[tokenizer.eos_token])
            for kind in ("right", "blind", "permuted")
        }
        scores[template] = {
            "prompt": text,
            "count": len(rows),
            "exact_match": {kind: share(answers, names) for kind, answers in given.items()},
            "contains_name": {
                kind: float(np.mean([contains(a, n) for a, n in zip(answers, names, strict=True)]))
                for kind, answers in given.items()
            },
        }
        details += [
            {**row, "chat": template, "answer": answer.strip()}
            for row, answer in zip(rows, given["right"], strict=True)
        ]
    return scores, details


def score_few_shots(
    scorer: Scorer, space: str, arguments: argparse.Namespace, output: Path
) -> tuple[dict[str, Any], list[Row]]:
    """Score made-up words for things that were never trained on, and plot the scores."""
    # Episodes share no examples, so their prompts are answered together
    engine = FewShotEngine(scorer.model, scorer.processor, batch_size=scorer.batch_size, shares_prefix=False)
    scores, details = few_shots.measure_few_shots(
        engine,
        scorer.data,
        test_house=read_record(scorer.data)["test_house"],
        ways=arguments.ways,
        shots=arguments.shots,
        count=arguments.episodes,
        space=space,
    )
    few_shots.plot_few_shots(output / few_shots.PLOT, scores["scores"])
    return scores, details


def contains(answer: str, name: str) -> bool:
    """Tell whether an answer has the words of a name in their order."""
    return re.search(rf"\b{re.escape(name.casefold())}\b", answer.casefold()) is not None


def named(rows: Sequence[Row]) -> list[Row]:
    """Give rows of captions their text as `name`, which rows of questions have already."""
    return [{**row, "name": row["text"]} for row in rows]


def write_sheets(scorer: Scorer, predictions: Sequence[Row], output: Path) -> dict[str, str]:
    """
    Draw contact sheets, half right answers and half wrong ones where there are enough.

    A sheet of an unseen house whose drawings may not be shown is for this machine only. The one to publish then has training drawings,
    and things held out, of houses whose drawings may be shown.

    Returns:
        `dict[str, str]`: What each file shows.
    """
    house = predictions[0]["house"]
    sheets = {"contact-sheet.png" if house in LICENSED_HOUSES else "contact-sheet-private.png": house}
    write_sheet(output / next(iter(sheets)), scorer.data, choose_shown(predictions, NUM_SHOWN))
    if house not in LICENSED_HOUSES:
        shown = []
        for name in ("train", "held_out"):
            rows = [
                row
                for row in named(read_rows(scorer.data / f"{name}.jsonl"))
                if row["house"] in LICENSED_HOUSES and row["view"] == 0
            ]
            rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(NUM_SHOWN, len(rows))).astype(int)]
            answers = scorer.answer(scorer.prompts(rows, [scorer.processor.image_token] * len(rows)))
            rows = [{**row, "answer": answer.strip()} for row, answer in zip(rows, answers, strict=True)]
            shown += choose_shown(rows, NUM_SHOWN // 2)
        write_sheet(output / "contact-sheet.png", scorer.data, shown)
        sheets["contact-sheet.png"] = (
            f"{', '.join(LICENSED_HOUSES)}: first drawings that were trained on, then things never trained on"
        )
    return sheets


def choose_shown(predictions: Sequence[Row], count: int) -> list[Row]:
    """Choose predictions evenly over all, half of them right and half wrong if there are enough, in their order."""
    is_right = [exact_match(row["answer"], row["name"]) for row in predictions]
    groups = [[i for i, right in enumerate(is_right) if right == wanted] for wanted in (True, False)]
    wanted = [min(len(groups[0]), max(count // 2, count - len(groups[1]))), 0]
    wanted[1] = min(len(groups[1]), count - wanted[0])
    chosen = [
        group[i]
        for group, number in zip(groups, wanted, strict=True)
        for i in np.linspace(0, len(group) - 1, number).astype(int)
    ]
    return [predictions[index] for index in sorted(chosen)]


def write_sheet(path: Path, data: Path, rows: Sequence[Row]) -> None:
    """Draw the pictures of rows with their answers."""
    images = []
    for row in rows:
        with Image.open(data / row["image"]) as image:
            images.append(image.convert("RGB"))
    plot_captions(
        path, images, [row["answer"] or "(nothing)" for row in rows], [row["name"] for row in rows], columns=8
    )


def update_docs(path: Path, name: str, text: str) -> None:
    """
    Replace the block of a page between `<!-- real-pictures NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: the page has no such block.
    """
    page = path.read_text(encoding="utf-8")
    start, end = f"<!-- real-pictures {name} -->\n", "<!-- end -->"
    before, found, rest = page.partition(start)
    if not found or end not in rest:
        raise ValueError(
            f"{path} has no block {start.strip()!r} with a {end!r} after it. Add both where the tables should be."
        )
    write_text(path, f"{before}{start}{text.strip()}\n{end}{rest.partition(end)[2]}")


def make_command(arguments: argparse.Namespace) -> str:
    """Return the command that gives these scores: what is scored, and what of it is not the default."""
    options = f"{arguments.model} --data {arguments.data} --parts {' '.join(arguments.parts)}"
    if "few_shots" in arguments.parts:
        defaults = make_parser()
        for name in ("ways", "shots", "episodes"):
            value = getattr(arguments, name)
            if value != defaults.get_default(name):
                options += f" --{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
    return f"python benchmarks/real_pictures/score.py {options}"


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    Score what the arguments ask for, and write the output folder.

    Raises:
        FileNotFoundError: the data were not prepared.
        ValueError: the options do not fit. This is said before the model is read.
    """
    data = read_record(arguments.data)
    if arguments.batch_size < 1:
        raise ValueError(f"`--batch-size` is {arguments.batch_size}. It is a number of prompts: at least 1.")
    if "few_shots" in arguments.parts:
        few_shots.check_options(
            arguments.data, arguments.ways, arguments.shots, arguments.episodes, data["test_house"]
        )
    model, processor = load_flamingo(arguments.model, device=arguments.device)
    scorer = Scorer(model, processor, arguments.data, arguments.batch_size)
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "command": make_command(arguments),
        "data": data,
        "vision": model.config.vision_config.model_type,
        "text": model.config.text_config.model_type,
        "blocks": model.config.cross_attention_layer_indices,
        "seconds": {},
    }
    space = "" if arguments.no_leading_space else " "
    functions = {
        "names": lambda: score_names(scorer, space),
        "questions": lambda: score_questions(scorer),
        "chat": lambda: score_chat(scorer),
        "few_shots": lambda: score_few_shots(scorer, space, arguments, output),
        "neighbors": lambda: (measure_neighbors(arguments.data, model.vision_model, processor.image_processor), []),
    }
    predictions: list[Row] = []
    for part in (part for part in PARTS if part in arguments.parts):
        started = time.perf_counter()
        record[part], details = functions[part]()
        predictions += [{"part": part, **row} for row in details]
        if part == "names":
            record["sheets"] = write_sheets(scorer, details, output)
        record["seconds"][part] = round(time.perf_counter() - started, 1)
    text = render_card(TEMPLATE, record=record)
    write_text(output / "score.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(output / "score.md", text)
    write_text(
        output / "predictions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    )
    if arguments.docs is not None:
        update_docs(arguments.docs, arguments.name, text)
        if "few_shots" in record:
            shutil.copy(output / few_shots.PLOT, arguments.docs.parent / few_shots.PLOT)
    return record


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the trained model")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["names", "neighbors"], help="what to score")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts answered together (default: %(default)s)")
    parser.add_argument("--device", help="device of the model (default: the accelerator, if there is one)")
    parser.add_argument(
        "--no-leading-space", action="store_true", help="names were trained without a space before them"
    )
    for name, numbers in (("ways", few_shots.WAYS), ("shots", few_shots.SHOTS)):
        parser.add_argument(
            f"--{name}", nargs="+", type=int, default=numbers, help=f"{name} of few_shots (default: {numbers})"
        )
    parser.add_argument(
        "--episodes",
        type=int,
        default=few_shots.NUM_EPISODES,
        help="episodes behind each figure of few_shots (default: %(default)s)",
    )
    parser.add_argument("--docs", type=Path, help="page whose block is replaced")
    parser.add_argument("--name", help="name of the block")
    return parser


def main() -> None:
    """Score a model."""
    parser = make_parser()
    arguments = parser.parse_args()
    if (arguments.docs is None) != (arguments.name is None):
        parser.error("`--docs` and `--name` belong together: a page, and the block in it.")
    try:
        score(arguments)
        print((arguments.output / "score.md").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
