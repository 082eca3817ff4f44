# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Figures show the numbers that they are given, under the right names."""

import numpy as np
import pytest
from PIL import Image

from transformers_flamingo.cards.plotting import (
    ShotCurve,
    ShotPanel,
    plot_branches,
    plot_captions,
    plot_gates,
    plot_image_use,
    plot_losses,
    plot_scores,
    plot_shots,
)
from transformers_flamingo.training.report import plot_run


# A plot warns of nothing. The lowest matplotlib calls functions that a newer pyparsing deprecates.
# Sockets and files that earlier tests left open are closed by the garbage collector whenever it runs, here for example.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore:.*deprecated.* use '.*:DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

STEPS = (10, 20)


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def is_image(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


def test_losses(tmp_path):
    curve = list(zip(STEPS, (2.0, 1.0), strict=True))
    (axes,) = plot_losses(tmp_path / "a.png", {"pairs": curve}, {"pages": curve, "pages, blind": curve}).axes
    lines = lines_of(axes)
    assert list(lines) == legend_of(axes) == ["pairs", "held out: pages", "held out: pages, blind"]
    assert list(lines["pairs"].get_xdata()) == [10, 20] and list(lines["pairs"].get_ydata()) == [2, 1]
    seeing, blind = lines["held out: pages"], lines["held out: pages, blind"]
    assert seeing.get_color() == blind.get_color() != lines["pairs"].get_color()
    assert (seeing.get_linestyle(), blind.get_linestyle()) == ("--", ":")
    assert axes.get_yscale() == "log" and is_image(tmp_path / "a.png")


def test_scores_are_from_0_to_1(tmp_path):
    (axes,) = plot_scores(tmp_path / "a.png", {"captions: exact_match": [(10, 0.25), (20, 0.5)]}).axes
    assert list(lines_of(axes)["captions: exact_match"].get_ydata()) == [0.25, 0.5]
    assert axes.get_ylim() == (-0.02, 1.02) and is_image(tmp_path / "a.png")


def test_gates(tmp_path):
    history = [{"step": step, "attn": [0.1, 0.2], "ffn": [0.3, 0.4]} for step in STEPS]
    attention, feed_forward = plot_gates(tmp_path / "a.png", history, layers=[0, 2]).axes
    assert list(lines_of(attention)["before layer 2"].get_ydata()) == [0.2, 0.2]
    assert list(lines_of(feed_forward)["before layer 2"].get_ydata()) == [0.4, 0.4]
    assert legend_of(feed_forward) == ["before layer 0", "before layer 2"]


def test_branches_of_many_blocks_all_have_a_place_in_the_legend(tmp_path):
    history = [{"step": step, "attn": [i / 100 for i in range(30)], "ffn": [5.0] * 30} for step in STEPS]
    figure = plot_branches(tmp_path / "a.png", history, layers=range(30))
    attention, feed_forward = figure.axes
    assert legend_of(feed_forward) == [f"before layer {i}" for i in range(30)]
    box, size = feed_forward.get_legend().get_window_extent(), figure.get_window_extent()
    assert box.x1 <= size.x1 and box.y0 >= size.y0
    assert attention.get_ylim()[1] < 1 < feed_forward.get_ylim()[1]
    assert len({tuple(line.get_color()) for line in attention.get_lines()[:30]}) == 30
    assert is_image(tmp_path / "a.png")


def test_own_and_wrong_images_share_a_color(tmp_path):
    curve = list(zip(STEPS, (2.0, 1.0), strict=True))
    own, swapped = {"pairs": curve, "pages": curve}, {"pairs, other": curve, "pages, blank": curve}
    (axes,) = plot_image_use(tmp_path / "a.png", own, swapped).axes
    lines = lines_of(axes)
    assert list(lines) == ["pairs: own images", "pages: own images", "pairs: other images", "pages: blank images"]
    assert lines["pairs: own images"].get_color() == lines["pairs: other images"].get_color()
    assert lines["pages: own images"].get_color() != lines["pairs: own images"].get_color()
    styles = [
        lines[name].get_linestyle() for name in ("pairs: own images", "pairs: other images", "pages: blank images")
    ]
    assert styles == ["-", "--", ":"] and is_image(tmp_path / "a.png")


def test_a_gate_without_a_layer_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        plot_gates(tmp_path / "a.png", [{"step": 0, "attn": [0.1, 0.2], "ffn": []}], layers=[0])


def test_shots(tmp_path):
    measured = ShotCurve("mine", {4: 0.5, 0: 0.25}, "black", spread={0: 0.1, 4: 0.2})
    control = ShotCurve("", {0: 0.2, 4: 0.2}, style="control")
    published = ShotCurve("theirs", {0: 0.5, 32: 0.75}, style="published")
    panels = [ShotPanel("left", [measured, control, published], chance=0.5), ShotPanel("right", [measured])]
    left, right = plot_shots(tmp_path / "a.png", panels, "accuracy", limits=(0, 1)).axes
    # Equal distances between the numbers of shots that occur
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "4", "32"]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["0", "4"]
    curves = {container.get_label(): container.lines[0] for container in left.containers}
    assert list(curves["mine"].get_xdata()) == [0, 1] and list(curves["mine"].get_ydata()) == [0.25, 0.5]
    assert list(curves["theirs"].get_xdata()) == [0, 2]
    assert legend_of(right) == ["mine", "theirs"] and left.get_legend() is None
    assert left.get_ylabel() == "accuracy" and right.get_ylim() == (0, 1) and left.get_title() == "left"


def test_captions(tmp_path):
    images = [Image.new("RGB", size) for size in ((8, 8), (20, 8), (8, 8))]
    captions, truths = ["a dog", "a cat", "a bird " * 9], ["a dog", "a cow", "a bird"]
    figure = plot_captions(tmp_path / "a.png", images, captions, truths, columns=2)
    titles = [axes.title for axes in figure.axes]
    assert [title.get_text() for title in titles[:2]] == ["a dog", "a cat\n(is: a cow)"]
    assert [title.get_color() for title in titles[:2]] == ["darkgreen", "firebrick"]
    assert max(map(len, titles[2].get_text().splitlines())) <= 30 and titles[3].get_text() == ""
    np.testing.assert_array_equal(figure.axes[1].get_images()[0].get_array().shape, (8, 20, 3))


def test_a_run_is_drawn_from_its_log(tmp_path):
    log = [
        {"step": step, "loss": 1.0, "loss/pairs": 1.0, "gate/attn/0": 0.1, "gate/ffn/0": 0.2, "grad_norm": 1.0}
        | {"eval_captions_loss": 1.0, "eval_captions_exact_match": 0.5, "eval_captions_blind_exact_match": 0.1}
        for step in STEPS
    ]
    plot_run(tmp_path, log)
    assert all(is_image(tmp_path / f"{name}.png") for name in ("loss", "gates", "scores"))
    (tmp_path / "bare").mkdir()
    plot_run(tmp_path / "bare", [{"step": 1, "loss": 1.0}])
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["loss.png"]


def test_a_run_that_ends_before_its_first_log_has_no_curves(tmp_path, recwarn):
    plot_run(tmp_path, [{"step": 2, "train_loss": 1.0, "train_runtime": 0.1}])
    assert not list(tmp_path.iterdir())
    assert not recwarn.list
