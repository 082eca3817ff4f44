# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure what one more token costs after 1 to 32 images, and what the cache holds: `python docs/figures/media_cache.py`.

The model has the widths of the paper's 3B in one decoder layer, on the meta device, so nothing depends on weights or on the machine. The
gated block is counted by itself, because the decoder layer of the language model costs the same in all cases.
"""

import torch
from drawing import FIGURES, INK, save
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config
from transformers.cache_utils import DynamicLayer

from transformers_flamingo import FlamingoConfig
from transformers_flamingo.layers_flamingo import FlamingoGatedCrossAttentionBlock
from transformers_flamingo.media_cache_flamingo import MediaCacheLayer
from transformers_flamingo.visibility_flamingo import build_mask_layout


IMAGES = (1, 2, 4, 8, 16, 32)
WIDTH, LATENTS, VISION_WIDTH, HEADS, HEAD_DIM = 2048, 64, 1536, 16, 128


def measure(num_images: int) -> tuple[float, float, float]:
    """Return the million operations of one token from the cache and over all images, and the KiB that the cache holds."""
    config = FlamingoConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": VISION_WIDTH, "num_attention_heads": 16},
        text_config=GPT2Config(n_embd=WIDTH, n_head=HEADS, n_layer=1).to_dict(),
        cross_attention_num_heads=HEADS,
        cross_attention_head_dim=HEAD_DIM,
        image_token_id=0,
        end_of_chunk_token_id=1,
    )
    config._attn_implementation = "eager"
    with torch.device("meta"):
        block = FlamingoGatedCrossAttentionBlock(config).eval()
        token = torch.empty(1, 1, WIDTH)
        latents = torch.empty(1, num_images, LATENTS, VISION_WIDTH)
        index = torch.full((1, 1), num_images)
    layer = make_cache(block)
    with FlopCounterMode(display=False) as cached, torch.no_grad():
        block(token, None, cache=layer)
    with FlopCounterMode(display=False) as uncached, torch.no_grad():
        block(token, latents, build_mask_layout(index, latents, torch.float32))
    kept = layer.keys.nbytes + layer.values.nbytes
    return cached.get_total_flops() / 1e6, uncached.get_total_flops() / 1e6, kept / 2**10


def make_cache(block: FlamingoGatedCrossAttentionBlock) -> MediaCacheLayer:
    """Return the cache of a block after a prompt: keys and values of its last image, whatever the number of images."""
    layer = MediaCacheLayer(DynamicLayer())
    layer.set_image(*block.attention.project_context(torch.empty(1, LATENTS, VISION_WIDTH, device="meta")))
    return layer


def draw_media_cache() -> None:
    """Draw operations per token against images, with and without the cache of one image."""
    rows = [measure(number) for number in IMAGES]
    for number, row in zip(IMAGES, rows, strict=True):
        print(f"{number:2d} images: {row[0]:8.1f} and {row[1]:10.1f} million operations, {row[2]:.0f} KiB kept")
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        IMAGES, [row[1] for row in rows], "s--", color="#b5651d", label="projecting the latents of all images again"
    )
    axes.plot(IMAGES, [row[0] for row in rows], "o-", color=INK, label="from the cache of one image")
    axes.set(
        xlabel="images in the prompt",
        ylabel="million operations",
        xscale="log",
        yscale="log",
        xticks=IMAGES,
        title="One more token, in one gated block",
    )
    axes.set_xticklabels([str(number) for number in IMAGES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(figure, FIGURES / "media-cache.svg")


if __name__ == "__main__":
    draw_media_cache()
