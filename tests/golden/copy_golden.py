# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Make the files beside this one from the full set of golden cases: `python copy_golden.py FOLDER`."""

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file


HERE = Path(__file__).parent
KEEP = ("input_ids", "attention_mask", "pixel_values", "vision_x", "greedy_ids", "media_locations", "loss", "labels")
EVERY = 8  # positions of the logits that are kept

LEFT_OUT = [("open_flamingo", "opt_every1")]  # 5 MB that show what the others do


def copy_variant(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    names = ("hf", "lm_base", "vision_base") if source.parent.name == "flamingo_mini" else ("lm_frozen", "vision_hf")
    for name in (*names, "tokenizer"):
        # flamingo-mini's weights are all in `hf`: of its backbones only the configs are read.
        ignore = ("pytorch_model.bin",) if name in ("lm_base", "vision_base") else ()
        ignore += ("vocab.json", "merges.txt")  # tokenizer.json says the same
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(*ignore))
    if (source / "checkpoint.pt").exists():
        shutil.copy(source / "checkpoint.pt", target / "checkpoint.pt")
    tensors, texts = {}, {}
    for path in sorted((source / "cases").glob("*.safetensors")):
        case = load_file(path)
        texts[path.stem] = json.loads(path.with_suffix(".json").read_text())["texts"]
        tensors |= {f"{path.stem}.{name}": case[name] for name in KEEP if name in case}
        tensors[f"{path.stem}.logits"] = case["logits"][:, ::EVERY].contiguous()
    save_file(tensors, target / "cases.safetensors")
    (target / "texts.json").write_text(json.dumps(texts, indent=1) + "\n")


if __name__ == "__main__":
    for peer in ("flamingo_mini", "open_flamingo"):
        shutil.rmtree(HERE / peer, ignore_errors=True)
        for variant in sorted((Path(sys.argv[1]) / peer).iterdir()):
            if (peer, variant.name) in LEFT_OUT:
                continue
            copy_variant(variant, HERE / peer / variant.name)
