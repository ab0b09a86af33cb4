"""EdgeTAM's spatial perceiver over transformers' weights: a memory becomes a list of latents."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from sam2_edge.models.edgetam.config import geometry
from sam2_edge.models.positions import flat, sine_grid


class Perceiver(nn.Module):
    """memory [B,m,h,w] -> latents [B,T,m] (EdgeTAM, section 3.2).

    The first latents see the whole memory. Each of the others sees one window of it and nothing
    else, so that together they keep a coarse grid. Both go through the same layers. The published
    implementation takes a single object; this one takes any number.
    """

    position: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        perceiver = model.spatial_perceiver
        self.layers = perceiver.layers
        self.norm = perceiver.layer_norm
        self.free = perceiver.latents_1d
        self.placed = perceiver.latents_2d
        side = geometry(model.config).embedding_size
        grid = torch.zeros(1, perceiver.hidden_size, side, side)
        position = flat(sine_grid(model.memory_encoder.position_encoding, grid))
        self.register_buffer("position", position, persistent=False)

    def forward(self, memory: Tensor) -> Tensor:
        """The latents of B memories."""
        objects, channels = memory.shape[:2]
        free = self.free.expand(objects, -1, -1)
        placed = self.placed.expand(objects, -1, -1).reshape(-1, 1, channels)
        cells, windows = flat(memory), self._windows(memory)
        for layer in self.layers:
            free = _layer(layer, free, cells, self.position)
            placed = _layer(layer, placed, windows, None)
        placed = placed.reshape(objects, -1, channels)
        return self.norm(torch.cat([free, placed], dim=1))

    def _windows(self, memory: Tensor) -> Tensor:
        """[B,m,h,w] -> [B*windows,cells,m], one window per latent that has a place."""
        channels, height = memory.shape[1:3]
        count = isqrt(len(self.placed))
        side = height // count
        x = memory.reshape(-1, channels, count, side, count, side)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, channels)


def _layer(layer: Any, latents: Tensor, seen: Tensor, position: Tensor | None) -> Tensor:
    """Latents [N,L,m] attend to what they see [N,K,m], then to each other."""
    query, keys = layer.layer_norm_latents(latents), layer.layer_norm_input(seen)
    latents = latents + _attend(layer.cross_attention, query, keys, position)
    latents = latents + layer.mlp(latents)
    normed = layer.layer_norm_self(latents)
    latents = latents + _attend(layer.self_attention, normed, normed, None)
    return latents + layer.self_mlp(latents)


def _attend(attention: Any, query: Tensor, seen: Tensor, position: Tensor | None) -> Tensor:
    """Attention of one head; the position is added to keys and values."""
    key, value = attention.k_proj(seen), attention.v_proj(seen)
    if position is not None:
        key, value = key + position, value + position
    if query.shape[1] == seen.shape[1] == 1:  # the only weight is one
        return attention.o_proj(value)
    scores = (attention.q_proj(query) * attention.scaling) @ key.transpose(1, 2)
    return attention.o_proj(scores.softmax(dim=-1) @ value)
