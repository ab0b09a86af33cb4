"""The image encoder's blocks over transformers' weights, with few passes over memory.

transformers cuts the picture into windows, projects queries, keys and values together, and splits
them by head, each time with a copy. Here each is projected from the whole picture and brought into
windows and heads by one transposition, and so is the result. The arithmetic is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget

QUERY_TILE = 512
"""Queries per tile of global attention; all scores at once would take 268 MB in SAM 2.1 tiny at
1024 pixels."""


PATCH_STRIDE = 4
"""Pixels of the model input per cell of the first stage."""


class HieraFeatures(nn.Module):
    """pixels [1,3,S,S], normalized -> high_res_0, high_res_1, embedding."""

    position: Tensor

    def __init__(self, model: Any, target: GraphTarget = "cpu") -> None:
        super().__init__()
        self.tiled = target == "cpu"
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.levels = model.config.vision_config.num_feature_levels
        # Constant, except in training: runtimes differ in bicubic interpolation.
        position = self._position(int(model.config.image_size)).detach()
        self.register_buffer("position", position, persistent=False)

    def _position(self, image_size: int) -> Tensor:
        """The backbone's position encoding [1,S/4,S/4,D] at an image size in pixels."""
        side = image_size // PATCH_STRIDE
        window = self.backbone.pos_embed_window
        spread = F.interpolate(self.backbone.pos_embed, size=(side, side), mode="bicubic")
        tiles = side // window.shape[-1]
        return (spread + window.tile(1, 1, tiles, tiles)).permute(0, 2, 3, 1).contiguous()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The features; shapes as in the contract."""
        position = self._position(pixels.shape[-1]) if self.training else self.position
        hidden = self.backbone.patch_embed(pixels) + position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block_output(block, hidden, tiled=self.tiled)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        features, _ = self.neck(tuple(stages))
        # The neck returns low to high resolution, the graph high to low.
        finest, middle, embedding = features[-self.levels :][::-1]
        return self.conv_s0(finest), self.conv_s1(middle), embedding


def block_output(block: Any, hidden: Tensor, *, tiled: bool) -> Tensor:
    """A block of Hiera: [B,H,W,C] -> [B,H,W,C'], at half the size where a stage begins.

    Args:
        block: transformers' block.
        hidden: Its input.
        tiled: Whether global attention goes through the queries in tiles of `QUERY_TILE`.
    """
    normed = block.layer_norm1(hidden)
    stride = block.query_stride
    if block.dim != block.dim_out:
        hidden = _pooled(block.proj(normed), stride)
    hidden = hidden + _attention(block.attn, normed, block.window_size, stride, tiled)
    return hidden + block.mlp(block.layer_norm2(hidden))


def _attention(
    attn: Any,
    x: Tensor,
    window: int,
    stride: tuple[int, int] | None,
    tiled: bool,  # noqa: FBT001 # a private step of `block_output`
) -> Tensor:
    """Attention within windows (0: the whole picture); queries are pooled by `stride`."""
    heads = attn.num_attention_heads
    weights, biases = _thirds(attn.qkv.weight), _thirds(attn.qkv.bias)
    query = _pooled(F.linear(x, weights[0], biases[0]), stride)
    height, width = query.shape[1:3]
    query_window = window // stride[0] if stride else window
    key, value = (
        _windows(_project_padded(x, w, b, window), window, heads)
        for w, b in zip(weights[1:], biases[1:], strict=True)
    )
    query = _windows(_pad(query, query_window), query_window, heads)
    attended = _attend(query * attn.scale, key.transpose(-2, -1), value, tiled=tiled)
    return attn.proj(_picture(attended, query_window, (height, width)))


def _thirds(rows: Tensor) -> list[Tensor]:
    """Slices, which the exporter folds into constants, unlike a Split."""
    third = len(rows) // 3
    return [rows[i * third : (i + 1) * third] for i in range(3)]


def _pooled(x: Tensor, stride: tuple[int, int] | None) -> Tensor:
    """Max pooling of [B,H,W,C]."""
    if stride is None:
        return x
    return F.max_pool2d(x.permute(0, 3, 1, 2), stride, stride).permute(0, 2, 3, 1)


def _project_padded(x: Tensor, weight: Tensor, bias: Tensor, window: int) -> Tensor:
    """Project [B,H,W,C] on a picture padded with zeros to whole windows."""
    if not window or not (x.shape[1] % window or x.shape[2] % window):
        return F.linear(x, weight, bias)
    return _pad(F.linear(x, weight), window) + bias


def _pad(x: Tensor, window: int) -> Tensor:
    """Pad [B,H,W,C] on the right and below to whole windows."""
    if not window:
        return x
    return F.pad(x, (0, 0, 0, -x.shape[2] % window, 0, -x.shape[1] % window))


def _windows(x: Tensor, window: int, heads: int) -> Tensor:
    """[B,H,W,C] -> [B*windows,heads,cells,C/heads]."""
    batch, height, width, channels = x.shape
    high, wide = window or height, window or width
    x = x.reshape(batch, height // high, high, width // wide, wide, heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, high * wide, channels // heads)


def _picture(x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """Undo `_windows` and the padding: -> [B,H,W,C]."""
    height, width = size
    high, wide = window or height, window or width
    rows, columns = -(-height // high), -(-width // wide)
    heads, channels = x.shape[1], x.shape[3]
    x = x.reshape(-1, rows, columns, heads, high, wide, channels).permute(0, 1, 4, 2, 5, 3, 6)
    x = x.reshape(-1, rows * high, columns * wide, heads * channels)
    return x[:, :height, :width]


def _attend(query: Tensor, key: Tensor, value: Tensor, *, tiled: bool) -> Tensor:
    """[N,h,Q,d], [N,h,d,K], [N,h,K,d] -> [N,h,Q,d]."""
    if not tiled:
        return (query @ key).softmax(dim=-1) @ value
    tiles = torch.split(query, QUERY_TILE, dim=2)
    return torch.cat([(tile @ key).softmax(dim=-1) @ value for tile in tiles], dim=2)
