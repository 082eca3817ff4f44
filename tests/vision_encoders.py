# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
A tiny configuration of each vision model that transformers has, and what Flamingo makes of it.

`python tests/vision_encoders.py` writes the table in `docs/vision-encoders.md`. `tests/test_vision_encoders_flamingo.py` holds it.
"""

import re
from pathlib import Path
from typing import Any

import torch
from factory import tiny_text_config
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES, MODEL_MAPPING_NAMES

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.configuration_flamingo import find_width


PAGE = Path(__file__).parent.parent / "docs" / "vision-encoders.md"


_VIT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_IMAGE = {"image_size": 16, "patch_size": 4}
_STAGES = {"hidden_sizes": [8, 12], "depths": [1, 1]}
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
_SEGFORMER = {
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 12],
    "patch_sizes": [3, 3],
    "strides": [2, 2],
    "num_attention_heads": [2, 2],
    "mlp_ratios": [2, 2],
}
_RESNET = {"model_type": "resnet", "embedding_size": 8, "layer_type": "basic", **_STAGES, "out_indices": [2]}
_DINOV2 = {"model_type": "dinov2", **_VIT, **_IMAGE}
_DETR = {
    "backbone_config": _RESNET,
    "d_model": 16,
    "num_queries": 3,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
# Vision parts of multimodal models, whose processors pack the patches of all images into one row.
_PACKED = (
    "cohere_compass_vision",
    "cosmos3_edge_vision",
    "exaone4_5_vision",
    "gemma4_vision",
    "glm4v_moe_vision",
    "glm4v_vision",
    "glm5_next_vision",
    "glm_image_vision",
    "glm_ocr_vision",
    "hunyuan_vl_vision",
    "hy_v4_vl_vision",
    "inkling2_vision",
    "kimi_k25_vision",
    "lfm3_vl_vision",
    "minicpm_ocr_vision",
    "minicpmv4_7_vision",
    "muse_glimmer_vision",
    "muse_spark_vision",
    "qwen2_5_vl_vision",
    "qwen3_5_moe_vision",
    "qwen3_5_vision",
    "qwen3_vl_moe_vision",
    "qwen3_vl_vision",
    "qwen4_exp_vision",
    "video_llama_3_vision",
)
_VIDEO = {**_VIT, **_IMAGE, "num_frames": 2, "tubelet_size": 2}

_SAM2_HIERA = {
    "hidden_size": 8,
    "num_attention_heads": 1,
    "image_size": [32, 32],
    "window_positional_embedding_background_size": [2, 2],
    "num_query_pool_stages": 1,
    "blocks_per_stage": [1, 1],
    "embed_dim_per_stage": [8, 12],
    "num_attention_heads_per_stage": [1, 2],
    "window_size_per_stage": [2, 2],
    "global_attention_blocks": [],
}
_SAM3_VIT = {**_VIT, **_IMAGE, "window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 16}

# type of the model -> fields of its configuration
CONFIGS: dict[str, dict[str, Any]] = {
    "aimv2_vision_model": {**_VIT, **_IMAGE},
    "beit": {**_VIT, **_IMAGE},
    "bit": {**_STAGES, "hidden_sizes": [8, 16], "embedding_size": 8, "num_groups": 2},
    "chinese_clip_vision_model": {**_VIT, **_IMAGE},
    "clip_vision_model": {**_VIT, **_IMAGE},
    "convnext": {**_STAGES, "patch_size": 2, "num_stages": 2},
    "convnextv2": {**_STAGES, "patch_size": 2, "num_stages": 2},
    "cvt": {
        "image_size": 32,
        "patch_sizes": [3, 3],
        "patch_stride": [2, 2],
        "patch_padding": [1, 1],
        "embed_dim": [8, 12],
        "num_heads": [2, 2],
        "depth": [1, 2],
        "mlp_ratio": [2.0, 2.0],
        "attention_drop_rate": [0.0, 0.0],
        "drop_rate": [0.0, 0.0],
        "drop_path_rate": [0.0, 0.0],
        "qkv_bias": [True, True],
        "cls_token": [False, True],
        "qkv_projection_method": ["dw_bn", "dw_bn"],
        "kernel_qkv": [3, 3],
        "padding_kv": [1, 1],
        "stride_kv": [2, 2],
        "padding_q": [1, 1],
        "stride_q": [1, 1],
    },
    "data2vec-vision": {**_VIT, **_IMAGE},
    "deit": {**_VIT, **_IMAGE},
    "dinov2": {**_VIT, **_IMAGE},
    "dinov2_with_registers": {**_VIT, **_IMAGE},
    "dinov3_convnext": {**_STAGES, "hidden_sizes": [8, 8, 12, 12], "depths": [1, 1, 1, 1]},
    "dinov3_vit": {**_VIT, **_IMAGE, "num_register_tokens": 3},
    "donut-swin": _SWIN,
    "dpt": {**_VIT, **_IMAGE},
    "efficientnet": {
        "image_size": 16,
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "hidden_dim": 128,
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "num_block_repeats": [1, 2],
        "expand_ratios": [1, 2],
    },
    "focalnet": {
        "image_size": 16,
        "patch_size": 2,
        "embed_dim": 8,
        "hidden_sizes": [16, 16],
        "depths": [1, 1],
        "focal_levels": [1, 1],
        "focal_windows": [3, 3],
    },
    "glpn": _SEGFORMER,
    "hgnet_v2": {
        "embedding_size": 8,
        "depths": [1, 1],
        "hidden_sizes": [8, 12],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8],
        "stage_mid_channels": [8, 8],
        "stage_out_channels": [8, 12],
        "stage_num_blocks": [1, 1],
        "stage_downsample": [False, True],
        "stage_downsample_strides": [2, 2],
        "stage_light_block": [False, False],
        "stage_kernel_size": [3, 3],
        "stage_numb_of_layers": [1, 1],
    },
    "hiera": {
        "image_size": [32, 32],
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "num_query_pool": 1,
        "masked_unit_size": [2, 2],
        "masked_unit_attention": [True, False],
    },
    "idefics3_vision": {**_VIT, **_IMAGE},
    "ijepa": {**_VIT, **_IMAGE},
    "internvl_vision": {**_VIT, "image_size": [16, 16], "patch_size": [4, 4]},
    "levit": {
        "image_size": 32,
        "hidden_sizes": [16, 24],
        "num_attention_heads": [2, 2],
        "depths": [1, 1],
        "key_dim": [4, 4],
        "mlp_ratio": [2, 2],
        "attention_ratio": [2, 2],
        "down_ops": [["Subsample", 4, 4, 4, 2, 2]],
    },
    "mlcd": {**_VIT, **_IMAGE, "num_key_value_groups": 1},
    "mlcd_vision_model": {**_VIT, **_IMAGE, "num_key_value_groups": 1},
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.05},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.05, "finegrained_output": False},
    "mobilevit": {
        "image_size": 64,
        "hidden_sizes": [8, 8, 8],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 12],
        "num_attention_heads": 2,
    },
    "mobilevitv2": {
        "image_size": 64,
        "width_multiplier": 0.1,
        "base_attn_unit_dims": [80, 80, 80],
        "n_attn_blocks": [1, 1, 1],
    },
    "pixio": {**_VIT, **_IMAGE, "n_cls_tokens": 2},
    "pixtral": {**_VIT, **_IMAGE, "head_dim": 12},
    "poolformer": {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "hidden_sizes": [8, 12],
        "patch_sizes": [3, 3],
        "strides": [2, 2],
        "padding": [1, 1],
    },
    "pvt": {
        **{name: value for name, value in _SEGFORMER.items() if name != "sr_ratios"},
        "image_size": 16,
        "sequence_reduction_ratios": [2, 1],
        "patch_sizes": [4, 2],
        "strides": [4, 2],
    },
    "pvt_v2": {**_SEGFORMER, "image_size": 16},
    "qianfan_ocr_vision": {**_VIT, "image_size": [16, 16], "patch_size": [4, 4]},
    "radio": {**_VIT, **_IMAGE, "num_cls_tokens": 2, "num_registers": 1, "max_img_size": 16},
    "regnet": {**_STAGES, "embedding_size": 8, "groups_width": 4},
    "resnet": {name: value for name, value in _RESNET.items() if name != "model_type"},
    "sam2_hiera_det_model": _SAM2_HIERA,
    "sam3_vit_model": _SAM3_VIT,
    "sam2_vision_model": {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **_SAM2_HIERA},
        "backbone_channel_list": [12, 8],
        "backbone_feature_sizes": [[8, 8], [4, 4]],
        "fpn_hidden_size": 8,
        "fpn_top_down_levels": [1],
        "num_feature_levels": 1,
    },
    "sam3_vision_model": {
        "backbone_config": {"model_type": "sam3_vit_model", **_SAM3_VIT},
        "fpn_hidden_size": 8,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "sam_hq_vision_model": {**_VIT, **_IMAGE, "output_channels": 12, "mlp_dim": 32, "window_size": 2},
    "sam_vision_model": {**_VIT, **_IMAGE, "output_channels": 12, "mlp_dim": 32, "window_size": 2},
    "sapiens2": {**_VIT, **_IMAGE, "num_register_tokens": 2},
    "segformer": _SEGFORMER,
    "siglip_vision_model": {**_VIT, **_IMAGE},
    "smolvlm_vision": {**_VIT, **_IMAGE},
    "swiftformer": {
        "image_size": 32,
        "depths": [1, 1],
        "embed_dims": [8, 12],
        "downsamples": [True, True],
    },
    "swin": _SWIN,
    "swin2sr": {**_SWIN, "image_size": 8, "patch_size": 1, "window_size": 4},
    "swinv2": {**_SWIN, "pretrained_window_sizes": [0, 0]},
    "textnet": {
        "image_size": [16, 16],
        "stem_out_channels": 8,
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]]],
        "conv_layer_strides": [[1], [2]],
        "hidden_sizes": [8, 8, 12],
    },
    "tipsv2_vision_model": {**_VIT, **_IMAGE},
    "vit": {**_VIT, **_IMAGE},
    "vit_msn": {**_VIT, **_IMAGE},
    "vitdet": {**_VIT, **_IMAGE, "pretrain_image_size": 16},
    "yolos": {**_VIT, "image_size": [16, 16], "patch_size": 4, "num_detection_tokens": 3},
    # Those that do not fit need no small configuration: nothing of them is computed
    "conditional_detr": _DETR,
    "dab-detr": {name: value for name, value in _DETR.items() if name != "d_model"} | {"hidden_size": 16},
    "deformable_detr": {**_DETR, "d_model": 32, "num_feature_levels": 1},
    "depth_pro": {
        "patch_size": 16,
        "fusion_hidden_size": 8,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [8, 8],
        "scaled_images_ratios": [0.5, 1.0],
        "scaled_images_overlap_ratios": [0.0, 0.5],
        "scaled_images_feature_dims": [8, 8],
        "use_fov_model": False,
        "image_size": 32,
        **dict.fromkeys(("image_model_config", "patch_model_config", "fov_model_config"), _DINOV2),
    },
    "detr": _DETR,
    "granite_docling_vision": {
        **_VIT,
        **_IMAGE,
        "out_hidden_size": 24,
        "scale_factor": 2,
        "deepstack_visual_indexes": [0],
    },
    "maskformer-swin": _SWIN,
    "table-transformer": _DETR,
    "timesformer": _VIDEO,
    "videomae": _VIDEO,
    "vivit": {**_VIDEO, "tubelet_size": [2, 4, 4]},
    "vjepa2": {**_VIT, "patch_size": 4, "crop_size": 16, "frames_per_clip": 2, "pred_num_hidden_layers": 1},
    "videoprism_vision_model": {},
    "vit_mae": {**_VIT, **_IMAGE},
    "imagegpt": {"n_layer": 1, "n_embd": 16, "n_head": 2},
    "seggpt": {},
    "perceiver": {"num_self_attends_per_block": 1},
    "siglip2_vision_model": {**_VIT, "patch_size": 4},
    **{kind: {} for kind in _PACKED},
}
# Built without memory: they are refused, and small ones would need as many fields as those above.
_ON_META = {"perceiver", "seggpt", "videoprism_vision_model", *_PACKED}
# What cannot be built here, because a package is missing.
_MISSING = {
    "dinat": "not tried: needs `natten`",
    "edgetam_vision_model": "not tried: needs `timm`",
    "gemma3n_vision": "as `timm_wrapper`",
    "timm_backbone": "refused: returns no `last_hidden_state`, but feature maps. Use `timm_wrapper`",
    "timm_wrapper": "works, with `timm`; see above",
}


def model_types() -> list[str]:
    """List the vision models of `AutoModel`: those that it has for images, the vision parts of others, and some of its backbones."""
    parts = {kind for kind, name in MODEL_MAPPING_NAMES.items() if "Vision" in str(name)}
    return sorted(parts | MODEL_FOR_IMAGE_MAPPING_NAMES.keys() | CONFIGS.keys())


def find_tower(model_type: str) -> str | None:
    """Return the type of the vision tower of a model that also has a language model."""
    if "vision_config" not in CONFIG_MAPPING[model_type].sub_configs:
        return None
    return CONFIG_MAPPING[model_type]().vision_config.model_type


def small_config(model_type: str) -> PreTrainedConfig:
    """Make the small configuration of a vision model."""
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type])
    if model_type in _ON_META:
        for name in ("depth", "num_hidden_layers"):
            if isinstance(getattr(config, name, None), int):
                setattr(config, name, 1)
    return config


def make_flamingo(
    vision_config: PreTrainedConfig | dict, *, encoder: PreTrainedModel | None = None, **kwargs
) -> FlamingoModel:
    """Build a tiny Flamingo with a vision encoder, which may exist."""
    sizes = {"resampler_num_layers": 1, "resampler_num_latents": 2, "resampler_num_heads": 1, "resampler_head_dim": 8}
    sizes |= {"cross_attention_num_heads": 1, "cross_attention_head_dim": 8}
    torch.manual_seed(0)
    config = FlamingoConfig(vision_config=vision_config, text_config=tiny_text_config(), **sizes, **kwargs)
    return FlamingoModel(config, vision_model=encoder).eval()


def judge(model_type: str) -> tuple[str, FlamingoModel | None]:
    """Return what the table says about a vision model, and a Flamingo with it, if it works."""
    if model_type in _MISSING:
        return _MISSING[model_type], None
    if (tower := find_tower(model_type)) is not None:
        known = tower in MODEL_MAPPING_NAMES
        return (
            f"its tower, `{tower}`" if known else f"refused: `AutoModel` has no model for its tower, `{tower}`",
            None,
        )
    config = small_config(model_type)
    try:
        with torch.device("meta" if model_type in _ON_META else "cpu"):
            model = make_flamingo(config)
    except ValueError as error:
        reason = re.sub(r"^.*(which does not fit: |, a detector: )", "", str(error)).partition(". ")[0]
        return f"refused: {reason}", None
    return "works" + ("" if find_width(config, [-1]) else "; stages"), model


def make_table() -> str:
    """Make the table of the page."""
    names = {kind: name if isinstance(name, str) else name[0] for kind, name in MODEL_MAPPING_NAMES.items()}
    rows = [f"| `{kind}` | {names[kind]} | {judge(kind)[0]} |" for kind in model_types()]
    return "\n".join(["| `model_type` | model | |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    before, _, _ = PAGE.read_text(encoding="utf-8").partition("| `model_type` |")
    PAGE.write_text(before + make_table(), encoding="utf-8")
