# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Predictions of many images in one file, made by any number of processes, that an interruption does not lose.

Each process appends its predictions to a file of its own as they are made, `OUT.parts/RANK.jsonl`. When all are there, the main process
joins them in the order of the input. What was made is read again by the next run, which makes the rest.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import tee
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers.utils import logging

from ..saving_flamingo import write_file, write_json
from ..utils.folders import call_on_main_process, check_folder_is_shared, lock_folder
from ..utils.redaction import redact_values
from .predictor import FewShotPrediction, FewShotPredictor
from .sources import Query, QueryFiles


logger = logging.get_logger(__name__)

Position = tuple[int, int, int]

#: Suffixes of the files that are written.
SUFFIXES = (".parquet", ".jsonl")
_SETTINGS = "settings.json"
# Rows of a row group of Parquet
_GROUP_ROWS = 8192
# After this many errors and no prediction, it is not the images that are wrong
_MAX_FIRST_ERRORS = 256


def check_output(out: str | os.PathLike) -> Path:
    """
    Check the name of a file of predictions.

    Raises:
        ValueError: its suffix is not one of `SUFFIXES`.
        FileExistsError: it exists, and this command did not write it.
    """
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"The output is {str(path)!r}. Its name must end with {' or '.join(SUFFIXES)}.")
    if path.exists() and not _info_path(path).is_file() and not _parts_folder(path).is_dir():
        raise FileExistsError(
            f"{str(path)!r} exists, and it is not of `flamingo predict`. Give another name, or remove it."
        )
    return path


def _info_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.info.json")


def _parts_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def predict_files(
    predictor: FewShotPredictor,
    source: QueryFiles,
    out: str | os.PathLike,
    *,
    demonstration_ids: Sequence[str],
    settings: dict[str, Any],
    state: PartialState,
    top_candidates: int | None = None,
) -> dict[str, Any]:
    """
    Predict all rows of files, and write `out` with a row for each, in their order: `id`, `image`, `question`, `text`, `probability`,
    `probabilities` (the candidates with theirs, the most likely first), `demonstrations` and `error`.

    Next to it is `OUT.info.json` with the settings and the return value. Under `accelerate launch` or `torchrun` the processes share the rows.

    Args:
        predictor ([`FewShotPredictor`]): The predictor, with `on_error="skip"`.
        source ([`QueryFiles`]): The rows.
        out (`str`): The file, `.parquet` or `.jsonl`.
        demonstration_ids (`Sequence[str]`): Names of the demonstrations.
        settings (`dict`): What the predictions depend on. What was made with other settings is refused.
        state (`PartialState`): The processes.
        top_candidates (`int`, *optional*): Number of candidates whose probabilities are written. By default all.

    Returns:
        `dict` with `rows`, `errors`, `seconds` and `images_per_second` of this run, and `resumed`, the number of rows that were there already.

    Raises:
        ValueError: the earlier predictions are of other settings, or no row could be predicted.
        OSError: another run writes the same file, another machine does not see it, or predictions that were written are gone.
    """
    path, settings = Path(out), redact_values(settings)
    with ExitStack() as lock:
        finished = call_on_main_process(lambda: _take(path, settings, lock))
        if finished is not None:
            return finished
        parts = _parts_folder(path)
        check_folder_is_shared(parts, "the predictions")
        done = {position for position, *_ in _read_places(parts)}
        resumed = len(done)
        state.wait_for_everyone()  # all processes have read before one of them writes
        predictor.build_index(state)
        writer = _Writer(predictor, demonstration_ids, top_candidates)
        start = time.monotonic()
        count = writer.write(parts / f"{state.process_index}.jsonl", source, done, state)
        seconds = time.monotonic() - start
        state.wait_for_everyone()
        count = sum(gather_object([count]))
        return call_on_main_process(lambda: _finish(path, count, seconds, resumed, settings))


def _take(path: Path, settings: dict[str, Any], lock: ExitStack) -> dict[str, Any] | None:
    """Lock the parts of a file, and check that they are of these settings. Return the summary of a file that is finished."""
    info = _info_path(path)
    if path.is_file() and info.is_file():
        saved = _read_json(info)
        _check_settings(path, saved.get("settings"), settings)
        shutil.rmtree(_parts_folder(path), ignore_errors=True)  # of a run that was killed at its very end
        return {**saved["summary"], "resumed": saved["summary"]["rows"]}
    parts = _parts_folder(path)
    message = (
        f"Another run is writing {str(path)!r}. Wait until it ends, or give another name. To share the work between processes, start them with "
        "`accelerate launch` or `torchrun`."
    )
    lock.enter_context(lock_folder(parts, ".lock", message=message))
    if (parts / _SETTINGS).is_file():
        _check_settings(path, _read_json(parts / _SETTINGS), settings)
    else:
        write_json(parts / _SETTINGS, settings)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}), so it is unknown how the predictions beside it were made. Delete them, or give another "
            "output."
        ) from error


def _check_settings(path: Path, saved: Any, settings: dict[str, Any]) -> None:
    saved = saved if isinstance(saved, dict) else {}
    settings = json.loads(json.dumps(settings))
    changed = [name for name in settings if saved.get(name) != settings[name]]
    if changed:
        before, now = ({name: values.get(name) for name in changed} for values in (saved, settings))
        raise ValueError(
            f"{str(path)!r} has predictions with other {', '.join(changed)}: saved {before}, current {now}. Give another output, or delete "
            f"{path.name}, {_info_path(path).name} and {_parts_folder(path).name}."
        )


def _read_places(parts: Path) -> Iterator[tuple[Position, Path, int]]:
    """Yield the position of each prediction that was written, with its file and the place of its line in it."""
    for file in sorted(parts.glob("*.jsonl")):
        with open(file, "rb") as lines:
            place = 0
            for line in lines:
                if line.endswith(b"\n"):  # otherwise it was cut off
                    try:
                        yield tuple(json.loads(line)["position"]), file, place
                    except (ValueError, KeyError, TypeError):
                        logger.warning(f"{str(file)!r} has a damaged line, whose row is predicted again.")
                place += len(line)


class _Writer:
    """Makes predictions and appends them to a file."""

    def __init__(self, predictor: FewShotPredictor, demonstration_ids: Sequence[str], top_candidates: int | None):
        self.predictor, self.demonstration_ids, self.top_candidates = predictor, demonstration_ids, top_candidates

    def write(self, path: Path, source: QueryFiles, done: set[Position], state: PartialState) -> int:
        """Predict the rows of this process that are not done, and return the number of all of its rows."""
        if path.is_file():  # a line that was cut off must not run into the next
            os.truncate(path, _end_of_lines(path))
        count = num_errors = num_written = 0

        def remaining() -> Iterator[Query]:
            nonlocal count
            for query in source.queries(state.process_index, state.num_processes):
                count += 1
                if query.position not in done:
                    yield query

        rows, asked = tee(remaining())
        total = source.count() if state.is_main_process else None
        with (
            open(path, "a", encoding="utf-8") as file,
            tqdm(
                total=total,
                initial=len(done),
                desc=self.predictor.task,
                unit="image",
                smoothing=0.05,
                disable=not state.is_main_process,
            ) as bar,
        ):
            predictions = self.predictor.predict_examples(query.example for query in asked)
            for query, prediction in zip(rows, predictions, strict=True):
                file.write(json.dumps(self._record(query, prediction), ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                num_written += 1
                num_errors += prediction.error is not None
                if num_errors == num_written == _MAX_FIRST_ERRORS and not done:
                    raise ValueError(
                        f"None of the first {num_written} rows could be predicted, so something is wrong with all of them. The last error: "
                        f"{prediction.error}"
                    )
                if state.is_main_process:
                    bar.update(min(state.num_processes, (total or count * state.num_processes) - bar.n))
                    if num_errors:
                        bar.set_postfix(errors=num_errors, refresh=False)
        return count

    def _record(self, query: Query, prediction: FewShotPrediction) -> dict[str, Any]:
        probabilities = None
        if prediction.probabilities is not None:
            ordered = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[: self.top_candidates]
            probabilities = [{"candidate": text, "probability": value} for text, value in ordered]
        return {
            "position": query.position,
            "id": _as_utf8(query.id),
            "image": _as_utf8(query.image),
            "question": _as_utf8(query.question),
            "text": prediction.text,
            "probability": prediction.score,
            "probabilities": probabilities,
            "demonstrations": [_as_utf8(self.demonstration_ids[number]) for number in prediction.demonstrations],
            "error": _as_utf8(prediction.error),
        }


def _as_utf8(text: str | None) -> str | None:
    """Return a text that can be written: in the name of a file, a byte that is not UTF-8 becomes its escape."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _end_of_lines(path: Path) -> int:
    """Return the number of bytes up to the last line break."""
    with open(path, "rb") as file:
        end = 0
        for line in file:
            end += len(line) if line.endswith(b"\n") else 0
    return end


def _finish(path: Path, count: int, seconds: float, resumed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Join the parts of all processes into one file, and remove them."""
    parts = _parts_folder(path)
    places: dict[Position, tuple[Path, int]] = {}
    for position, file, place in _read_places(parts):
        places.setdefault(position, (file, place))
    if len(places) != count:
        raise OSError(
            f"{str(parts)!r} has {len(places)} predictions of {count} rows: some are gone, or the input has changed meanwhile. Start again "
            "with another output."
        )
    num_errors, first_error = 0, None
    with ExitStack() as stack:
        files = {file: stack.enter_context(open(file, "rb")) for file in sorted(parts.glob("*.jsonl"))}

        def records() -> Iterator[dict[str, Any]]:
            nonlocal num_errors, first_error
            for position in sorted(places):
                file, place = places[position]
                files[file].seek(place)
                record = json.loads(files[file].readline())
                del record["position"]
                num_errors += record["error"] is not None
                first_error = first_error or record["error"]
                yield record

        temporary = stack.enter_context(write_file(path))
        (_write_parquet if path.suffix == ".parquet" else _write_lines)(temporary, records())
    made = count - resumed
    summary = {
        "rows": count,
        "errors": num_errors,
        "first_error": first_error,
        "resumed": resumed,
        "seconds": round(seconds, 3),
        "images_per_second": round(made / seconds, 3) if seconds > 0 and made else None,
    }
    write_json(_info_path(path), {"summary": summary, "settings": settings})
    shutil.rmtree(parts, ignore_errors=True)
    return summary


def _write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with open(path, "x", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _write_parquet(path: Path, records: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.string()
    schema = pa.schema(
        {
            "id": text,
            "image": text,
            "question": text,
            "text": text,
            "probability": pa.float64(),
            "probabilities": pa.list_(pa.struct({"candidate": text, "probability": pa.float64()})),
            "demonstrations": pa.list_(text),
            "error": text,
        }
    )
    with parquet.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []
        for record in records:
            rows.append(record)
            if len(rows) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
