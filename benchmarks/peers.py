# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Compare this package with OpenFlamingo and flamingo-mini: the same weights and inputs, in turns within one run.

    pip install --target PEERS --no-deps open-flamingo==2.0.1 einops einops-exts
    cp -r a-clone-of-dhansmair/flamingo-mini/flamingo_mini PEERS
    python benchmarks/peers.py --open-flamingo PEERS [--flamingo-mini PEERS] [--repeats 5] [--case ranking]

The peer is built with random weights and gates at 0.5, and its state dict goes through this package's converter. Before
anything is timed, both must give the same logits, candidate scores and loss within 1e-3, so each row compares two programs
for the same function. The language model is OPT-125m or Llama, which both peers can still wrap. Dropout is 0, so that
losses can be compared.

- images: the vision encoder and the resampler alone, which are part of every other row. The encoder is the same stock
  module on both sides, so OpenFlamingo's times do not depend on open_clip and its version.
- prefill: filling the cache with the prompt, as each one's `generate()` does: ours computes the logits of the last token only.
- decode: each further token of a greedy `generate()`, without the prompt.
- beam search: `generate()` with 3 beams, with the prompt.
- ranking: 10 candidates of 4 tokens after one context, as each one's evaluation scores them.
- training step: forward and backward with the backbones frozen as each project freezes them and every token except `<image>`
  supervised. No optimizer.

Next to the times are our floating-point operations and the ratio of operations, counted in matrix products. Operations have
no noise, and where the ratio is close to 1, nearly all the work is work that both must do. `--layers 1 --max-images 1` is
quick.

Neither peer runs on current transformers unchanged. Each fix is made from outside and marked by a comment ("fixes: ..."),
and none of them costs the peer time. Cases that cannot be fixed in a line are omitted. flamingo-mini's `generate()` needs
caches of old releases, so it decodes in a plain loop over its `forward`, without the overhead of `generate()`, and has no
beam search here. It has no ranking either: its `score_sequences` passes features that its own `forward` no longer accepts.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import common
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging

from transformers_flamingo import FlamingoModel
from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo


NUM_IMAGES = (1, 8, 32)
NUM_BEAMS, NUM_BEAM_TOKENS = 3, 8
NUM_CANDIDATES, CANDIDATE_LENGTH = 10, 4
TOLERANCE = 1e-3
# Name of a case -> the method of both sides. Training is last, because it freezes them.
CASES = {
    "images": "images",
    "prefill": "prefill",
    "decode, per token": "decode",
    "beam search": "beam_search",
    "ranking": "ranking",
    "training step": "training_step",
}
# model_type -> the name of its list of decoder layers, which OpenFlamingo asks for
DECODER_LAYERS = {"opt": "model.decoder.layers", "llama": "model.layers"}


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


# ---------------------------------------------------------------------------------------------------------------------
# The cases
# ---------------------------------------------------------------------------------------------------------------------


Batch = dict[str, torch.Tensor]  # input_ids (B, T), pixel_values (B, N, C, H, W)


class Side:
    """A model with a method for each case, or `None` for a case that a peer does not have."""

    name: str
    model: nn.Module

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch as keyword arguments of the model's `forward` and `generate`."""
        return batch

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the logits of all tokens `(B, T, V)`."""
        return self.model(**self.inputs(batch)).logits

    def prefill(self, batch: Batch) -> torch.Tensor:
        """Fill a cache with the prompt and return the logits of its last token `(B, 1, V)`."""
        return self.model(**self.inputs(batch), use_cache=True).logits[:, -1:]

    def decode(self, batch: Batch, num_tokens: int) -> float:
        """Generate greedily and return the seconds per token after the first."""
        return common.generate(self.model, self.inputs(batch), num_tokens)

    def beam_search(self, batch: Batch) -> None:
        """Generate with beams."""
        common.generate(self.model, self.inputs(batch), NUM_BEAM_TOKENS - 1, num_beams=NUM_BEAMS)

    def training_step(self, batch: Batch, labels: torch.LongTensor) -> torch.Tensor:
        """Run forward and backward and return the loss."""
        self.model.zero_grad()
        loss = self.model(**self.inputs(batch), labels=labels, use_cache=False).loss
        loss.backward()
        return loss.detach()


class Ours(Side):
    """This package's model, converted from the peer's."""

    name = "ours"

    def __init__(self, directory: Path):
        self.model = FlamingoModel.from_pretrained(directory)

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        self.model.get_image_features(batch["pixel_values"])

    def prefill(self, batch: Batch) -> torch.Tensor:
        """Fill a cache with the prompt, and compute only the logits of its last token `(B, 1, V)`."""
        return self.model(**batch, use_cache=True, logits_to_keep=1).logits

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Return log-likelihoods `(candidates,)`, from a cache of the context that is repeated for the candidates."""
        context = self.model(**batch, use_cache=True, logits_to_keep=1)
        cache = context.cache
        cache.batch_repeat_interleave(len(candidates))
        logits = self.model(candidates[:, :-1], cache=cache).logits
        logits = torch.cat([context.logits.expand(len(candidates), -1, -1), logits], dim=1)
        return logits.log_softmax(dim=-1).gather(2, candidates[..., None]).sum(dim=(1, 2))

    def freeze(self) -> None:
        """Freeze both backbones except the rows of the new tokens."""
        self.model.freeze_backbones()


class OpenFlamingo(Side):
    """OpenFlamingo's model around a CLIP and a language model of transformers."""

    name = "open-flamingo"

    def __init__(self, directory: Path):
        # fixes: its __init__ imports open_clip, which it needs only for vision encoders.
        sys.modules.setdefault("open_clip", ModuleType("open_clip"))
        from open_flamingo.src.flamingo import Flamingo
        from open_flamingo.src.flamingo_lm import FlamingoLMMixin
        from open_flamingo.src.utils import extend_instance

        class Mixin(FlamingoLMMixin):
            # fixes: generate() of transformers 5 omits a mask of ones, which the mixin's forward() requires.
            def forward(self, input_ids, attention_mask=None, **kwargs):
                return super().forward(input_ids, attention_mask, **kwargs)

        language_model = AutoModelForCausalLM.from_pretrained(directory / "text")
        extend_instance(language_model, Mixin)
        language_model.set_decoder_layers_attr_name(DECODER_LAYERS[language_model.config.model_type])
        vision_model = CLIPVisionModel.from_pretrained(directory / "vision")
        vocab_size, size = language_model.config.vocab_size, vision_model.config.hidden_size
        tower = SimpleNamespace(visual=OpenClipTower(vision_model))
        self.model = Flamingo(tower, language_model, vocab_size - 2, vocab_size - 1, vis_dim=size)
        open_gates(self.model, "attn_gate", "ff_gate")

    def convert(self, directory: Path) -> None:
        """Convert the model to `directory / "ours"`."""
        torch.save(self.model.state_dict(), directory / "checkpoint.pt")
        backbones = {name: directory / name for name in ("vision", "text", "tokenizer")}
        convert_open_flamingo(
            directory / "checkpoint.pt", directory / "ours", **backbones, cross_attention_every_n_layers=1
        )

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch in OpenFlamingo's names, with a dimension for frames."""
        return {"vision_x": batch["pixel_values"][:, :, None], "lang_x": batch["input_ids"]}

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        self.model._encode_vision_x(self.inputs(batch)["vision_x"])

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Score as its `get_rank_classifications` does: media and context are cached, then one call per token."""
        input_ids, vision_x = batch["input_ids"], self.inputs(batch)["vision_x"]
        call = functools.partial(self.model, None, clear_conditioned_layers=False, use_cache=True)
        self.model.cache_media(input_ids, vision_x)
        context = call(input_ids)
        cache, scores = context.cache, []
        for candidate in candidates:
            logits = [context.logits]
            for token in candidate:
                logits.append(call(token.view(1, 1), cache=cache).logits)
            log_probabilities = torch.cat(logits, dim=1).log_softmax(dim=-1)  # of the context too: (1, T + K, V)
            chosen = log_probabilities[:, -len(candidate) - 1 : -1].gather(2, candidate[None, :, None])
            scores.append(chosen.sum())
            # fixes: the cache of transformers 5 is written in place, and the next candidate would follow this one.
            cache.crop(-len(candidate))
        self.model.uncache_media()
        return torch.stack(scores)

    def freeze(self) -> None:
        """Freeze as its factory does."""
        self.model.requires_grad_(False)
        self.model.perceiver.requires_grad_(True)
        self.model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
        self.model.lang_encoder.get_input_embeddings().requires_grad_(True)


class OpenClipTower(nn.Module):
    """A CLIP vision encoder of transformers that returns the outputs of open_clip: (pooled, tokens `(B, P, Dv)`)."""

    def __init__(self, model: CLIPVisionModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.model(pixels).last_hidden_state[:, 1:]


def open_gates(model: nn.Module, *names: str) -> None:
    """Set all parameters whose names end in one of `names` to 0.5."""
    for name, parameter in model.named_parameters():
        if name.endswith(names):
            nn.init.constant_(parameter, 0.5)


class FlamingoMini(Side):
    """flamingo-mini's model around a CLIP and an OPT of transformers."""

    name = "flamingo-mini"
    beam_search = ranking = None

    def __init__(self, directory: Path):
        # fixes: its processor, which is not needed, imports a module that transformers 5 no longer has.
        stub = ModuleType("transformers.models.clip.feature_extraction_clip")
        stub.CLIPFeatureExtractor = object
        sys.modules.setdefault(stub.__name__, stub)
        import flamingo_mini

        # It detects the family of the language model by the beginning of its name.
        (directory / "facebook").mkdir()
        (directory / "facebook" / "opt").symlink_to(directory / "text")
        text_config, vision_config = (AutoConfig.from_pretrained(directory / name) for name in ("text", "vision"))
        self.settings = {
            "lm": "facebook/opt",
            "clip_model_type": "vision",
            "dim": text_config.hidden_size,
            "dim_visual": vision_config.hidden_size,
        }
        before = os.getcwd()
        os.chdir(directory)
        try:
            self.model = flamingo_mini.FlamingoModel(flamingo_mini.FlamingoConfig(**self.settings))
        finally:
            os.chdir(before)
        self.image_token_id = text_config.vocab_size - 1
        open_gates(self.model, "alpha_attn", "alpha_ffw")

    def convert(self, directory: Path) -> None:
        """Convert the model to `directory / "ours"`."""
        # By hand: its save_pretrained() does not run on transformers 5.
        (directory / "theirs").mkdir()
        (directory / "theirs" / "config.json").write_text(json.dumps(self.settings))
        torch.save(self.model.state_dict(), directory / "theirs" / "pytorch_model.bin")
        backbones = {name: directory / name for name in ("vision", "text", "tokenizer")}
        convert_flamingo_mini(directory / "theirs", directory / "ours", **backbones)

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch with flamingo-mini's mask of image markers `(B, T)`."""
        return {**batch, "media_locations": (batch["input_ids"] == self.image_token_id).long()}

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        pixels = batch["pixel_values"].flatten(0, 1)
        self.model.flamingo.resampler(self.model.flamingo.vision_encoder(pixels).last_hidden_state)

    def decode(self, batch: Batch, num_tokens: int) -> float:
        """Decode in a greedy loop over `forward`, without the overhead of `generate()`, and return the seconds per token."""
        inputs = self.inputs(batch)
        outputs = self.model(**inputs, use_cache=True)
        locations = inputs["media_locations"]
        start = time.perf_counter()
        for _ in range(num_tokens):
            token = outputs.logits[:, -1:].argmax(dim=-1)
            locations = nn.functional.pad(locations, (0, 1))
            outputs = self.model(token, media_locations=locations, cache=outputs.cache, use_cache=True)
        if token.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / num_tokens

    def freeze(self) -> None:
        """Freeze by its own methods."""
        self.model.flamingo.freeze_vm()
        self.model.flamingo.freeze_lm()


PEERS: tuple[type[Side], ...] = (OpenFlamingo, FlamingoMini)


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def build(peer_class: type[Side], arguments: argparse.Namespace) -> tuple[Ours, Side]:
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
        ours = Ours(directory / "ours")
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


def count_operations(call: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result of `call` and the number of floating-point operations of its matrix products."""
    # The counter does not see fused attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops()


def time_side_by_side(ours: Ours, peer: Side, arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Check, count and time all cases that the peer has, and return the rows of the table."""
    candidates = torch.arange(100, 100 + NUM_CANDIDATES * CANDIDATE_LENGTH).view(NUM_CANDIDATES, CANDIDATE_LENGTH)
    rows = []
    for name, method in CASES.items():
        if arguments.case not in (None, method) or getattr(peer, method) is None:
            continue
        is_training = method == "training_step"
        for side in (ours, peer):
            side.model.train(is_training).requires_grad_(is_training)
            if is_training:
                side.freeze()
        for num_images in NUM_IMAGES:
            if num_images > arguments.max_images:
                continue
            batch = common.inputs(ours.model, num_images, arguments.tokens)
            labels = batch["input_ids"].masked_fill(batch["input_ids"] == ours.model.config.image_token_id, -100)
            given = {"decode": [arguments.new_tokens], "ranking": [candidates.to(labels.device)]}
            given["training_step"] = [labels]
            calls = [functools.partial(getattr(side, method), batch, *given.get(method, [])) for side in (ours, peer)]
            with torch.set_grad_enabled(is_training):
                results, counts = zip(*map(count_operations, calls), strict=True)
                if method == "decode":
                    # Subtract the prompt and the first token
                    first = [count_operations(functools.partial(call.func, batch, 1))[1] for call in calls]
                    steps = arguments.new_tokens - 1
                    counts = [(whole - part) / steps for whole, part in zip(counts, first, strict=True)]
                # bfloat16 is less precise than the tolerance. `build` compared the logits before the cast.
                if isinstance(results[0], torch.Tensor) and results[0].dtype == torch.float32:
                    check_equal(f"{name} with {num_images} images", *results)
                # The runs above are the warm-up, except on a GPU, where they did not use the fused kernels.
                our_timing, peer_timing = common.time_in_turns(
                    dict(zip(("ours", "peer"), calls, strict=True)),
                    arguments.repeats,
                    arguments.device,
                    warmup=int(arguments.device != "cpu"),
                ).values()
            rows.append(
                {
                    "": name,
                    "images": num_images,
                    "ours, ms": common.milliseconds(our_timing),
                    f"{peer.name}, ms": common.milliseconds(peer_timing),
                    "ratio": f"{peer_timing.over(our_timing):.2f}",
                    "of operations": f"{counts[1] / counts[0]:.2f}",
                    "ours, GFLOP": f"{counts[0] / 1e9:.2f}",
                    "spread": common.percent(max(our_timing.spread, peer_timing.spread)),
                }
            )
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Compare with each peer that is given, print the tables and save them if asked to."""
    parser = common.parser(__doc__, tokens=256, new_tokens=16, max_images=NUM_IMAGES[-1], layers=0)
    parser.add_argument("--open-flamingo", metavar="PATH", help="folder that contains the package open_flamingo")
    parser.add_argument("--flamingo-mini", metavar="PATH", help="folder that contains the package flamingo_mini")
    parser.add_argument("--case", choices=tuple(CASES.values()), help="time only this case (default: all)")
    arguments = parser.parse_args()
    arguments.text = arguments.text or ("opt" if arguments.workload == "small" else "llama-1b")
    paths = {peer_class: getattr(arguments, peer_class.name.replace("-", "_")) for peer_class in PEERS}
    if not any(paths.values()):
        parser.error("choose a peer: --open-flamingo PATH, --flamingo-mini PATH, or both")
    if arguments.new_tokens < 2:
        parser.error(f"--new-tokens {arguments.new_tokens}: the first token comes with the prompt, so use at least 2")
    if arguments.text == "gpt2":
        parser.error("--text gpt2: neither peer can wrap its layers with current transformers; use opt")
    if arguments.flamingo_mini is not None and arguments.text != "opt":
        parser.error(f"--text {arguments.text}: flamingo-mini supports only opt")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for peer_class, path in paths.items():
        if path is None:
            continue
        try:
            find_package(path, peer_class.name.replace("-", "_"))
        except FileNotFoundError as error:
            parser.error(str(error))
        ours, peer = build(peer_class, arguments)
        rows = time_side_by_side(ours, peer, arguments)
        # The saved command must not contain local paths, and a table is about one peer.
        shown = {other.name.replace("-", "_"): "PATH" if other is peer_class else None for other in PEERS}
        common.report(argparse.Namespace(**{**vars(arguments), **shown}), rows, f"peers-{peer.name}")


if __name__ == "__main__":
    main()
