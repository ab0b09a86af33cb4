"""Two convolutions in a row as one, computed from their weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One convolution that equals two, of which the second is 1 x 1.

    Its weights are computed in float64.
    """
    assert first.bias is not None
    assert second.bias is not None
    outer = second.weight.double().flatten(1)
    result = nn.Conv2d(
        first.in_channels,
        second.out_channels,
        first.kernel_size,  # type: ignore[arg-type] # PyTorch types it as of any length
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
    )
    result.weight.copy_(torch.tensordot(outer, first.weight.double(), dims=1))
    result.bias = nn.Parameter((outer @ first.bias.double() + second.bias.double()).float())
    return result
