"""Sine encodings of grids of cells, as transformers' modules compute them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def sine_grid(encoding: nn.Module, grid: Tensor) -> Tensor:
    """The sine encoding [B,C,h,w] that a transformers position module gives for a grid's shape."""
    return encoding(grid.shape, grid.device, grid.dtype).clone()


def flat(grid: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,h*w,C]."""
    return grid.flatten(2).transpose(1, 2)
