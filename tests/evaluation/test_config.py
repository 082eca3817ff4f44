# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the settings of an evaluation: their checks, and the command line that is made from them."""

from dataclasses import fields, replace

import pytest
from transformers import HfArgumentParser

from transformers_flamingo.evaluation.config import EvaluationConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shots": ()}, r"`shots` is \[\]"),
        ({"shots": (4, 4)}, r"`shots` is \[4, 4\]"),
        ({"seeds": (-1,)}, r"`seeds` is \[-1\]"),
        ({"seeds": (2**32,)}, "numpy takes seeds from 0 to 4294967295"),
        ({"selection": "best"}, "`selection` is 'best'. It can be random, fixed, rices"),
        ({"protocol": "best"}, "`protocol` is 'best'. It can be quick, open_flamingo, paper"),
        ({"rices_faiss": "Flat"}, "`rices_faiss` is 'Flat' and has no effect with `selection='random'`"),
        ({"support_size": -2}, "`support_size` is -2, but it must be at least 1, or -1 for all"),
        ({"support_size": 0}, "`support_size` is 0"),
        ({"num_queries": 0}, "`num_queries` is 0"),
        ({"num_orders": 0}, "`num_orders` is 0"),
        ({"draw_by": "batch"}, "`draw_by` is 'batch'. It can be image, query"),
        ({"queries_per_draw": 0}, "`queries_per_draw` is 0"),
        (
            {"queries_per_draw": 4, "selection": "fixed"},
            "`queries_per_draw` is 4 and has no effect with `selection='fixed'`",
        ),
        ({"rices_clip": "clip"}, "`rices_clip` is 'clip' and has no effect with `selection='random'`"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**values)


def test_every_field_is_a_flag_with_help():
    parser = HfArgumentParser(EvaluationConfig)
    assert parser.parse_args_into_dataclasses([]) == (EvaluationConfig(),)
    arguments = (
        "--shots 0 2 --seeds 7 --selection rices --rices-clip clip --balanced false --num-orders 6 --blind false"
    )
    (config,) = parser.parse_args_into_dataclasses(arguments.split())
    assert config == EvaluationConfig(
        shots=[0, 2], seeds=[7], selection="rices", rices_clip="clip", balanced=False, num_orders=6, blind=False
    )
    assert all(field.metadata["help"].endswith(".") for field in fields(EvaluationConfig))


def test_a_protocol_sets_what_is_not_given():
    quick = EvaluationConfig()
    assert (quick.shots, quick.seeds, quick.num_queries, quick.num_orders, quick.blind) == (
        [0, 4, 8],
        [0],
        1000,
        1,
        True,
    )
    theirs = EvaluationConfig(protocol="open_flamingo", seeds=[3])
    assert (theirs.shots, theirs.seeds, theirs.num_queries) == ([0, 4, 8, 16, 32], [3], -1)
    assert (theirs.balanced, theirs.support_size, theirs.num_orders, theirs.blind) == (False, 2048, 1, False)
    paper = EvaluationConfig(protocol="paper", blind=True)
    assert (paper.shots, paper.seeds, paper.num_queries, paper.num_orders, paper.blind) == (
        [0, 4, 32],
        [0],
        -1,
        6,
        True,
    )
    assert replace(paper) == paper


def test_the_nearest_are_those_of_all_and_of_any_class():
    rices = EvaluationConfig(selection="rices")
    assert (rices.support_size, rices.balanced) == (-1, False)
    chosen = EvaluationConfig(selection="rices", support_size=2048, balanced=True)
    assert (chosen.support_size, chosen.balanced) == (2048, True)
    assert rices.rices_clip is None
    theirs = EvaluationConfig(selection="rices", protocol="open_flamingo")
    assert theirs.rices_clip == "openai/clip-vit-large-patch14"
    assert EvaluationConfig(selection="rices", protocol="open_flamingo", rices_clip="x").rices_clip == "x"
    random = EvaluationConfig(protocol="open_flamingo")
    assert random.rices_clip is None
    random = EvaluationConfig()
    assert (random.support_size, random.balanced) == (2048, None)  # if the task ranks classes
