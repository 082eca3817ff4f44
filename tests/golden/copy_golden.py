# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Copy the files in this folder from the full set of golden outputs: `python copy_golden.py FOLDER`."""

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file


HERE = Path(__file__).parent
KEEP = ("input_ids", "attention_mask", "pixel_values", "vision_x", "greedy_ids", "media_locations", "loss", "labels")
EVERY = 8  # interval of the positions whose logits are saved

SKIPPED = [("open_flamingo", "opt_every1")]  # 5 MB, and the others cover the same code


def copy_variant(source: Path, target: Path) -> None:
    """Copy the files that a conversion reads, and join the cases of a variant in two files."""
    target.mkdir(parents=True)
    names = ("hf", "lm_base", "vision_base") if source.parent.name == "flamingo_mini" else ("lm_frozen", "vision_hf")
    for name in (*names, "tokenizer"):
        # All weights of flamingo-mini are in `hf`, so only the configs of its backbones are read.
        ignore = ("pytorch_model.bin",) if name in ("lm_base", "vision_base") else ()
        ignore += ("vocab.json", "merges.txt")  # tokenizer.json has the same content
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
            if (peer, variant.name) in SKIPPED:
                continue
            copy_variant(variant, HERE / peer / variant.name)
