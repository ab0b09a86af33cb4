"""sam2-edge-nano, the bundled model: SAM 2.1's architecture at a size that trains on a CPU."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge.models.families import at_image_size

NANO_IMAGE_SIZE = 256

WIDTHS = (32, 64, 128, 256)
HIDDEN = 128
MEMORY_CHANNELS = 64
FEED_FORWARD = 512

FUSER_SCALE = 0.1
"""Initial layer scale of the memory fuser: the published 1e-6 requires far longer training."""

EMBEDDING_SPREAD = 0.5
"""Standard deviation of prompt and output tokens at the start."""

BARE_PARAMETERS = (
    "pos_embed",
    "pos_embed_window",
    "memory_temporal_positional_encoding",
    "no_memory_embedding",
    "no_object_pointer",
    "occlusion_spatial_embedding_parameter",
)
"""Parameters outside layers; they start near zero."""


def nano_config(image_size: int = NANO_IMAGE_SIZE) -> Sam2VideoConfig:
    """The transformers configuration of nano: 3.8 million parameters.

    Windows of 8 and 4 tile every stage at 128 and at 256 pixels, so that no attention is padded.
    """
    backbone = Sam2HieraDetConfig(
        hidden_size=WIDTHS[0],
        num_attention_heads=1,
        blocks_per_stage=[1, 2, 6, 1],
        embed_dim_per_stage=list(WIDTHS),
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 8, 4],
        global_attention_blocks=[6, 8],
        window_positional_embedding_background_size=[8, 8],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(WIDTHS[::-1]),
        fpn_hidden_size=HIDDEN,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": HIDDEN},
        mask_decoder_config={
            "hidden_size": HIDDEN,
            "mlp_dim": FEED_FORWARD,
            "iou_head_hidden_dim": HIDDEN,
            "num_attention_heads": 4,
        },
        memory_attention_hidden_size=HIDDEN,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=FEED_FORWARD,
        memory_encoder_hidden_size=HIDDEN,
        memory_encoder_output_channels=MEMORY_CHANNELS,
        mask_downsampler_embed_dim=HIDDEN,
        memory_fuser_embed_dim=HIDDEN,
        memory_fuser_intermediate_dim=2 * HIDDEN,
        enable_occlusion_spatial_embedding=True,
        enable_temporal_pos_encoding_for_object_pointers=True,
    )
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    return at_image_size(config, image_size)


def untrained_nano(seed: int) -> Sam2VideoModel:
    """A fresh nano for training with random weights.

    transformers draws weights of 0.02, with which signals vanish in layers this narrow; PyTorch's
    own initialization keeps their scale.
    """
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = Sam2VideoModel(nano_config())
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                    module.reset_parameters()
                elif isinstance(module, nn.Embedding):
                    module.weight.normal_(0.0, EMBEDDING_SPREAD)
            for name, parameter in model.named_parameters():
                if name.endswith(".scale"):
                    parameter.fill_(FUSER_SCALE)
                elif name.endswith(BARE_PARAMETERS):
                    parameter.normal_(0.0, 0.02)
            frequencies = model.prompt_encoder.shared_embedding.positional_embedding
            model.shared_image_embedding.positional_embedding.copy_(frequencies)
    finally:
        torch.random.set_rng_state(state)
    return model
