# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check what an import of each package brings with it: what transformers imports anyway, and nothing that an extra installs."""

import subprocess
import sys
import textwrap

import pytest


# What any vision-language model of transformers imports
TRANSFORMERS = """
from transformers import CLIPVisionModel, GenerationMixin, GPT2LMHeadModel, ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
"""
# transformers itself may import accelerate
OPTIONAL = {
    "av",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "gradio",
    "matplotlib",
    "nltk",
    "pandas",
    "peft",
    "rouge_score",
}


def imported_packages(*modules: str, before: str = "") -> tuple[set[str], set[str]]:
    """Import modules in a process of its own: return the packages that they add to those of `before`, and all."""
    code = f"""
import sys

def packages():
    return {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)

{textwrap.dedent(before)}
first = packages()
{"".join(f"import {module}{chr(10)}" for module in modules)}
print(" ".join(sorted(packages() - first)))
print(" ".join(sorted(packages())))
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    added, everything = result.stdout.splitlines()[-2:]
    return set(added.split()), set(everything.split())


@pytest.mark.parametrize(
    "modules",
    [
        ["transformers_flamingo"],
        ["transformers_flamingo.utils.loading", "transformers_flamingo.utils.literal_text"],
        ["transformers_flamingo.apps.chat"],
        ["transformers_flamingo.conversion"],
        ["transformers_flamingo.evaluation"],
    ],
    ids=" ".join,
)
def test_the_package_imports_nothing_beyond_what_transformers_does(modules):
    added, everything = imported_packages(*modules, before=TRANSFORMERS)
    assert added == {"transformers_flamingo"}
    assert everything & OPTIONAL == set()


@pytest.mark.parametrize("package", ["transformers_flamingo_cli", "transformers_flamingo_miniature"])
def test_the_command_and_the_miniature_import_only_the_standard_library(package):
    _, everything = imported_packages(package, before="")
    assert everything - imported_packages()[1] == {package}
