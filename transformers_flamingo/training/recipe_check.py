# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Look at the data and the schedule of a recipe without training: `flamingo check` and `flamingo train --dry_run`."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..cards.contact_sheet import draw_contact_sheet
from ..processing_flamingo import FlamingoProcessor
from ..utils.names import count_of
from ..utils.redaction import redact
from .arguments import FlamingoTrainingArguments
from .build import build_processor, check_model, read_text_config
from .checks import check_arguments_for_mixture, choose_best_metric
from .data_source import DataSource
from .recipe import Recipe
from .schedule_checks import check_schedule, count_epoch_steps, describe_many_answers, find_doubts
from .source_check import SeenRow, SourceCheck, check_source, readable_formats
from .text_checks import count_rows_per_step


CONTACT_SHEET_NAME = "contact_sheet.png"

_MAX_SHOWN_TEXT = 160


@dataclass
class DataCheck:
    """
    Findings of [`check_recipe`] or [`check_data`].

    Args:
        sources (`list[SourceCheck]`): The sources.
        errors (`list[str]`): Why a training would fail, or could not learn. Bad rows are in `sources`.
        warnings (`list[str]`): What is hardly meant.
        skips_bad_rows (`bool`): Whether bad rows are skipped in the training instead of being errors.
    """

    sources: list[SourceCheck]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skips_bad_rows: bool = False

    @property
    def num_errors(self) -> int:
        """Return the number of errors, bad rows included unless they are skipped."""
        bad = 0 if self.skips_bad_rows else sum(source.num_bad for source in self.sources)
        return len(self.errors) + bad

    def describe(self, *, num_rows: int = 3, max_errors: int = 20) -> str:
        """
        Describe everything in words: counts of each source, its first rows, and all errors and warnings.

        Args:
            num_rows (`int`, *optional*, defaults to 3): Number of rows of each source that are shown.
            max_errors (`int`, *optional*, defaults to 20): Maximum number of bad rows of each source that are listed.
        """
        lines: list[str] = []
        for source in self.sources:
            lines += [*_describe_counts(source), *_describe_rows(source, num_rows), ""]
        for source in self.sources:
            lines += _describe_bad_rows(source, max_errors, "skipped" if self.skips_bad_rows else "error")
        lines += [f"error: {message}" for message in self.errors]
        lines += [f"warning: {message}" for message in self.warnings]
        lines.append(f"{count_of(self.num_errors, 'error')}, {count_of(len(self.warnings), 'warning')}")
        return "\n".join(lines)

    def draw(self, directory: str | Path) -> Path | None:
        """Draw the first images of each source into `contact_sheet.png` of a folder, and return its path if there are any."""
        sections = {
            f"{source.name}: what the vision encoder gets, and what is learned": [
                tile for row in source.first for tile in row.tiles
            ][:12]
            for source in self.sources
        }
        sections = {heading: tiles for heading, tiles in sections.items() if tiles}
        if not sections:
            return None
        path = Path(directory) / CONTACT_SHEET_NAME
        draw_contact_sheet(path, sections)
        return path


def check_recipe(recipe: Recipe, *, max_rows: int | None = None) -> DataCheck:
    """
    Read all data of a recipe with its processor, and check its schedule and the parts of its model. No weights are read and nothing
    is trained.

    Args:
        recipe ([`Recipe`]): The recipe.
        max_rows (`int`, *optional*): Maximum number of rows of each source. By default all are read.

    Returns:
        [`DataCheck`]: what was found, errors included.

    Raises:
        ValueError, OSError: the processor of the recipe cannot be built.
    """
    processor = build_processor(recipe.model)
    positions = getattr(read_text_config(recipe.model), "max_position_embeddings", None)
    findings = DataCheck([])
    with _noting(findings):
        check_model(recipe.model, processor)
    sources = [
        check_source(source.limit_length(positions), processor, is_held_out=is_held_out, max_rows=max_rows)
        for is_held_out, of_kind in ((False, recipe.data), (True, recipe.evaluation))
        for source in of_kind
    ]
    check = DataCheck(sources, findings.errors, skips_bad_rows=recipe.training.skip_bad_samples)
    _judge_sources(check)
    trained = [source for source in sources if not source.is_held_out]
    has_gates = (recipe.model.model_config or {}).get("cross_attention_gating") != "none"
    _judge_schedule(check, recipe.training, trained, has_gates)
    with _noting(check):
        choose_best_metric(copy.copy(recipe.training), {source.name: source for source in recipe.evaluation} or None)
    return check


def check_data(
    source: DataSource,
    processor: FlamingoProcessor,
    *,
    held_out: DataSource | None = None,
    max_rows: int | None = None,
) -> DataCheck:
    """
    Read all rows of a source with a processor.

    Args:
        source ([`DataSource`]): The source.
        processor ([`FlamingoProcessor`]): Of the model that is to be trained.
        held_out ([`DataSource`], *optional*): The data for its evaluation.
        max_rows (`int`, *optional*): Maximum number of rows of each. By default all are read.

    Returns:
        [`DataCheck`]: what was found, errors included.
    """
    checked = check_source(source, processor, max_rows=max_rows)
    check = DataCheck([checked])
    if held_out is not None:
        check.sources.append(check_source(held_out, processor, is_held_out=True, max_rows=max_rows))
    _judge_sources(check)
    formats = readable_formats(source) if checked.rows and not checked.good else []
    # Rows of its own format whose images are missing are bad rows too
    formats = [] if source.format in formats else formats
    if formats:
        check.warnings.append(
            f"No row has the format {source.format!r}, but some of the first ones have {' and '.join(map(repr, formats))}. Give "
            f"`--format {formats[0]}`."
        )
    return check


def _judge_sources(check: DataCheck) -> None:
    for source in check.sources:
        if source.failure is not None:
            check.errors.append(f"{source.name}: {source.failure}")
        elif not source.good:
            check.errors.append(f"{source.name}: none of its {source.rows:,} rows can be used.")
        if source.words.unknown:
            # What is evaluated is not learned, so it spoils no model
            is_error = source.words.is_too_large and not source.is_held_out
            (check.errors if is_error else check.warnings).append(
                f"{source.name}: {source.words.describe('generate' if source.is_held_out else 'learn')}"
            )
        if source.read_words.is_too_large:
            check.warnings.append(f"{source.name}: {source.read_words.describe('read')}")
        if source.repeated:
            check.warnings.append(
                f"{source.name}: {count_of(source.repeated, 'row')} repeated with the same text and the same images, first in "
                f"{source.repetition}. What is repeated is learned more than the rest: remove it if that is not meant."
            )
    for held_out in (source for source in check.sources if source.is_held_out):
        for source in (source for source in check.sources if not source.is_held_out):
            both = len(source.rows_of_images.keys() & held_out.rows_of_images.keys())
            if both:
                check.warnings.append(
                    f"{held_out.name}: {both:,} of its {len(held_out.rows_of_images):,} different images are in {source.name} too, so its "
                    "scores do not tell how the model does on new images. Hold out other images."
                )


@contextmanager
def _noting(check: DataCheck) -> Iterator[None]:
    """Note an error instead of raising it."""
    try:
        yield
    except ValueError as error:
        check.errors.append(str(error))


def _judge_schedule(
    check: DataCheck, args: FlamingoTrainingArguments, trained: Sequence[SourceCheck], has_gates: bool
) -> None:
    sources, micro_batches = [source.source for source in trained], args.gradient_accumulation_steps
    max_steps = args.max_steps
    with _noting(check):
        check_arguments_for_mixture(args, sources)
    if max_steps <= 0 and trained[0].failure is None:  # otherwise its rows are not known, which is an error already
        with _noting(check):
            num_rows = None if sources[0].streaming else trained[0].total
            max_steps = count_epoch_steps(args, sources, num_rows, micro_batches)
    if max_steps > 0:
        check.warnings += find_doubts(args, max_steps)
        with _noting(check):
            check_schedule(args, max_steps, has_gates=has_gates)
    for source in trained if max_steps > 0 else []:
        if source.answers.count > max_steps:
            rows_per_step = count_rows_per_step(source.source, args, len(sources), micro_batches)
            is_sample = source.total is None or source.rows < source.total
            text = describe_many_answers(source.answers.count, max_steps, rows_per_step, at_least=is_sample)
            check.warnings.append(f"{source.name}: {text}")


def _describe_counts(check: SourceCheck) -> Iterator[str]:
    source, words = check.source, check.words
    yield f"{check.name} ({source.format}, {redact(source.path)})"
    if not check.rows:
        yield "  no row was read"
        return
    of = "" if check.total in (None, check.rows) else f" of {check.total:,}, spread over the source"
    of = " (the first ones)" if check.total is None and check.failure is None else of
    counts = {
        "rows": f"{check.rows:,}{of}",
        "bad rows": f"{check.num_bad:,}",
        "images": f"{check.images:,}" + (f", and {check.videos:,} videos" if check.videos else ""),
        "tokens": f"{check.tokens:,}; {check.tokens / max(check.good, 1):.1f} a row, at most {check.longest:,}",
        "learned tokens": f"{words.supervised:,}"
        + (f", {words.share:.1%} of them {words.name}" if words.name is not None else ""),
        "truncated rows": f"{check.truncated:,}" + _describe_budgets(source),
        "repeated rows": f"{check.repeated:,}",
        "images in several rows": f"{check.shared:,} of {len(check.rows_of_images):,} different ones",
    }
    if check.answers.count:
        counts["different answers"] = f"{check.answers.count:,}"
    width = max(map(len, counts))
    yield from (f"  {name:{width}}  {value}" for name, value in counts.items())


def _describe_budgets(source: DataSource) -> str:
    budgets = [
        f"{getattr(source, name)} {kind}"
        for name, kind in (("max_length", "tokens"), ("max_images", "images"))
        if getattr(source, name) is not None
    ]
    return f" (at most {' and '.join(budgets)})" if budgets else ""


def _describe_rows(check: SourceCheck, num_rows: int) -> Iterator[str]:
    """Yield a table of the first rows, with a line for tokens that see the same image."""
    rows = check.first[:num_rows]
    if not rows:
        return
    yield "  The first rows as the model will see them; the tokens of a line see the image at its beginning:"
    for row in rows:
        yield f"    {row.location}"
        lines = [("image", "learned", "tokens", "text"), *_lines_of(row)]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        for line in lines:
            cells = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
            yield f"      {cells}  {line[3]}"
        if check.words.token is not None and any(check.words.token in part.text for part in row.texts):
            yield f"      before the tokenizer: {_shorten(row.text)}"


def _lines_of(row: SeenRow) -> Iterator[tuple[str, str, str, str]]:
    for part in row.texts:
        image = f"{part.image} ({row.images[part.image - 1]})" if part.image else "none"
        yield image, "yes" if part.is_learned else "no", str(part.tokens), _shorten(part.text)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN_TEXT else f"{text[:_MAX_SHOWN_TEXT]} ...")


def _describe_bad_rows(check: SourceCheck, max_errors: int, kind: str) -> Iterator[str]:
    for message in check.bad[:max_errors]:
        yield f"{kind}: {check.name}: {message}"
    rest = check.num_bad - min(len(check.bad), max_errors)
    if rest:
        yield f"{kind}: {check.name}: {count_of(rest, 'other row')} cannot be used either (`--max_errors` lists more)"
