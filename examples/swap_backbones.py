"""
Combine any vision encoder with any causal language model: here tiny random ones of some of the families that the tests cover.

    python examples/swap_backbones.py

With pretrained backbones, use `FlamingoModel.from_vision_text_pretrained("facebook/dinov2-base", "facebook/opt-350m")`.
"""

import torch
from transformers import AutoConfig

from transformers_flamingo import FlamingoConfig, FlamingoModel


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = ["clip_vision_model", "siglip_vision_model", "dinov2", "vit"]
TEXT = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "llama": SMALL,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
}


def main() -> dict[tuple[str, str], torch.Size]:
    """Build each combination, run it, and return the shapes of the logits by backbones."""
    shapes = {}
    for vision in VISION:
        for text, sizes in TEXT.items():
            config = FlamingoConfig.from_vision_text_configs(
                AutoConfig.for_model(vision, image_size=32, patch_size=8, **SMALL),
                AutoConfig.for_model(text, vocab_size=100, **sizes),
                resampler_num_layers=1,
            )
            model = FlamingoModel(config)
            ids = torch.tensor([[5, config.image_token_id, 6, 7]])
            logits = model(input_ids=ids, pixel_values=torch.randn(1, 1, 3, 32, 32)).logits
            shapes[vision, text] = logits.shape
            print(f"{vision:20} + {text:6} {model.num_parameters():9,} parameters, logits {tuple(logits.shape)}")
    return shapes


if __name__ == "__main__":
    main()
