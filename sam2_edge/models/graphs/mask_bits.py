"""The mask bits graph as a PyTorch module: logits become packed masks at the size of a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskBits(nn.Module):
    """mask_logits [B,1,s,s], row_weights [H,s], column_weights [s,K,8] -> bits uint8 [B,H,K].

    Resampling is two products with weights from the host, so one graph serves every filter and
    every size of frame. A bit is set where the resampled logit is above 0, the first pixel in the
    highest bit, as in `numpy.packbits`.
    """

    bit_values: Tensor

    def __init__(self) -> None:
        super().__init__()
        values = 2.0 ** torch.arange(7, -1, -1)
        self.register_buffer("bit_values", values, persistent=False)

    def forward(self, mask_logits: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
        """Masks of B objects at the size of the frame."""
        columns = column_weights.flatten(1)
        resized = row_weights @ (mask_logits[:, 0] @ columns)
        inside = (resized > 0).to(resized.dtype).reshape(*resized.shape[:2], -1, 8)
        return (inside * self.bit_values).sum(dim=3).to(torch.uint8)
