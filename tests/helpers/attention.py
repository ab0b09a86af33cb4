"""Inputs of memory attention."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Sam2VideoModel

from sam2_edge.models.families import geometry_of


def inputs(model: Sam2VideoModel, memories: int, objects: int) -> tuple[Tensor, ...]:
    """Inputs of the module; the memories are in any order, with an unused one among them."""
    geometry = geometry_of(model.config)
    side = geometry.embedding_size
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    order = torch.randperm(memories * objects + 1, generator=generator)
    return (
        noise(1, geometry.hidden, side, side),
        noise(len(order), geometry.memory_channels, side, side),
        order[1:].reshape(memories, objects).to(torch.int32),
        torch.arange(memories, dtype=torch.int32)[:, None].expand(-1, objects),
        noise(5, objects, geometry.hidden),
        torch.rand((5, objects), generator=generator),
    )
