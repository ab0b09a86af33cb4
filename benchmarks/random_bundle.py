"""A very small model with random weights, for runs of a million frames.

python benchmarks/random_bundle.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import Sam2VideoConfig, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.families import at_image_size
from sam2_edge.models.random_init import random_model

IMAGE_SIZE, WIDTH, HIDDEN, SEED = 64, 8, 64, 6


def config() -> Sam2VideoConfig:
    """SAM 2.1 with every part, as narrow and shallow as transformers allows."""
    widths = [WIDTH * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=WIDTH,
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[2],
    )
    found = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=widths[::-1],
            fpn_hidden_size=HIDDEN,
        ),
        prompt_encoder_config={"hidden_size": HIDDEN},
        mask_decoder_config={
            "hidden_size": HIDDEN,
            "mlp_dim": HIDDEN,
            "iou_head_hidden_dim": HIDDEN,
            "num_attention_heads": 2,
        },
        memory_attention_hidden_size=HIDDEN,
        memory_attention_feed_forward_hidden_size=HIDDEN,
        memory_attention_num_layers=1,
        memory_encoder_hidden_size=HIDDEN,
        mask_downsampler_embed_dim=HIDDEN,
        memory_fuser_embed_dim=HIDDEN,
        memory_fuser_intermediate_dim=HIDDEN,
        enable_occlusion_spatial_embedding=True,
        enable_temporal_pos_encoding_for_object_pointers=True,
    )
    found._attn_implementation = "eager"
    return at_image_size(found, IMAGE_SIZE)


if __name__ == "__main__":
    model = random_model(config(), SEED)
    export_bundle(LoadedModel(model, "random", "sam2.1", "random weights", None), Path(sys.argv[1]))
