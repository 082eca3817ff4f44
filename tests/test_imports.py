# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check what an import of each package brings with it: what transformers imports anyway, and nothing that an extra installs."""

import json
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
    "inflection",
    "matplotlib",
    "nltk",
    "pandas",
    "peft",
    "rouge_score",
    "scipy",
}


# Imported one after another: what the first ones add would be seen there
PARTS = [
    "transformers_flamingo",
    "transformers_flamingo.utils.loading",
    "transformers_flamingo.utils.literal_text",
    "transformers_flamingo.few_shot.predictor",
    "transformers_flamingo.apps.chat",
    "transformers_flamingo.conversion",
    "transformers_flamingo.evaluation",
]


def imported_packages(*modules: str, before: str = "") -> tuple[dict[str, set[str]], set[str]]:
    """Import modules one after another in a new process: return the packages that each adds to those of `before`, and all."""
    code = f"""
import json, sys

def packages():
    return {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)

{textwrap.dedent(before)}
added = {{}}
for module in {modules!r}:
    first = packages()
    __import__(module)
    added[module] = sorted(packages() - first)
print(json.dumps([added, sorted(packages())]))
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    added, everything = json.loads(result.stdout.splitlines()[-1])
    return {module: set(packages) for module, packages in added.items()}, set(everything)


def test_the_package_imports_nothing_beyond_what_transformers_does():
    added, everything = imported_packages(*PARTS, before=TRANSFORMERS)
    new = {"transformers_flamingo": {"transformers_flamingo"}}
    new["transformers_flamingo.few_shot.predictor"] = {"fsspec"}  # which huggingface_hub needs
    assert added == {module: set() for module in PARTS} | new
    assert everything & OPTIONAL == set()


@pytest.mark.parametrize("package", ["transformers_flamingo_cli", "transformers_flamingo_miniature"])
def test_the_command_and_the_miniature_import_only_the_standard_library(package):
    _, everything = imported_packages(package)
    assert everything - imported_packages()[1] == {package}
