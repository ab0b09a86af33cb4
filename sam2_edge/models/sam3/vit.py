"""SAM 3's image encoder over transformers' weights, with few passes over memory.

Windows do not move from block to block, and attention over the whole picture does not depend on the
order of cells. So cells are brought into windows once, after the patches, and back into the picture
once, before the feature pyramid; transformers does both in every block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.composition import composed

QUERY_TILE = 192
"""Queries per tile, a third of a window: at 1008 pixels the scores of a tile take 64 MB, in windows
and over the whole picture; all at once they would take 191 MB and 1.7 GB."""

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine [cells, d/2] of the rotary encoding of cells."""


class VitFeatures(nn.Module):
    """pixels [1,3,S,S], normalized -> high_res_0, high_res_1, embedding.

    The last convolution of the two finer levels is one with the decoder's projection, which leaves
    an eighth and a quarter of its channels.
    """

    position: Tensor

    def __init__(self, model: Any, target: GraphTarget) -> None:
        super().__init__()
        backbone = model.vision_encoder.backbone
        config = backbone.config
        self.side = int(config.image_size) // config.patch_size
        self.window = int(config.window_size)
        if self.side % self.window:
            raise ValueError(f"windows of {self.window} cells do not tile {self.side} cells")
        self.patches = backbone.embeddings.patch_embeddings.projection
        table = backbone.embeddings.position_embeddings
        self.register_buffer("position", _tiled(table.detach(), self.side), persistent=False)
        self.norm = backbone.layer_norm
        within, across = self._rotary(backbone.layers[0].rotary_emb.inv_freq)
        self.blocks = nn.ModuleList(
            _Block(
                layer,
                across if layer.window_size == 0 else within,
                everywhere=layer.window_size == 0,
                tiled=target == "cpu",
            )
            for layer in backbone.layers
        )
        neck, decoder = model.vision_encoder.neck, model.mask_decoder
        finest, fine, coarse, *_ = neck.fpn_layers  # the others are for the detector
        self.high_res_0 = _level(finest, composed(finest.proj2, decoder.conv_s0))
        self.high_res_1 = _level(fine, composed(fine.proj2, decoder.conv_s1))
        self.embedding = _level(coarse, coarse.proj2)

    def _rotary(self, frequency: Tensor) -> tuple[Rotary, Rotary]:
        """Rotary encoding of the cells of a window, and of the picture window by window.

        Positions in the picture are scaled to those in a window.
        """
        cells = torch.arange(self.window)
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        within = torch.stack([x, y], dim=-1).reshape(-1, 2)
        first = torch.arange(0, self.side, self.window)
        y, x = torch.meshgrid(first, first, indexing="ij")
        corners = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        across = (corners + within).reshape(-1, 2) * (self.window / self.side)
        return _angles(within, frequency), _angles(across, frequency)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features; shapes as in the contract."""
        hidden = self.patches(pixels).permute(0, 2, 3, 1) + self.position
        hidden = self.norm(self._windows(hidden))
        for block in self.blocks:
            hidden = block(hidden)
        picture = self._picture(hidden).permute(0, 3, 1, 2)
        return self.high_res_0(picture), self.high_res_1(picture), self.embedding(picture)

    def _windows(self, x: Tensor) -> Tensor:
        """[1,h,h,C] -> [windows,cells,C]."""
        count, channels = self.side // self.window, x.shape[3]
        x = x.reshape(count, self.window, count, self.window, channels).transpose(1, 2)
        return x.reshape(count * count, self.window * self.window, channels)

    def _picture(self, x: Tensor) -> Tensor:
        """Undo `_windows`."""
        count, channels = self.side // self.window, x.shape[2]
        x = x.reshape(count, count, self.window, self.window, channels).transpose(1, 2)
        return x.reshape(1, self.side, self.side, channels)


class _Block(nn.Module):
    """One block of the transformer: [windows,cells,C] -> [windows,cells,C].

    Rotary encoding is written in real numbers. Permuted weights sort the channel pairs of queries
    and keys into two halves; the scores do not change.
    """

    cosine: Tensor
    sine: Tensor
    halves: Tensor

    def __init__(self, layer: Any, rotary: Rotary, *, everywhere: bool, tiled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = layer.layer_norm1, layer.layer_norm2
        self.attention, self.mlp = layer.attention, layer.mlp
        self.everywhere, self.tiled = everywhere, tiled
        self.heads = layer.attention.num_attention_heads
        channels = torch.arange(layer.attention.hidden_size).reshape(self.heads, -1, 2)
        self.register_buffer("halves", channels.transpose(1, 2).reshape(-1), persistent=False)
        self.register_buffer("cosine", rotary[0], persistent=False)
        self.register_buffer("sine", rotary[1], persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Attention within each window, or over all of them, and the perceptron."""
        hidden = hidden + self._attend(self.norm1(hidden))
        return hidden + self.mlp(self.norm2(hidden))

    def _attend(self, x: Tensor) -> Tensor:
        attention, shape = self.attention, x.shape
        if self.everywhere:
            x = x.reshape(1, -1, shape[2])
        # The scale goes into the weights, which become constants.
        query = self._rotate(self._sorted(attention.q_proj, x, attention.scaling))
        key = self._rotate(self._sorted(attention.k_proj, x, 1.0)).transpose(2, 3)
        value = self._split(attention.v_proj(x))
        tiles = torch.split(query, QUERY_TILE, dim=2) if self.tiled else [query]
        mixed = [(tile @ key).softmax(dim=-1) @ value for tile in tiles]
        attended = torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]
        return attention.o_proj(attended.transpose(1, 2).reshape(shape))

    def _sorted(self, linear: nn.Linear, x: Tensor, scale: float) -> Tensor:
        """Project to heads whose channel pairs are sorted into two halves."""
        weight, bias = linear.weight[self.halves] * scale, linear.bias[self.halves] * scale
        return self._split(F.linear(x, weight, bias))

    def _split(self, x: Tensor) -> Tensor:
        """[N,cells,C] -> [N,heads,cells,d]."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _rotate(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            [
                first * self.cosine - second * self.sine,
                second * self.cosine + first * self.sine,
            ],
            dim=-1,
        )


def _angles(cells: Tensor, frequency: Tensor) -> Rotary:
    """Rotary encoding of cells [N,2] at x and y."""
    angle = torch.cat([cells[:, :1] * frequency, cells[:, 1:] * frequency], dim=-1)
    return angle.cos(), angle.sin()


def _tiled(table: Tensor, side: int) -> Tensor:
    """A table of positions [1,cells,C] tiled over the picture: [1,side,side,C]."""
    own = int(table.shape[1] ** 0.5)
    count = -(-side // own)
    grid = table.reshape(1, own, own, -1).tile(1, count, count, 1)
    return grid[:, :side, :side].contiguous()


def _level(layers: Any, last: nn.Conv2d) -> nn.Sequential:
    """A level of the feature pyramid with another last convolution."""
    return nn.Sequential(*layers.scale_layers, layers.proj1, last)
