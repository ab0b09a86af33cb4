"""A small random model of SAM 3's tracker with the full architecture."""

from __future__ import annotations

from typing import Any

from transformers import Sam3TrackerVideoConfig

from sam2_edge.models.families import at_image_size

IMAGE_SIZE = 336
"""24 x 24 cells: the smallest size, at which nine windows of `small_config` tile the picture."""

SEED = 5
"""Of weights with which objects are present, and their masks neither empty nor full."""


def small_config(image_size: int = IMAGE_SIZE, **backbone: Any) -> Sam3TrackerVideoConfig:
    """SAM 3's tracker, narrow and shallow, with windows of 8 x 8 cells.

    Args:
        image_size: Side of the model input, pixels.
        backbone: Entries of the backbone's configuration to replace.
    """
    small = {
        "model_type": "sam3_vit_model",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "window_size": 8,
        "pretrain_image_size": 112,
        "global_attn_indexes": [1],
    }
    config = Sam3TrackerVideoConfig(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": small | backbone,
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128},
        mask_decoder_config={
            "hidden_size": 128,
            "mlp_dim": 128,
            "num_hidden_layers": 1,
            "iou_head_hidden_dim": 64,
        },
        memory_attention_hidden_size=128,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_num_layers=1,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=128,
    )
    return at_image_size(config, image_size)
