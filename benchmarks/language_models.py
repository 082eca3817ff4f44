# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Try every causal language model of transformers with a tiny configuration, and write down the verdict on each.

    python benchmarks/language_models.py                       # all; some minutes on one core
    python benchmarks/language_models.py llama mamba           # some, printed
    python benchmarks/language_models.py --save                # all, into results/language-models.json and docs/language-models.md
    python benchmarks/language_models.py --save llama mamba    # some, the others as they were

An entry of `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES` works if a Flamingo with it and with open gates passes all of `CHECKS`. It is
refused if the construction raises a `ValueError` with the reason. Anything else is a fault of this package or of transformers.
"""

import argparse
import json
import logging
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, CLIPVisionConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.language_models_flamingo import check_text_config, take_language_model


ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "language-models.json"
DOCS = ROOT.parent / "docs" / "language-models.md"
VOCAB_SIZE, IMAGE, END_OF_CHUNK = 99, 98, 97
SECONDS = 180  # for one entry
VERDICTS = ("works", "refused", "fails", "no verdict")
MAX_PARAMETERS = 100_000_000  # sizes that a family fixes itself may be large

# Sizes of the tiny configurations, by the names that the families have for them. Only numbers are replaced, and only those
# that a family has.
WIDTH = ("hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim", "lru_width")
INNER = (
    "intermediate_size",
    "ffn_dim",
    "d_ff",
    "decoder_ffn_dim",
    "encoder_ffn_dim",
    "n_inner",
    "ffn_hidden_size",
    "dff",
)
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
LAYERS = (*LAYERS, "encoder_layers", "num_encoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "decoder_attention_heads")
HEADS = (*HEADS, "encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
SIZES: dict[str, int] = {
    **dict.fromkeys(WIDTH, 32),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(LAYERS, 4),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(POSITIONS, 64),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCAB_SIZE),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "mamba_n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),  # latent attention (DeepSeek and related models)
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim", "head_dim"), 8),
    **dict.fromkeys(
        ("mamba_d_state", "state_size", "ssm_state_size", "linear_key_head_dim", "linear_value_head_dim"), 8
    ),
    **dict.fromkeys(("linear_head_dim", "swa_head_dim"), 8),
    **dict.fromkeys(("mamba_n_heads", "linear_num_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("index_n_heads", "swa_num_key_value_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    "emb_dim": 32,
    "mamba_d_head": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
# What a family needs besides: what must agree with the sizes above, and at least one layer of attention.
ONE_OF_FOUR = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
FIELDS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_theta": 10000.0, "rope_type": "default"}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "bailing_hybrid": {"layer_group_size": 2, "num_experts_per_token": 2},
    "kimi_linear": {"layer_types": ONE_OF_FOUR, "num_experts_per_token": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCAB_SIZE},
    "inkling2_text": {"unpadded_vocab_size": VOCAB_SIZE},
    "phi4_multimodal": {
        "vision_config": {**TINY_TOWER, "image_size": 28, "patch_size": 14, "crop_size": 28},
        "audio_config": {**TINY_TOWER, "num_blocks": 2, "nemo_conv_channels": 32, "ext_pw_out_channel": 32},
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "git": {"vision_config": {**TINY_TOWER, "image_size": 8, "patch_size": 4}},
    "qwen4_exp_text": {
        **dict.fromkeys(("indexer_n_heads", "indexer_compress_ratio"), 2),
        **dict.fromkeys(("indexer_head_dim", "indexer_budget"), 8),
        "indexer_kv_heads": 1,
    },
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attention_head_size": 8, "feed_forward_size": 48},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "shape_vocab_size": 50},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 8, "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_dt_rank": 2},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "num_query_groups": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}
# What a configuration of several models needs.
ASSISTANT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 30}
WHOLE: dict[str, dict[str, Any]] = {"gemma4_assistant": {"text_config": ASSISTANT}}


def tiny_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    """Make a tiny configuration of a language model; of one that is joined with other models, of the language model alone."""
    # MusicGen has two, an encoder of descriptions and a decoder of music.
    is_music = True if model_type.startswith("musicgen") else None
    defaults = CONFIG_MAPPING[model_type](**WHOLE.get(model_type, {})).get_text_config(decoder=is_music)
    names = defaults.to_dict()
    sizes = {name: size for name, size in SIZES.items() if isinstance(names.get(name), int)}
    if "kv_lora_rank" in sizes:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    return type(defaults)(**{**sizes, **FIELDS.get(defaults.model_type, {}), **fields})


def build(text_config: PreTrainedConfig, gate: float) -> FlamingoModel:
    """Build a Flamingo with random weights and its gates at `gate`."""
    vision_config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=8, patch_size=4
    )
    config = FlamingoConfig(
        vision_config=vision_config,
        text_config=text_config,
        resampler_num_layers=1,
        resampler_num_latents=4,
        cross_attention_head_dim=8,
        image_token_id=IMAGE,
        end_of_chunk_token_id=END_OF_CHUNK,
    )
    torch.manual_seed(0)
    model = FlamingoModel(config).eval()
    for block in model.gated_cross_attention:
        block.attn_gate.data.fill_(gate)
        block.ffn_gate.data.fill_(gate)
    return model


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference of two tensors."""
    return (first - second).abs().max().item()


class Case:
    """One language model, conditioned on two images with open gates, and the checks of it."""

    def __init__(self, text_config: PreTrainedConfig):
        self.text_config = text_config
        self.model = build(text_config, 0.5)
        self.ids = torch.tensor([[5, 6, IMAGE, 7, 8, IMAGE, 9, 10, 11, 12]])
        self.pixels = torch.randn(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.expected = self.logits(self.ids)

    def logits(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Compute the logits of a text, without a cache."""
        return self.model(
            input_ids=ids, pixel_values=kwargs.pop("pixels", self.pixels), use_cache=False, **kwargs
        ).logits

    def check_start(self) -> str | None:
        """Check that with closed gates the model is its language model."""
        closed = build(self.text_config, 0.0)
        bare = closed.language_model(input_ids=self.ids, use_cache=False).logits
        difference = distance(closed(input_ids=self.ids, pixel_values=self.pixels, use_cache=False).logits, bare)
        return None if difference == 0 else f"with closed gates its logits differ by {difference:.1g}"

    def check_images(self) -> str | None:
        """Check that a token sees the last image before it, and no token sees what comes after it."""
        if not torch.isfinite(self.expected).all():
            return "its logits are not finite"
        changed = self.pixels.clone()
        changed[:, 1] += 1
        difference = (self.logits(self.ids, pixels=changed) - self.expected).abs().amax(dim=-1)[0]
        if difference[:5].max() > 1e-4:
            return f"tokens before an image see it ({difference[:5].max():.1g})"
        if difference[5:].min() < 1e-4:
            return f"tokens after an image do not see it ({difference[5:].min():.1g})"
        other = self.ids.clone()
        other[0, 7] = 50
        difference = distance(self.logits(other)[:, :7], self.expected[:, :7])
        return None if difference < 1e-4 else f"tokens see the tokens after them ({difference:.1g})"

    def check_cache(self) -> str | None:
        """Check that text after a cache gets the logits that it gets at once."""
        cache = self.model(input_ids=self.ids[:, :8], pixel_values=self.pixels, use_cache=True).cache
        steps = [self.model(input_ids=self.ids[:, i : i + 1], cache=cache, use_cache=True).logits for i in (8, 9)]
        difference = distance(torch.cat(steps, dim=1), self.expected[:, 8:])
        return None if difference < 1e-3 else f"with a cache its logits differ by {difference:.1g}"

    def check_padding(self) -> str | None:
        """Check that padding changes nothing, on the left or, where the model says so, on the right."""
        pad, mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 13, dtype=torch.long)
        try:
            mask[:, :3] = 0
            padded = self.logits(torch.cat([pad, self.ids], dim=1), attention_mask=mask)[:, 3:]
        except ValueError as error:
            if "padding on the left" not in str(error):
                raise
            padded = self.logits(torch.cat([self.ids, pad], dim=1), attention_mask=mask.flip(1))[:, :10]
        difference = distance(padded, self.expected)
        return None if difference < 1e-3 else f"padding changes its logits by {difference:.1g}"

    def check_generation(self) -> str | None:
        """Check that it generates, with a cache what it generates without."""
        arguments = {"input_ids": self.ids, "pixel_values": self.pixels, "max_new_tokens": 4, "do_sample": False}
        first, second = (
            self.model.generate(**arguments, eos_token_id=None, use_cache=use_cache) for use_cache in (True, False)
        )
        return None if torch.equal(first, second) else "it generates another text with a cache"

    def check_training(self) -> str | None:
        """Check one step of training with frozen backbones: the loss is finite, and all new parts get a gradient."""
        model = build(self.text_config, 0.5).train()
        model.freeze_backbones()
        with torch.enable_grad():
            loss = model(input_ids=self.ids, pixel_values=self.pixels, labels=self.ids).loss
            loss.backward()
        if not loss.isfinite():
            return f"its loss is {loss.item()}"
        new = [*model.gated_cross_attention.named_parameters(), *model.resampler.named_parameters()]
        lacking = [name for name, parameter in new if parameter.requires_grad and parameter.grad is None]
        return f"{lacking[0]} gets no gradient" if lacking else None


CHECKS: tuple[Callable[[Case], str | None], ...] = (
    Case.check_start,
    Case.check_images,
    Case.check_cache,
    Case.check_padding,
    Case.check_generation,
    Case.check_training,
)


def refusal(error: Exception) -> str | None:
    """Return the reason of a refusal without the name of the model, `None` if the error is not a refusal."""
    text = " ".join(str(error).split())
    found = re.search(r"cannot be conditioned on images: (.*)", text) if isinstance(error, ValueError) else None
    return found[1] if found else None


def try_whole(model_type: str) -> tuple[str, str]:
    """Return whether the language model of several models in one can be taken out."""
    config = CONFIG_MAPPING[model_type](**WHOLE.get(model_type, {}))
    try:
        check_text_config(config)
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config)
        take_language_model(whole)
    except ValueError as error:
        reason = refusal(error)
        if reason is None:
            raise
        return "refused", reason
    return "works", ""


def try_one(text_config: PreTrainedConfig) -> tuple[str, str]:
    """Return the verdict on one language model, and what is wrong."""
    try:
        with torch.device("meta"):
            model = build(text_config, 0.5)
    except ValueError as error:
        reason = refusal(error)
        if reason is None:
            raise
        return "refused", reason
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        return "no verdict", f"the tiny configuration has {count:,} parameters"
    case = Case(text_config)
    for check in CHECKS:
        wrong = check(case)
        if wrong is not None:
            return "fails", wrong
    return "works", ""


def verdict(model_type: str) -> dict[str, str]:
    """Return the verdict on an entry of the mapping: its class, `verdict` and `remark`."""
    row = {"type": model_type, "class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]}

    def alarm(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(SECONDS)
    try:
        text_config = tiny_config(model_type)
        is_part = text_config.model_type != CONFIG_MAPPING[model_type].model_type
        with torch.no_grad():
            result, remark = try_whole(model_type) if is_part else ("works", "")
            if result == "works":
                result, remark = try_one(text_config)
            if result == "refused" and "is_decoder=True" in remark:
                result, remark = try_one(tiny_config(model_type, is_decoder=True))
                remark = remark or "with `is_decoder=True`"
        if is_part and result == "works":
            remark = f"the language model inside, `{text_config.model_type}`"
    except Exception as error:
        result, remark = "fails", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.alarm(0)
    return {**row, "verdict": result, "remark": remark}


def table(rows: list[dict[str, str]]) -> str:
    """Format verdicts as the numbers of each and a Markdown table."""
    counts = {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS}
    verbs = {"works": "work", "refused": "are refused", "fails": "fail", "no verdict": "have no verdict"}
    numbers = " and ".join(f"{count} {verbs[name]}" for name, count in counts.items() if count)
    lines = [
        f"Of {len(rows)} entries, {numbers}.",
        "",
        "| model type | class | verdict | remark |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{row['type']}` | `{row['class']}` | {row['verdict']} | {row['remark']} |" for row in rows]
    return "\n".join(lines)


def save(rows: list[dict[str, str]]) -> None:
    """Write the verdicts into the results and into the table of the docs. Rows of the results that are not given stay."""
    known = (
        {row["type"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]}
        if RESULTS.exists()
        else {}
    )
    known.update({row["type"]: row for row in rows})
    rows = [known[name] for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) if name in known]
    result = {"transformers": transformers.__version__, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = DOCS.read_text(encoding="utf-8")
    new = f"<!-- table -->\nWith transformers {result['transformers']}. {table(rows)}\n<!-- end -->"
    DOCS.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: new, text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Try language models, and print or save the verdicts."""
    transformers.logging.set_verbosity(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types (default: all)")
    parser.add_argument("--save", action="store_true", help="write the results and the table of the docs")
    options = parser.parse_args()
    if unknown := sorted(set(options.types) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)):
        parser.error(
            f"transformers {transformers.__version__} has no causal language model of type {', '.join(unknown)}"
        )
    rows = []
    for name in options.types or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        rows.append(verdict(name))
        print(*(rows[-1][key] for key in ("type", "verdict", "remark")), flush=True)
    if options.save:
        save(rows)


if __name__ == "__main__":
    main()
