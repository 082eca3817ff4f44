# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
This package beside OpenFlamingo and flamingo-mini: the same weights, the same inputs, in turns within one run.

    pip install --target PEERS --no-deps open-flamingo==2.0.1 einops einops-exts
    git clone https://github.com/dhansmair/flamingo-mini PEERS/flamingo-mini
    python benchmarks/peers.py --open-flamingo PEERS
    PYTHONPATH=PEERS python benchmarks/peers.py --flamingo-mini PEERS/flamingo-mini

The peer is built with random weights and gates at 0.5, its state dict goes through this package's converter, and before
anything is timed both must give the same logits, scores of candidates and loss, within 1e-3. So each row compares two
programs for one function. The language model is OPT-125m or Llama, whose layers both peers can still be put around;
dropout is 0, so that losses can be compared.

- images: the vision encoder and the resampler alone, which every other row contains. The encoder is the same stock
  module on both sides, so OpenFlamingo is not charged for open_clip, nor for which version of it one gets.
- prefill: the prompt into a cache, as each one's `generate()` does it: ours computes the logits of the last token only.
- decode: each further token of a greedy `generate()`, the prompt aside.
- beam search: `generate()` with 3 beams, prompt included.
- ranking: 10 candidates of 4 tokens after one context, as each one's evaluation scores them.
- training step: forward and backward with the backbones frozen as each freezes them, every token but `<image>`
  supervised. No optimizer.

Neither peer runs on today's transformers as it is. What is mended, from outside, stands in comments where it is done
("mends: ..."), and costs no time. What a peer cannot do even so is left out and said: flamingo-mini's `generate()` needs
the caches of old releases, so its tokens are decoded in a plain loop over its `forward`, and it has no beam search here.
It has no ranking of its own either.
"""

import argparse
import functools
import importlib
import sys
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from types import ModuleType, SimpleNamespace

import common
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from transformers_flamingo import FlamingoModel
from transformers_flamingo.checkpoints import convert_flamingo_mini, convert_open_flamingo


NUM_IMAGES = (1, 8, 32)
NUM_BEAMS, NUM_BEAM_TOKENS = 3, 8
NUM_CANDIDATES, CANDIDATE_LENGTH = 10, 4
TOLERANCE = 1e-3
# What is timed -> the method of both sides; training is last, for it freezes them.
CASES = {
    "images": "images",
    "prefill": "prefill",
    "decode, per token": "decode",
    "beam search": "beam_search",
    "ranking": "ranking",
    "training step": "training_step",
}
# The names of the list of decoder layers, as OpenFlamingo wants it.
DECODER_LAYERS = {"opt": "model.decoder.layers", "llama-1b": "model.layers"}


def import_peer(path: str, name: str) -> ModuleType:
    """
    The package `name` in the folder `path`.

    Raises:
        ValueError: it is not there, or lacks something that it imports.
    """
    option = f"--{name.replace('_', '-')}"
    if not Path(path, name).is_dir():
        raise ValueError(
            f"`{option}` is {path}, but there is no folder `{name}` in it: give the folder that holds the package, not the "
            "package itself. `--help` says how to get it."
        )
    sys.path.insert(0, str(Path(path).resolve()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"`{name}` was found in {path} (`{option}`), but cannot be imported: {error}. Put einops and einops-exts "
            "into the same folder: `--help` says how."
        ) from error


# ---------------------------------------------------------------------------------------------------------------------
# What is timed
# ---------------------------------------------------------------------------------------------------------------------


Batch = dict[str, torch.Tensor]  # input_ids (B, T), pixel_values (B, N, C, H, W)


class Ours:
    """This package's model under the names of the cases."""

    def __init__(self, model: FlamingoModel):
        self.model = model

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.model(**batch).logits

    def images(self, batch: Batch) -> None:
        self.model.get_image_features(batch["pixel_values"])

    def prefill(self, batch: Batch) -> torch.Tensor:
        return self.model(**batch, use_cache=True, logits_to_keep=1).logits

    def decode(self, batch: Batch, num_tokens: int) -> float:
        return common.generate(self.model, batch, num_tokens)

    def beam_search(self, batch: Batch) -> None:
        common.generate(self.model, batch, NUM_BEAM_TOKENS - 1, num_beams=NUM_BEAMS)

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """As `evaluation.FewShotEngine` does it: log-likelihoods `(candidates,)`."""
        context = self.model(**batch, use_cache=True, logits_to_keep=1)
        cache = context.past_key_values
        cache.batch_repeat_interleave(len(candidates))
        logits = self.model(candidates[:, :-1], past_key_values=cache).logits
        logits = torch.cat([context.logits.expand(len(candidates), -1, -1), logits], dim=1)
        return log_likelihood(logits, candidates)

    def freeze(self) -> None:
        self.model.freeze_backbones()

    def training_step(self, batch: Batch, labels: torch.LongTensor) -> torch.Tensor:
        self.model.zero_grad()
        loss = self.model(**batch, labels=labels, use_cache=False).loss
        loss.backward()
        return loss.detach()


def log_likelihood(logits: torch.Tensor, tokens: torch.LongTensor) -> torch.Tensor:
    """Of `tokens` `(B, K)`, by the logits before each, `(B, K, V)`: `(B,)`."""
    return logits.log_softmax(dim=-1).gather(2, tokens[..., None]).sum(dim=(1, 2))


class OpenFlamingo:
    """OpenFlamingo's model under the names of the cases."""

    name = "open-flamingo"

    def __init__(self, path: str, vision_model: CLIPVisionModel, language_model: PreTrainedModel, layers_name: str):
        # mends: its `__init__` imports open_clip, from which only its vision encoders would come.
        sys.modules.setdefault("open_clip", ModuleType("open_clip"))
        import_peer(path, "open_flamingo")
        from open_flamingo.src.flamingo import Flamingo
        from open_flamingo.src.flamingo_lm import FlamingoLMMixin
        from open_flamingo.src.utils import extend_instance

        class Mixin(FlamingoLMMixin):
            # mends: generate() of transformers 5 leaves out a mask of ones, which the mixin's forward() requires.
            def forward(self, input_ids, attention_mask=None, **kwargs):
                return super().forward(input_ids, attention_mask, **kwargs)

        extend_instance(language_model, Mixin)
        language_model.set_decoder_layers_attr_name(layers_name)
        vocab_size, size = language_model.config.vocab_size, vision_model.config.hidden_size
        tower = SimpleNamespace(visual=OpenClipTower(vision_model))
        self.model = Flamingo(tower, language_model, vocab_size - 2, vocab_size - 1, vis_dim=size).eval()
        for name, parameter in self.model.named_parameters():
            if name.endswith(("attn_gate", "ff_gate")):
                nn.init.constant_(parameter, 0.5)

    def convert(self, directory: Path) -> None:
        torch.save(self.model.state_dict(), directory / "checkpoint.pt")
        backbones = {name: directory / name for name in ("vision", "text", "tokenizer")}
        convert_open_flamingo(
            directory / "checkpoint.pt", directory / "ours", **backbones, cross_attention_every_n_layers=1
        )

    @staticmethod
    def inputs(batch: Batch) -> Batch:
        return {"vision_x": batch["pixel_values"][:, :, None], "lang_x": batch["input_ids"]}

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.model(**self.inputs(batch)).logits

    def images(self, batch: Batch) -> None:
        self.model._encode_vision_x(self.inputs(batch)["vision_x"])

    def prefill(self, batch: Batch) -> torch.Tensor:
        return self.model(**self.inputs(batch), use_cache=True).logits[:, -1:]

    def decode(self, batch: Batch, num_tokens: int) -> float:
        return common.generate(self.model, self.inputs(batch), num_tokens)

    def beam_search(self, batch: Batch) -> None:
        common.generate(self.model, self.inputs(batch), NUM_BEAM_TOKENS - 1, num_beams=NUM_BEAMS)

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """As its `get_rank_classifications` does it: media and context kept, then a call for each token."""
        input_ids, vision_x = batch["input_ids"], self.inputs(batch)["vision_x"]
        call = functools.partial(self.model, None, clear_conditioned_layers=False, use_cache=True)
        self.model.cache_media(input_ids, vision_x)
        context = call(input_ids)
        cache, scores = context.past_key_values, []
        for candidate in candidates:
            logits = [context.logits]
            for token in candidate:
                logits.append(call(token.view(1, 1), past_key_values=cache).logits)
            log_probabilities = torch.cat(logits, dim=1).log_softmax(dim=-1)  # of the context too: (1, T + K, V)
            chosen = log_probabilities[:, -len(candidate) - 1 : -1].gather(2, candidate[None, :, None])
            scores.append(chosen.sum())
            # mends: the cache of transformers 5 is written in place, and the next candidate would follow this one.
            cache.crop(-len(candidate))
        self.model.uncache_media()
        return torch.stack(scores)

    def freeze(self) -> None:
        """As its factory does."""
        self.model.requires_grad_(False)
        self.model.perceiver.requires_grad_(True)
        self.model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
        self.model.lang_encoder.get_input_embeddings().requires_grad_(True)

    def training_step(self, batch: Batch, labels: torch.LongTensor) -> torch.Tensor:
        self.model.zero_grad()
        loss = self.model(**self.inputs(batch), labels=labels).loss
        loss.backward()
        return loss.detach()


class OpenClipTower(nn.Module):
    """A CLIP vision encoder of transformers that returns what open_clip's does: (pooled, tokens `(B, P, Dv)`)."""

    def __init__(self, model: CLIPVisionModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.model(pixels).last_hidden_state[:, 1:]


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def build(peer_class: type, path: str, arguments: argparse.Namespace) -> tuple[Ours, OpenFlamingo]:
    """The peer with random weights, and this package's model with the same, which is checked."""
    is_small = arguments.workload == "small"
    text_config = common.TEXT[arguments.text]()
    if arguments.layers:
        text_config.num_hidden_layers = arguments.layers
    for name in {"dropout", "attention_dropout"} & text_config.to_dict().keys():
        setattr(text_config, name, 0.0)
    set_seed(0)
    language_model = AutoModelForCausalLM.from_config(text_config)
    vision_config = CLIPVisionConfig(**(common.CLIP_VIT_B_32 if is_small else common.CLIP_VIT_L_14))
    vision_model = CLIPVisionModel(vision_config)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        language_model.save_pretrained(directory / "text")
        vision_model.save_pretrained(directory / "vision")
        save_tokenizer(text_config, directory / "tokenizer")
        peer = peer_class(path, vision_model, language_model, DECODER_LAYERS[arguments.text])
        peer.convert(directory)
        ours = Ours(FlamingoModel.from_pretrained(directory / "ours").eval())
    with torch.no_grad():
        batch = common.inputs(ours.model.to(arguments.device), 3, 32)
        peer.model.to(arguments.device)
        check_equal("logits", ours.logits(batch), peer.logits(batch))
    if not is_small:
        ours.model.to(torch.bfloat16)
        peer.model.to(torch.bfloat16)
    return ours, peer


def save_tokenizer(text_config: PreTrainedConfig, directory: Path) -> None:
    """A word for each row of the embedding but the last two, which become `<|endofchunk|>` and `<image>`."""
    words = {f"w{i}": i for i in range(text_config.vocab_size - 2)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", pad_token="w1").save_pretrained(directory)


def check_equal(what: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The two sides differ by {difference:.2g} in {what}, so they do not compute the same function, and their times "
            "say nothing about each other."
        )


def time_side_by_side(ours: Ours, peer: OpenFlamingo, arguments: argparse.Namespace) -> list[dict[str, str]]:
    candidates = torch.arange(100, 100 + NUM_CANDIDATES * CANDIDATE_LENGTH).view(NUM_CANDIDATES, CANDIDATE_LENGTH)
    rows = []
    for name, method in CASES.items():
        if arguments.case not in (None, name) or not hasattr(peer, method):
            continue
        is_training = method == "training_step"
        for side in (ours, peer):
            side.model.train(is_training)
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
                results = [call() for call in calls]
                # bfloat16 rounds more coarsely than that: there the logits were compared before the cast.
                if isinstance(results[0], torch.Tensor) and results[0].dtype == torch.float32:
                    check_equal(f"{name} with {num_images} images", *results)
                own, other = common.time_in_turns(
                    dict(zip(("ours", "peer"), calls, strict=True)), arguments.repeats, arguments.device, warmup=0
                ).values()
            rows.append(
                {
                    "": name,
                    "images": num_images,
                    "ours, ms": common.milliseconds(own),
                    f"{peer.name}, ms": common.milliseconds(other),
                    "ratio": f"{other.over(own):.2f}",
                    "spread": common.percent(max(own.spread, other.spread)),
                }
            )
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = common.parser(__doc__, tokens=256, new_tokens=16, max_images=NUM_IMAGES[-1], layers=0)
    parser.add_argument("--open-flamingo", metavar="PATH", help="folder that holds the package open_flamingo")
    parser.add_argument("--flamingo-mini", metavar="PATH", help="folder that holds the package flamingo_mini")
    parser.add_argument("--case", choices=CASES, help="time this one only")
    arguments = parser.parse_args()
    arguments.text = arguments.text or ("opt" if arguments.workload == "small" else "llama-1b")
    paths = {peer_class: getattr(arguments, peer_class.name.replace("-", "_")) for peer_class in (OpenFlamingo,)}
    if not any(paths.values()):
        parser.error("name a peer: --open-flamingo PATH, --flamingo-mini PATH, or both")
    if arguments.text not in DECODER_LAYERS:
        parser.error(f"--text {arguments.text}: the peers can be put around {' and '.join(DECODER_LAYERS)} only")
    for peer_class, path in paths.items():
        if path is not None:
            try:
                ours, peer = build(peer_class, path, arguments)
            except ValueError as error:
                parser.error(str(error))
            rows = time_side_by_side(ours, peer, arguments)
            # Paths are of this machine, and a saved table is of one peer.
            own = {p.name.replace("-", "_"): "PATH" if p is peer_class else None for p in paths}
            common.report(argparse.Namespace(**{**vars(arguments), **own}), rows, f"peers-{peer.name}")


if __name__ == "__main__":
    main()
