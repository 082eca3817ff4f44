# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the peak memory of converting an OpenFlamingo checkpoint, over the bytes of the checkpoint plus the language model.

    python benchmarks/convert_memory.py [--layers 4] [--dtype float32]

The files are generated with the real shapes of OpenFlamingo-9B (MPT-7B, CLIP ViT-L/14, a block before every fourth layer)
but fewer layers. The peak is of anonymous memory: the pages of a mapped file do not count, because the system can drop them
at any time. Linux only.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import CLIPVisionConfig, CLIPVisionModel, MptConfig, MptForCausalLM, PreTrainedTokenizerFast


D, DV, INNER, LATENTS, ROWS = 4096, 1024, 512, 64, 50280


def write_files(directory: Path, num_layers: int) -> None:
    """Write a checkpoint in OpenFlamingo's layout, and the backbones and the tokenizer that its conversion reads."""
    config = MptConfig(d_model=D, n_heads=32, n_layers=num_layers, vocab_size=50432)
    MptForCausalLM(config).save_pretrained(directory / "text")
    vision = CLIPVisionConfig(
        hidden_size=DV, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=2, patch_size=14
    )
    CLIPVisionModel(vision).save_pretrained(directory / "vision")
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50277)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0").save_pretrained(directory / "tokenizer")

    def attention(width: int, context: int) -> dict[str, tuple[int, ...]]:
        return {"to_q": (INNER, width), "to_kv": (2 * INNER, context), "to_out": (width, INNER)}

    shapes = {"perceiver.latents": (LATENTS, DV), "perceiver.norm.weight": (DV,), "perceiver.norm.bias": (DV,)}
    for i in range(6):
        layer = f"perceiver.layers.{i}"
        shapes |= {f"{layer}.0.{name}.weight": shape for name, shape in attention(DV, DV).items()}
        norms = ("0.norm_media", "0.norm_latents", "1.0")
        shapes |= {f"{layer}.{norm}.{kind}": (DV,) for norm in norms for kind in ("weight", "bias")}
        shapes |= {f"{layer}.1.1.weight": (4 * DV, DV), f"{layer}.1.3.weight": (DV, 4 * DV)}
    for i in range(3, num_layers, 4):
        block = f"lang_encoder.transformer.blocks.{i}.gated_cross_attn_layer"
        shapes |= {f"{block}.attn.{name}.weight": shape for name, shape in attention(D, DV).items()}
        shapes |= {f"{block}.{norm}.{kind}": (D,) for norm in ("attn.norm", "ff.0") for kind in ("weight", "bias")}
        shapes |= {f"{block}.ff.1.weight": (4 * D, D), f"{block}.ff.3.weight": (D, 4 * D)}
        shapes |= {f"{block}.attn_gate": (1,), f"{block}.ff_gate": (1,)}
    shapes["lang_encoder.transformer.wte.weight"] = (ROWS, D)
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, directory / "checkpoint.pt")


def anonymous_bytes(pid: int) -> int:
    """Return the resident anonymous memory of a process, 0 if it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def peak_of(command: list[str]) -> int:
    """Run a command and return the peak of its anonymous memory, sampled every 20 ms."""
    process = subprocess.Popen(command)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.02)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    return peak


def main() -> None:
    """Convert the generated checkpoint and print its peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--layers",
        type=int,
        default=4,
        help="number of layers of the language model; the real one has 32 (default: %(default)s)",
    )
    parser.add_argument("--dtype", default="float32", help="dtype of the converted weights (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_files(directory, arguments.layers)
        checkpoint = (directory / "checkpoint.pt").stat().st_size
        text = sum(path.stat().st_size for path in (directory / "text").glob("*.safetensors"))
        baseline = peak_of([sys.executable, "-c", "import transformers_flamingo.conversion"])
        command = [sys.executable, "-m", "transformers_flamingo_cli", "convert", "open-flamingo"]
        command += [str(directory / "checkpoint.pt"), str(directory / "out"), "--dtype", arguments.dtype]
        for option in ("vision", "text", "tokenizer"):
            command += [f"--{option}", str(directory / option)]
        peak = peak_of([*command, "--cross-attention-every-n-layers", "4"]) - baseline
    print(
        f"checkpoint {checkpoint / 1e9:.2f} GB + language model {text / 1e9:.2f} GB (float32), {arguments.layers} layers"
    )
    print(f"peak {peak / 1e9:.2f} GB above the imports: ratio {peak / (checkpoint + text):.2f}")


if __name__ == "__main__":
    main()
