# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A saved Flamingo, and processes in which this package does not exist: stock clients have only the directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_templates import CHATML, instruct_tokenizer
from factory import tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo import FlamingoProcessor


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """Return the directory of a tiny model and its processor."""
    directory = tmp_path_factory.mktemp("saved") / "flamingo"
    tiny_flamingo(gates=2.0).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def instruct(tmp_path_factory) -> Path:
    """Return the directory of a tiny model whose language model has a chat template, `CHATML`."""
    directory = tmp_path_factory.mktemp("saved") / "instruct"
    processor = FlamingoProcessor(tiny_processor().image_processor, instruct_tokenizer(CHATML))
    tiny_flamingo(
        gates=2.0,
        seed=3,  # its answers are of several letters
        text_kwargs={"vocab_size": len(processor.tokenizer), "n_positions": 256, "initializer_range": 0.3},
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
    ).save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    return [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]


@pytest.fixture
def start_module(tmp_path):
    """Return `start("module", *arguments)`, which runs `python -m module` without `transformers_flamingo`."""
    started = []
    code = "import runpy, sys; sys.modules['transformers_flamingo'] = None; sys.argv[:] = sys.argv[1:]; "
    code += "runpy.run_module(sys.argv[0], run_name='__main__')"

    def start(*arguments: str, **kwargs) -> subprocess.Popen:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-u", "-c", code, *arguments]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **kwargs))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=20)
