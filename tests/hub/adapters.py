# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train adapters and publish them, or use them by their name on the Hub: `python adapters.py {author,user} OUT.json`."""

import json
import sys
from pathlib import Path

import torch
from factory import tiny_flamingo, tiny_processor
from peft import get_peft_model
from PIL import Image
from runs import source, trainer, write_pairs

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import lora_config
from transformers_flamingo.utils.loading import load_flamingo
from transformers_flamingo_cli import main


who, output = sys.argv[1:]
red = Image.new("RGB", (20, 10), (200, 0, 0))
red.save("red.png")


def last_logits(model, processor) -> list[float]:
    with torch.no_grad():
        return model.eval()(**processor(images=red, text="<image> w5", return_tensors="pt")).logits[0, -1].tolist()


if who == "author":
    tiny_flamingo(gates=0.7).push_to_hub("base")
    tiny_processor().push_to_hub("base")
    tiny_flamingo(gates=0.7).save_pretrained("here")
    seen = {}
    for name, base in (("adapters", "someone/base"), ("local-base", "here")):
        model = FlamingoModel.from_pretrained(base)
        run = trainer(
            name,
            [source("a", write_pairs(Path(name) / "pairs", 8))],
            flamingo=get_peft_model(model, lora_config(model, r=2)),
            max_steps=2,
            learning_rate=0.1,
            hub_model_id=f"someone/{name}",
        )
        run.train()
        run.push_to_hub()
        seen[name] = {
            "logits": last_logits(model, tiny_processor()),
            "kept": json.loads((Path(name) / "adapter_config.json").read_text())["base_model_name_or_path"],
        }
else:
    seen = {"logits": last_logits(*load_flamingo("someone/adapters", device="cpu")), "codes": []}
    for command in (
        ["caption", "red.png", "--model", "someone/adapters", "--max-new-tokens", "4"],
        ["merge", "someone/adapters", "whole"],
        ["caption", "red.png", "--model", "someone/local-base"],
        ["merge", "someone/base", "again"],
    ):
        try:
            seen["codes"].append(main(command))
        except SystemExit as error:
            seen["codes"].append(error.code)
    seen["merged"] = last_logits(*load_flamingo("whole", device="cpu"))
Path(output).write_text(json.dumps(seen))
