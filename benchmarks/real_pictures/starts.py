# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Compare how a new Flamingo starts: with closed gates or with last projections of 0, on features as they are or standardized, with
large, small or standardized latents, and with a resampler that learns as fast as the rest or slowly.

    python benchmarks/real_pictures/prepare.py real-pictures --views 8
    python benchmarks/real_pictures/starts.py real-pictures --only setting=miniature images=300
    python benchmarks/real_pictures/starts.py --table docs/real-pictures-log.md

Each arm is a short training. It appends a line to the results, and arms that are there already are skipped, so a run can be
interrupted and continued. Without a folder nothing is trained, and `--table` writes the tables of what is there.

On a machine with more cores, or with a GPU, several processes share the arms and one file of results. What they all need is made
before, once:

    python benchmarks/real_pictures/starts.py real-pictures --only setting=smollm2 --device cuda --material
    for i in 0 1 2 3; do
        python benchmarks/real_pictures/starts.py real-pictures --only setting=smollm2 --device cuda --part $i/4 &
    done
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any


RESULTS = Path(__file__).parents[1] / "results" / "real-pictures-starts.jsonl"
BLOCK = "starts"

STARTS = ("gates", "projections", "gates x20")
FEATURES = ("raw", "standardized")
# Features and latents
BOTH = "both standardized"
# Without statistics of the training images: experiments of `start_training.TRANSFORMS`, in one setting
EXPERIMENTS = ("minus batch mean", "minus image mean", "minus learned")
LANGUAGE_MODELS = ("frozen", "trained")
SEEDS = (0, 1, 2)
# Standard deviations of the resampler's latents at the start: that of OpenFlamingo and flamingo-mini, that of the class, and a small one
PEERS_LATENTS, DRAWN_LATENTS, SMALL_LATENTS = 1.0, 0.3, 0.02
# Learning rate multipliers of the resampler
FAST, SLOW = 1.0, 0.1
_SETTINGS = tuple(product(("miniature", "own_tower", "smollm2"), (300, 3000)))
GROUPS = (
    *((*group, STARTS, FEATURES, PEERS_LATENTS, FAST) for group in _SETTINGS),
    ("miniature", 300, STARTS[:2], EXPERIMENTS, PEERS_LATENTS, FAST),
    *((*group, STARTS, FEATURES[1:], SMALL_LATENTS, FAST) for group in _SETTINGS),
    *(
        (*group, STARTS, (FEATURES[1], BOTH), DRAWN_LATENTS, rate)
        for group in _SETTINGS
        if group[1] == 300
        for rate in (FAST, SLOW)
    ),
)
COMPARISONS = (
    ("start", "gates", "projections"),
    ("start", "gates", "gates x20"),
    ("start", "gates x20", "projections"),
    *(("features", "raw", other) for other in (*FEATURES[1:], *EXPERIMENTS)),
    ("features", "standardized", BOTH),
    ("latents", PEERS_LATENTS, SMALL_LATENTS),
    ("latents", PEERS_LATENTS, DRAWN_LATENTS),
    ("resampler", FAST, SLOW),
)


@dataclass(frozen=True)
class Arm:
    """
    A training to compare with others.

    Args:
        setting (`str`): Vision encoder and language model: a name of `start_training.SETTINGS`.
        images (`int`): Number of training images.
        language_model (`str`): `"frozen"` or `"trained"`.
        start (`str`): One of `STARTS`.
        features (`str`): One of `FEATURES` or `EXPERIMENTS`, or `BOTH`.
        latents (`float`): Standard deviation of the resampler's latents at the start.
        resampler (`float`): Learning rate multiplier of the resampler.
        seed (`int`): Of the new parts and of the order of the rows.
    """

    setting: str
    images: int
    language_model: str
    start: str
    features: str
    latents: float
    resampler: float
    seed: int

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "Arm":
        """Return the arm that a line of the results is about."""
        return cls(**{field.name: line[field.name] for field in fields(cls)})


Line = dict[str, Any]


def all_arms() -> Iterator[Arm]:
    """Yield all arms in the order in which they run: in each group the first seed first."""
    for setting, images, starts, features, latents, resampler in GROUPS:
        for seed, language_model, feature, start in product(SEEDS, LANGUAGE_MODELS, features, starts):
            yield Arm(setting, images, language_model, start, feature, latents, resampler, seed)


def select_arms(filters: Sequence[str]) -> list[Arm]:
    """
    Select arms.

    Args:
        filters (`Sequence[str]`): `FIELD=VALUE` or `FIELD=VALUE,VALUE`, all of which must hold.

    Raises:
        ValueError: a filter names no field, or a value that no arm has.
    """
    arms = list(all_arms())
    for text in filters:
        name, _, values = text.partition("=")
        known = {field.name for field in fields(Arm)}
        if name not in known:
            raise ValueError(f"`--only {text}` names no field of an arm. Fields are {', '.join(sorted(known))}.")
        wanted = values.split(",")
        present = {str(getattr(arm, name)) for arm in all_arms()}
        if unknown := [value for value in wanted if value not in present]:
            raise ValueError(f"`--only {text}`: no arm has {name} {unknown[0]!r}, but {', '.join(sorted(present))}.")
        arms = [arm for arm in arms if str(getattr(arm, name)) in wanted]
    return arms


def take_part(arms: Sequence[Arm], part: str) -> list[Arm]:
    """
    Take the arms of one of several processes: every `N`-th, so that each has some of all kinds.

    Args:
        arms (`Sequence[Arm]`): The arms of all processes, whether they ran or not, so that all processes count alike.
        part (`str`): `I/N`, with `I` from 0.

    Raises:
        ValueError: it is something else.
    """
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"`--part {part}` is not I/N with I from 0 to N - 1, such as 0/4.")
    return list(arms[int(index) :: int(count)])


def read_lines(path: Path) -> list[Line]:
    """
    Read the results that are there. There are none if there is no file.

    Raises:
        ValueError: a line is broken, or an arm is there twice.
    """
    if not path.is_file():
        return []
    lines: dict[Arm, Line] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            arm = Arm.of_line(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Line {number} of {path} is not the result of an arm ({error!r}). Delete it, and its arm runs again."
            ) from error
        except KeyError as error:
            raise ValueError(
                f"Line {number} of {path} is not the result of an arm: it has no {error}. Add what it was, or delete the line, and "
                f"its arm runs again. (Lines of before `resampler` was a field had {FAST}.)"
            ) from error
        if arm in lines:
            raise ValueError(f"Line {number} of {path} repeats an arm: {arm}. Delete one of the two lines.")
        lines[arm] = line
    return list(lines.values())


def missing_arms(arms: Sequence[Arm], lines: Sequence[Line]) -> list[Arm]:
    """Return the arms that have no line yet, in their order."""
    done = {Arm.of_line(line) for line in lines}
    return [arm for arm in arms if arm not in done]


def append_line(path: Path, arm: Arm, result: Mapping[str, Any]) -> None:
    """Append the result of an arm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(
        "a", encoding="utf-8"
    ) as file:  # written at once when it is closed: other processes append to it too
        file.write(json.dumps({**asdict(arm), **result}) + "\n")


def format_tables(lines: Sequence[Line]) -> str:
    """Format results as two tables: the losses of each arm over its seeds, and what is better in how many pairs of arms."""
    return f"{format_losses(lines)}\n\n{format_comparisons(lines)}"


def format_losses(lines: Sequence[Line]) -> str:
    """Format the mean losses of each arm over its seeds, and the range of their differences."""
    by_arm: dict[tuple, list[Line]] = {}
    for arm in all_arms():
        found = [line for line in lines if Arm.of_line(line) == arm]
        key = (arm.setting, arm.images, arm.language_model, arm.start, arm.features, arm.latents, arm.resampler)
        by_arm.setdefault(key, []).extend(found)
    header = ["setting", "images", "language model", "start", "features", "latents", "resampler", "seeds", "before"]
    header += ["train: own image", "another", "difference", "unseen house: own image", "another", "difference"]
    rows = []
    for key, found in by_arm.items():
        if not found:
            continue
        cells = [*map(str, key), str(len(found)), f"{_mean([line['before'] for line in found]):.2f}"]
        for part in ("train", "unseen"):
            own, other = ([line[part][kind] for line in found] for kind in ("own", "other"))
            differences = [b - a for a, b in zip(own, other, strict=True)]
            span = f" ({min(differences):.2f} to {max(differences):.2f})" if len(found) > 1 else ""
            cells += [f"{_mean(own):.2f}", f"{_mean(other):.2f}", f"{_mean(differences):.2f}{span}"]
        rows.append(cells)
    return _markdown(header, rows)


def format_comparisons(lines: Sequence[Line]) -> str:
    """Format, for pairs of arms that differ in one field, how often the second has the lower loss with its own images."""
    results = {Arm.of_line(line): line for line in lines}
    header = ["setting", "images", "language model", "latents", "resampler", "this", "better than", "pairs"]
    header += ["train: lower in", "mean change", "unseen house: lower in", "mean change"]
    rows = []
    groups = dict.fromkeys(map(_group_of, all_arms()))
    for group, (name, first, second) in product(groups, COMPARISONS):
        pairs = []
        for arm, line in results.items():
            if _group_of(arm) == group and getattr(arm, name) == second:
                other = results.get(Arm(**{**asdict(arm), name: first}))
                pairs += [] if other is None else [(other, line)]
        if not pairs:
            continue
        cells = [*map(str, group), str(second), str(first), str(len(pairs))]
        for part in ("train", "unseen"):
            changes = [line[part]["own"] - other[part]["own"] for other, line in pairs]
            cells += [str(sum(change < 0 for change in changes)), f"{_mean(changes):+.2f}"]
        rows.append(cells)
    return _markdown(header, rows)


def _group_of(arm: Arm) -> tuple:
    return arm.setting, arm.images, arm.language_model, arm.latents, arm.resampler


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def run_arms(arms: Sequence[Arm], arguments: argparse.Namespace) -> None:
    """Train arms, and append their results. With `--material` only make what they need."""
    from pictures import read_record
    from start_training import SETTINGS, Workshop, train_arm  # imports torch, which the tables do not need

    read_record(arguments.data)  # no folder of a name that was mistyped
    work = arguments.work or arguments.data / "starts"
    work.mkdir(parents=True, exist_ok=True)
    workshop = Workshop(arguments.data, arguments.downloads or arguments.data / "downloads", work, arguments.device)
    if arguments.material:
        for made_for in dict.fromkeys((arm.setting, arm.images) for arm in arms):
            workshop.make(*made_for)
        return
    material, made_for = None, None
    for arm in arms:
        if made_for != (arm.setting, arm.images):
            material, made_for = workshop.make(arm.setting, arm.images), (arm.setting, arm.images)
        options = {key: value for key, value in asdict(arm).items() if key not in ("setting", "images")}
        result = train_arm(material, SETTINGS[arm.setting], **options)
        append_line(arguments.results, arm, result)
        print(json.dumps({**asdict(arm), **result}), flush=True)


def make_argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder that prepare.py wrote. Without it nothing is trained"
    )
    parser.add_argument("--downloads", type=Path, help="folder of the packages (default: `downloads` in the folder)")
    parser.add_argument("--work", type=Path, help="folder for features and models (default: `starts` in the folder)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="FIELD=VALUE[,VALUE]", help="arms to run")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="arms of process I of N, from 0 (default: all)")
    parser.add_argument("--device", default="cpu", help="where arms are trained, such as cuda (default: %(default)s)")
    parser.add_argument("--material", action="store_true", help="make what the arms need, and train none")
    parser.add_argument("--list", action="store_true", help="list the arms that would run, and stop")
    parser.add_argument("--table", type=Path, help=f"page whose block `{BLOCK}` gets the tables")
    return parser


def main() -> None:
    """Run arms that are missing, and write the tables."""
    from packages import PackageError

    parser = make_argument_parser()
    arguments = parser.parse_args()
    try:
        arms = take_part(select_arms(arguments.only), arguments.part)
        arms = missing_arms(arms, read_lines(arguments.results))
        if arguments.list:
            print("\n".join(map(str, arms)))
            return
        if arguments.data is not None:
            run_arms(arms, arguments)
        if arguments.table is not None:
            from score import update_docs

            update_docs(arguments.table, BLOCK, format_tables(read_lines(arguments.results)))
    except (PackageError, ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
