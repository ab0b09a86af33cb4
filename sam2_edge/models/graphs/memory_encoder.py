"""The memory encoder graph as a PyTorch module: a frame and its masks become memories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import MemoryRounding
from sam2_edge.models.families import family_of

FEW_CHANNELS = 32
"""With fewer channels, layer normalization is written out."""


class MemoryEncoder(nn.Module):
    """embedding, mask_logits, object_score, binarize -> memory.

    Args:
        model: The model.
        rounding: "bfloat16" rounds the memory as the published predictor does (the tensor stays
            float32), "none" does not.
    """

    def __init__(self, model: Any, *, rounding: MemoryRounding) -> None:
        super().__init__()
        self.encoder = model.memory_encoder
        self.scale = float(model.config.sigmoid_scale_for_mem_enc)
        self.bias = float(model.config.sigmoid_bias_for_mem_enc)
        self.absent = model.occlusion_spatial_embedding_parameter
        family = family_of(model.config)
        geometry = family.geometry(model.config)
        self.size = geometry.image_size
        # Convolutions reduce the mask to cells: 16 pixels a cell, also where the image has 14.
        self.mask_size = geometry.embedding_size * model.config.mask_downsampler_total_stride
        self.compressor = family.compressor(model)
        self.round_to_bfloat16 = rounding == "bfloat16"

    def forward(
        self, embedding: Tensor, mask_logits: Tensor, object_score: Tensor, binarize: Tensor
    ) -> Tensor:
        """Memory of a frame for B objects, in the shape of the geometry."""
        logits = F.interpolate(
            mask_logits, size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        hard = (logits > 0).to(logits.dtype)
        mask = torch.where(binarize[:, None, None, None] > 0, hard, logits.sigmoid())
        mask = mask * self.scale + self.bias
        if self.mask_size != self.size:  # SAM 3, `SimpleMaskDownSampler`
            size = (self.mask_size, self.mask_size)
            mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
        mask = self._downsample(mask)
        hidden = self.encoder.feature_projection(embedding) + mask
        memory = self.encoder.projection(self.encoder.memory_fuser(hidden))
        if self.absent is not None:
            gone = (object_score <= 0).to(memory.dtype)[:, None, None, None]
            memory = memory + gone * self.absent.reshape(1, -1, 1, 1)
        if self.compressor is not None:
            memory = self.compressor(memory)
        if self.round_to_bfloat16:
            memory = memory.to(torch.bfloat16).to(torch.float32)
        return memory

    def _downsample(self, mask: Tensor) -> Tensor:
        """A mask as features of the embedding's size [B,C,h,w]."""
        downsampler = self.encoder.mask_downsampler
        for layer in downsampler.layers:
            mask = layer.activation(_normalize(layer.layer_norm, layer.conv(mask)))
        return downsampler.final_conv(mask)


def _normalize(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalization over the channels of [B,C,H,W].

    ONNX Runtime's operator works cell by cell, which with 4 channels is several times slower than
    arithmetic on whole channels.
    """
    if x.shape[1] >= FEW_CHANNELS:
        return norm(x)
    centered = x - x.mean(dim=1, keepdim=True)
    scale = torch.rsqrt((centered * centered).mean(dim=1, keepdim=True) + norm.eps)
    return centered * scale * norm.weight[:, None, None] + norm.bias[:, None, None]
