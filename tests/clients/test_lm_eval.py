# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run `lm_eval run --model hf-multimodal` on a saved Flamingo, with the code that travels with it."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from transformers import pipeline


pytest.importorskip("lm_eval")


def test_answers_are_those_of_the_model_and_depend_on_the_image(saved, images, tmp_path, start_module):
    stock = pipeline("image-text-to-text", model=str(saved))
    expected = [
        stock(images=image, text="<image>w8", max_new_tokens=6, return_full_text=False)[0]["generated_text"].strip()
        for image in images
    ]
    assert expected[0] != expected[1]
    # Both rows expect the first answer, so one of the two different answers is right
    rows = [{"image": image, "question": "w8", "answer": expected[0]} for image in images]
    features = Features({"image": ImageFeature(), "question": Value("string"), "answer": Value("string")})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "shapes.parquet")

    arguments = f"pretrained={saved},trust_remote_code=True,dtype=float32"
    command = ["lm_eval", "run", "--model", "hf-multimodal", "--model_args", arguments, "--device", "cpu"]
    command += ["--tasks", "shapes", "--include_path", str(Path(__file__).parent), "--batch_size", "2"]
    process = start_module(*command, "--log_samples", "--output_path", "out")
    assert process.wait() == 0

    (results,) = tmp_path.glob("out/**/results_*.json")
    assert json.loads(results.read_text())["results"]["shapes"]["exact_match,stripped"] == 0.5
    (samples,) = tmp_path.glob("out/**/samples_*.jsonl")
    samples = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    assert [sample["filtered_resps"][0] for sample in samples] == expected
