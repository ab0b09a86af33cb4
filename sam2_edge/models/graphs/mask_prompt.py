"""The mask prompt graph as a PyTorch module: a mask prompt becomes logits and decoder input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0
"""A mask prompt becomes logits of +10 and -10 (SAM 2, `_use_mask_as_output`)."""


REDUCTION = 4
"""Pixels of the model input per pixel of the mask logits."""


class MaskPrompt(nn.Module):
    """mask float32 [B,1,S,S] of 0 and 1 -> mask_input (for the decoder), mask_logits.

    The reduction by 4 is PyTorch's antialiased bilinear one, written as a convolution: a triangle
    of 8 taps, renormalized at the border (not every runtime has Resize with antialias).
    """

    taps: Tensor
    weight_sum: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.downsample = model.mask_downsample
        taps = 1.0 - (torch.arange(8) - 3.5).abs() / REDUCTION
        self.register_buffer("taps", torch.outer(taps, taps)[None, None], persistent=False)
        size = int(model.config.image_size)
        ones = torch.ones(1, 1, size, size)
        self.register_buffer("weight_sum", self._reduce(ones), persistent=False)

    def _reduce(self, mask: Tensor) -> Tensor:
        return F.conv2d(mask, self.taps, stride=REDUCTION, padding=2)

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mask as the decoder sees it, and as logits."""
        logits = self._reduce(mask * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS) / self.weight_sum
        return self.downsample(mask), logits
