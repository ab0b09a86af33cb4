"""The mask prompt graph as a PyTorch module: a mask prompt becomes logits and decoder input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import MASK_PIXELS
from sam2_edge.models.families import family_of

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0
"""A mask prompt becomes logits of +10 and -10 (SAM 2, `_use_mask_as_output`)."""


class MaskPrompt(nn.Module):
    """mask float32 [B,1,S,S] of 0 and 1 -> mask_input (for the decoder), mask_logits.

    The reduction to logits, by 4 (by 3.5 in SAM 3), is PyTorch's antialiased bilinear one, written
    as a convolution: a triangle, renormalized at the border (not every runtime has Resize with
    antialias). A fraction is one convolution whose channels are neighboring logits: with 3.5, two
    logits of a row lie in 7 pixels, always alike.
    """

    taps: Tensor
    weight_sum: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.downsample = model.mask_downsample
        geometry = family_of(model.config).geometry(model.config)
        common = math.gcd(geometry.stride, MASK_PIXELS)
        self.pixels, self.logits = geometry.stride // common, MASK_PIXELS // common
        self.padding = math.ceil(self.pixels / self.logits / 2)  # of half a triangle
        self.register_buffer("taps", self._triangles(), persistent=False)
        ones = torch.ones(1, 1, geometry.image_size, geometry.image_size)
        self.register_buffer("weight_sum", self._reduce(ones), persistent=False)
        # The learned reduction ends at the size of the logits.
        self.size = geometry.mask_size * self.downsample.stride[0]

    def _triangles(self) -> Tensor:
        """Weights [logits**2, 1, T, T] of the pixels around `self.pixels` squared."""
        width = self.pixels / self.logits
        pixel = torch.arange(self.pixels + 2 * self.padding) - self.padding + 0.5
        center = width * (torch.arange(self.logits) + 0.5)
        rows = (1.0 - (pixel - center[:, None]).abs() / width).clamp(min=0)
        grid = rows[:, None, :, None] * rows[None, :, None, :]
        return grid.flatten(0, 1)[:, None].contiguous()

    def _reduce(self, mask: Tensor) -> Tensor:
        reduced = F.conv2d(mask, self.taps, stride=self.pixels, padding=self.padding)
        return F.pixel_shuffle(reduced, self.logits) if self.logits > 1 else reduced

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mask as the decoder sees it, and as logits."""
        logits = self._reduce(mask * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS) / self.weight_sum
        if mask.shape[-1] != self.size:  # SAM 3, `add_new_mask`
            mask = F.interpolate(mask, size=(self.size, self.size), mode="bilinear")
        return self.downsample(mask), logits
