# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""An import fails if a release of transformers changed a private name, and the error names the release."""

import subprocess
import sys

import pytest
import transformers
from transformers import GenerationMixin, ProcessorMixin, Trainer

from transformers_flamingo.compatibility_flamingo import require_private_names


class Owner:
    annotated: int
    value = None

    def method(self, a, b, c=None): ...


def test_what_is_there_passes():
    require_private_names(Owner, annotated=None, value=None, method=("a", "b"))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"missing": None}, "`Owner.missing`"),
        ({"missing": ("a",)}, r"`Owner.missing\(a\)`"),
        ({"method": ("a", "d")}, r"`Owner.method\(a, d\)`"),
        ({"method": ("b", "a")}, r"`Owner.method\(b, a\)`"),
        ({"value": ("a",)}, r"`Owner.value\(a\)`"),
    ],
)
def test_what_is_missing_or_has_other_parameters_is_an_error(names, wanted):
    with pytest.raises(ImportError, match=f"transformers {transformers.__version__} has no {wanted}"):
        require_private_names(Owner, **names)


# A private name of each file that overrides some.
OVERRIDDEN = [
    (GenerationMixin, "_prefill", "transformers_flamingo"),
    (ProcessorMixin, "_process_images", "transformers_flamingo"),
    (Trainer, "_save_checkpoint", "transformers_flamingo.training"),
]


@pytest.mark.parametrize(("owner", "name", "module"), OVERRIDDEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_file_cannot_be_imported_without_what_it_overrides(owner, name, module):
    assert hasattr(owner, name)
    code = f"import transformers; del transformers.{owner.__name__}.{name}; import {module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert f"has no `{owner.__name__}.{name}(" in result.stderr.splitlines()[-1]
