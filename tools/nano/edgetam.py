"""edgetam-nano: EdgeTAM's architecture around the weights of the bundled nano."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig

from sam2_edge.models.edgetam.config import at_image_size
from sam2_edge.models.edgetam.repvit import ConvNorm, RepVitConfig
from tools.nano.architecture import FEED_FORWARD, HIDDEN, MEMORY_CHANNELS, NANO_IMAGE_SIZE

EDGETAM_NANO = "edgetam-nano"

WIDTHS = (32, 64, 128, 112)
DEPTHS = (1, 1, 4, 1)

MEMORY_FEED_FORWARD = 480
"""Hidden units of memory attention: nano has 512, with which the weights would exceed 5 MB."""

FREE_LATENTS = 64
GRID = 8
PLACED_LATENTS = GRID * GRID


def edgetam_nano_config(image_size: int = NANO_IMAGE_SIZE) -> EdgeTamVideoConfig:
    """The transformers configuration: decoder and memory as in nano."""
    vision = EdgeTamVisionConfig(
        backbone_config=RepVitConfig(widths=list(WIDTHS), depths=list(DEPTHS)),
        backbone_channel_list=list(WIDTHS[::-1]),
        fpn_hidden_size=HIDDEN,
    )
    config = EdgeTamVideoConfig(
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
        memory_attention_mlp_hidden_size=MEMORY_FEED_FORWARD,
        memory_attention_rope_k_sizes=[GRID, GRID],
        perceiver_resampler_num_latents=FREE_LATENTS,
        perceiver_resampler_num_latents_2d=PLACED_LATENTS,
        perceiver_resampler_num_layers=1,
        perceiver_resampler_mlp_intermediate_size=64,
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


@torch.no_grad()
def fold_norms(model: EdgeTamVideoModel) -> None:
    """Move batch normalization into the convolutions before it; the outputs stay the same.

    Weights then are those of the exported graphs, which can share them.
    """
    for module in model.modules():
        if isinstance(module, ConvNorm):
            weight, bias = module.kernel()
            assert module.bn.running_mean is not None
            assert module.bn.running_var is not None
            module.c.weight.copy_(weight)
            module.bn.weight.fill_(1.0)
            module.bn.bias.copy_(bias)
            module.bn.running_mean.zero_()
            module.bn.running_var.fill_(1.0 - module.bn.eps)


class TrainableFeatures(nn.Module):
    """What `RepVitFeatures` computes, with gradients and batch normalization."""

    def __init__(self, model: EdgeTamVideoModel) -> None:
        super().__init__()
        self.backbone = model.vision_encoder.backbone.timm_model
        self.convs = model.vision_encoder.neck.convs
        self.finest, self.fine = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1

    def with_still_norms(self) -> TrainableFeatures:
        """Use the statistics of earlier training: those of the few scenes of a batch are poor."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B,3,S,S], normalized -> high_res_0, high_res_1, embedding."""
        finest, fine, middle, coarse = self.backbone(
            pixels.contiguous(memory_format=torch.channels_last)
        )
        coarse = F.interpolate(self.convs[0](coarse), scale_factor=2.0, mode="nearest")
        return (
            self.finest(self.convs[3](finest)),
            self.fine(self.convs[2](fine)),
            self.convs[1](middle) + coarse,
        )
