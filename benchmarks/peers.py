# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Compare this package with OpenFlamingo, flamingo-mini, IDEFICS and Mllama: the same inputs, in turns within one run.

    pip install --target PEERS --no-deps open-flamingo==2.0.1 einops einops-exts
    cp -r a-clone-of-dhansmair/flamingo-mini/flamingo_mini PEERS
    python benchmarks/peers.py --open-flamingo PEERS --flamingo-mini PEERS --idefics --mllama [--case ranking]

OpenFlamingo and flamingo-mini have the same weights as this package. Before anything is timed, both must give the same logits,
candidate scores and loss within 1e-3, so each row compares two programs for the same function. The language model is OPT-125m or
Llama, which both can still wrap. Dropout is 0, so that losses can be compared. IDEFICS and Mllama, which are part of
transformers, are other architectures with random weights in the same shapes: see `peer_models.py` for what is equal.

- images: the vision encoder and the resampler alone, which are part of every other row. The encoder is the same stock
  module on both sides, so OpenFlamingo's times do not depend on open_clip and its version.
- prefill: filling the cache with the prompt, as each one's `generate()` does.
- decode: each further token of a greedy `generate()`. Its peak is that of the whole call, with the prompt.
- beam search: `generate()` with 3 beams, with the prompt.
- ranking: 10 candidates of 4 tokens after one context, as each one's evaluation scores them. IDEFICS and Mllama have none; they
  get the cache of the context, repeated for the candidates.
- training step, as released: forward and backward with the backbones frozen as each project freezes them. This package trains
  the embeddings of its two tokens, OpenFlamingo and flamingo-mini train their whole embedding matrix, and of IDEFICS and Mllama
  no training code is released. Every token except `<image>` is supervised. No optimizer.
- training step, equal sets: the same with all embeddings frozen on both sides, so that the resampler and the gated blocks are trained.

Operations in matrix products, dispatched operations and peak memory are counted. They have no noise, and where the ratio of
operations is close to 1, nearly all the work is work that both must do. `--layers 1 --max-images 1` is quick.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import common
import torch
from peer_models import (
    CONVERTED_PEERS,
    STOCK_PEERS,
    Batch,
    FlamingoMini,
    Ours,
    Side,
    build_in_shapes_of_stock_peers,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging

from transformers_flamingo import FlamingoModel


NUM_IMAGES = (1, 5, 8, 32)
LARGE_BATCH = (4, 4)  # texts, and images of each
NUM_CANDIDATES, CANDIDATE_LENGTH = 10, 4
TOLERANCE = 1e-3
CASES = ("images", "prefill", "decode", "beam_search", "ranking", "training_step")
# A Llama with the shapes of OPT-125m, whose 3 matrices of the feed-forward network are as large as the 2 of OPT
LLAMA_125M = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
LLAMA_125M |= {"vocab_size": 50272, "tie_word_embeddings": True}


def find_package(path: str, name: str) -> None:
    """
    Make the package `name` in the folder `path` importable.

    Raises:
        FileNotFoundError: The package is not in the folder.
    """
    if not Path(path, name).is_dir():
        raise FileNotFoundError(
            f"--{name.replace('_', '-')} is {path}, but there is no folder {name} in it. Give the folder that holds the "
            "package, not the package itself; --help shows how to get it."
        )
    sys.path.insert(0, str(Path(path).resolve()))


def convert(peer_class: type[Side], arguments: argparse.Namespace) -> tuple[Ours, Side]:
    """Build the peer with random weights and this package's model with the same weights, and check that logits are equal."""
    is_small = arguments.workload == "small"
    text_config = common.TEXT[arguments.text]()
    if arguments.layers:
        text_config.num_hidden_layers = arguments.layers
    for name in {"dropout", "attention_dropout"} & text_config.to_dict().keys():
        setattr(text_config, name, 0.0)
    set_seed(0)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        AutoModelForCausalLM.from_config(text_config).save_pretrained(directory / "text")
        vision_config = CLIPVisionConfig(**(common.CLIP_VIT_B_32 if is_small else common.CLIP_VIT_L_14))
        CLIPVisionModel(vision_config).save_pretrained(directory / "vision")
        # A word for each row except those of OpenFlamingo's two tokens. The last row is flamingo-mini's image marker.
        words = [f"w{i}" for i in range(text_config.vocab_size - 2)]
        words += ["w", "<"] if peer_class is FlamingoMini else []
        save_tokenizer(words, directory / "tokenizer")
        peer = peer_class(directory)
        peer.convert(directory)
        ours = Ours(FlamingoModel.from_pretrained(directory / "ours"))
    for side in (ours, peer):
        side.model.eval().to(arguments.device)
    with torch.no_grad():
        batch = common.inputs(ours.model, 3, 32)
        check_equal("logits", ours.logits(batch), peer.logits(batch))
    if not is_small:
        for side in (ours, peer):
            side.model.to(torch.bfloat16)
    return ours, peer


def save_tokenizer(words: list[str], directory: Path) -> None:
    """Save a tokenizer of the words, whose ids are their positions."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w0", pad_token="w1", eos_token="w2"
    ).save_pretrained(directory)


def build_stock(peer_class: type[Side], arguments: argparse.Namespace) -> tuple[Ours, Side]:
    """Build a peer of transformers and this package's model, with random weights in the same shapes."""
    is_small = arguments.workload == "small"
    vision_config = CLIPVisionConfig(**(common.CLIP_VIT_B_32 if is_small else common.CLIP_VIT_L_14))
    text_config = LlamaConfig(**LLAMA_125M)
    if arguments.layers:
        text_config.num_hidden_layers = arguments.layers
    set_seed(0)
    sides = build_in_shapes_of_stock_peers(vision_config, text_config), peer_class(vision_config, text_config)
    for side in sides:
        side.model.eval().to(arguments.device, torch.float32 if is_small else torch.bfloat16)
    return sides


def check_equal(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """
    Check that results agree within `TOLERANCE`.

    Raises:
        RuntimeError: They differ, or are NaN.
    """
    difference = (ours - theirs).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The two sides differ by {difference:.2g} in {name}. They do not compute the same function, so their times cannot be "
            "compared."
        )


@dataclass
class Workload:
    """A case with its inputs: one row of the table."""

    name: str
    method: str  # of both sides
    batch: Batch
    options: list  # further arguments of the method
    trains_embeddings: bool | None = None  # None for inference

    @property
    def num_images(self) -> int:
        """Return the number of images of each text."""
        return self.batch["pixel_values"].shape[1]

    def prepare(self, side: Side) -> None:
        """Set the mode of a model and what it trains, and free what it keeps from earlier calls, which a peak would not count."""
        is_training = self.trains_embeddings is not None
        side.reset()
        side.model.train(is_training).requires_grad_(is_training)
        if is_training:
            side.freeze(self.trains_embeddings)

    def run(self, side: Side) -> torch.Tensor | float | None:
        """Run the case."""
        with torch.set_grad_enabled(self.trains_embeddings is not None):
            return getattr(side, self.method)(self.batch, *self.options)

    def count(self, side: Side) -> common.Counts:
        """Return the costs of the case, or of one of its steps."""
        device = str(self.batch["input_ids"].device)
        if self.method == "decode":
            with torch.no_grad():
                return common.count_step(functools.partial(side.decode, self.batch), device)
        return common.count(functools.partial(self.run, side), device)


def list_workloads(ours: Ours, peer: Side, arguments: argparse.Namespace) -> Iterator[Workload]:
    """Yield the cases that the peer has. Training is last, because it freezes both sides."""

    def batch(num_images: int, size: int = 1) -> Batch:
        return common.inputs(ours.model, num_images, arguments.tokens, size)

    numbers = [number for number in NUM_IMAGES if number <= arguments.max_images]
    candidates = torch.arange(100, 100 + NUM_CANDIDATES * CANDIDATE_LENGTH).view(NUM_CANDIDATES, CANDIDATE_LENGTH)
    candidates = candidates.to(arguments.device)
    options = {"decode": [arguments.new_tokens], "ranking": [candidates]}
    for method in CASES[:-1]:
        if arguments.case in (None, method) and getattr(peer, method) is not None:
            name = "decode, per token" if method == "decode" else method.replace("_", " ")
            for number in numbers:
                yield Workload(name, method, batch(number), options.get(method, []))
    if arguments.case not in (None, "training_step"):
        return
    sets = {"training step, as released": True, "training step, equal sets": False}
    if type(peer) in STOCK_PEERS:
        del sets["training step, as released"]
    for name, trains_embeddings in sets.items():
        sizes = [(1, number) for number in numbers]
        if LARGE_BATCH[1] <= arguments.max_images:
            sizes.append(LARGE_BATCH)
        for size, number in sizes:
            inputs = batch(number, size)
            labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == ours.model.config.image_token_id, -100)
            yield Workload(name, "training_step", inputs, [labels], trains_embeddings)


def compare(ours: Ours, peer: Side, arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Count and time all cases that the peer has, and return the rows of the table."""
    rows = []
    for workload in list_workloads(ours, peer, arguments):
        for side in (ours, peer):
            workload.prepare(side)
        our_counts, counts = (workload.count(side) for side in (ours, peer))
        rows.append(
            {
                "": workload.name,
                "batch": len(workload.batch["input_ids"]),
                "images": workload.num_images,
                "GFLOP": f"{our_counts.flops / 1e9:.2f}",
                f"{peer.name} over ours": f"{counts.flops / our_counts.flops:.2f}",
                "operations": our_counts.operations,
                "over ours": f"{counts.operations / our_counts.operations:.2f}",
                "peak, MB": common.megabytes(our_counts.peak_bytes),
                "over ours ": f"{counts.peak_bytes / our_counts.peak_bytes:.2f}",
            }
        )
        if arguments.max_timed_images:
            rows[-1] |= time_row(workload, ours, peer, arguments)
        print(*rows[-1].values(), sep=" | ", file=sys.stderr, flush=True)
    return rows


def time_row(workload: Workload, ours: Ours, peer: Side, arguments: argparse.Namespace) -> dict[str, str]:
    """
    Check that results are equal, time both sides in turns, and return the columns of the times.

    The columns are empty with more than `--max-timed-images` images.
    """
    if workload.num_images > arguments.max_timed_images:
        return {"ms": "", "over ours  ": "", "spread": ""}
    our_result, result = workload.run(ours), workload.run(peer)  # and the warm-up
    # bfloat16 is less precise than the tolerance. `convert` compared the logits before the cast.
    is_comparable = isinstance(our_result, torch.Tensor) and our_result.dtype == torch.float32
    if type(peer) in CONVERTED_PEERS and is_comparable:
        check_equal(f"{workload.name} with {workload.num_images} images", our_result, result)
    timings = common.time_in_turns(
        {side.name: functools.partial(workload.run, side) for side in (ours, peer)},
        arguments.repeats,
        arguments.device,
        warmup=0,
    )
    our_timing, timing = timings[ours.name], timings[peer.name]
    return {
        "ms": common.milliseconds(our_timing),
        "over ours  ": f"{timing.over(our_timing):.2f}",
        "spread": common.percent(max(our_timing.spread, timing.spread)),
    }


def main() -> None:
    """Compare with each peer that is chosen, print the tables and save them if asked to."""
    most = NUM_IMAGES[-1]
    parser = common.parser(__doc__, tokens=256, new_tokens=16, max_images=most, max_timed_images=most, layers=0)
    parser.add_argument("--open-flamingo", metavar="PATH", help="folder that contains the package open_flamingo")
    parser.add_argument("--flamingo-mini", metavar="PATH", help="folder that contains the package flamingo_mini")
    parser.add_argument("--idefics", action="store_true", help="compare with transformers' IDEFICS")
    parser.add_argument("--mllama", action="store_true", help="compare with transformers' Mllama")
    parser.add_argument("--case", choices=CASES, help="measure only this case (default: all)")
    arguments = parser.parse_args()
    arguments.text = arguments.text or ("opt" if arguments.workload == "small" else "llama-1b")
    chosen = {peer: getattr(arguments, peer.name.replace("-", "_")) for peer in CONVERTED_PEERS + STOCK_PEERS}
    if not any(chosen.values()):
        parser.error("choose a peer: --open-flamingo PATH, --flamingo-mini PATH, --idefics or --mllama")
    if arguments.text == "gpt2":
        parser.error("--text gpt2: neither peer can wrap its layers with current transformers; use opt")
    if arguments.flamingo_mini is not None and arguments.text != "opt":
        parser.error(f"--text {arguments.text}: flamingo-mini supports only opt")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for peer_class, choice in chosen.items():
        if not choice:
            continue
        if peer_class in CONVERTED_PEERS:
            try:
                find_package(choice, peer_class.name.replace("-", "_"))
            except FileNotFoundError as error:
                parser.error(str(error))
            ours, peer = convert(peer_class, arguments)
        else:
            ours, peer = build_stock(peer_class, arguments)
        rows = compare(ours, peer, arguments)
        # The saved command must not contain local paths, and a table is about one peer.
        shown = {other.name.replace("-", "_"): None for other in chosen}
        shown[peer.name.replace("-", "_")] = "PATH" if peer_class in CONVERTED_PEERS else True
        if peer_class in STOCK_PEERS:
            shown["text"] = None
        common.report(argparse.Namespace(**{**vars(arguments), **shown}), rows, f"peers-{peer.name}")


if __name__ == "__main__":
    main()
