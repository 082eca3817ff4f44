# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the settings of an evaluation: their checks, and the command line that is made from them."""

from dataclasses import fields

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
        ({"support_size": 0}, "`support_size` is 0"),
        ({"num_queries": 0}, "`num_queries` is 0"),
        ({"num_orders": 0}, "`num_orders` is 0"),
        ({"rices_clip": "clip"}, "`rices_clip` is 'clip' and has no effect with `selection='random'`"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**values)


def test_every_field_is_a_flag_with_help():
    parser = HfArgumentParser(EvaluationConfig)
    assert parser.parse_args_into_dataclasses([]) == (EvaluationConfig(),)
    arguments = "--shots 0 2 --seeds 7 --selection rices --rices-clip clip --balanced false --num-orders 6 --no-blind"
    (config,) = parser.parse_args_into_dataclasses(arguments.split())
    assert config == EvaluationConfig(
        shots=[0, 2], seeds=[7], selection="rices", rices_clip="clip", balanced=False, num_orders=6, blind=False
    )
    assert all(field.metadata["help"].endswith(".") for field in fields(EvaluationConfig))
