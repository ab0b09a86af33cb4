"""The memory attention graph as a PyTorch module: memories and pointers condition an embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.families import family_of
from sam2_edge.models.family import MemoryLayout
from sam2_edge.models.positions import flat, sine_grid

QUERY_TILE = 512
"""Queries per tile. At 1024 pixels with a full bank the scores of all 4096 queries take half a
gigabyte per layer, those of a tile an eighth; ONNX Runtime is no slower (docs/measurements.md)."""

TEMPERATURE = 10000.0
"""Base of the sine encoding of pointer ages (SAM 2, `get_1d_sine_pe`)."""

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine [..., C/2] of the rotary encoding of cells."""


class MemoryAttention(nn.Module):
    """embedding, memory, memory_rows, memory_age, pointers, pointer_age -> conditioned.

    Rotary encoding is written in real numbers. Permuted weights sort the channel pairs of queries
    and keys into two halves (the scores do not change), and the encoding is applied slot by slot,
    so that nothing is tiled along the keys.

    memory holds all that is stored; memory_rows names each object's. The optional last input,
    memory_cells, names the cells of each memory that cross-attention sees; the
    others are dropped before any computation. This is faster and not exact.
    """

    embedding_position: Tensor
    memory_position: Tensor
    halves: Tensor
    age_divisor: Tensor
    cosine: Tensor
    sine: Tensor
    key_cosine: Tensor
    key_sine: Tensor

    def __init__(self, model: Any, *, target: GraphTarget = "cpu") -> None:
        super().__init__()
        self.fused = target == "gpu"
        config = model.config
        if config.memory_attention_num_attention_heads != 1:
            raise ValueError("memory attention has one head in every SAM 2 variant")
        self.layers = model.memory_attention.layers
        self.norm = model.memory_attention.layer_norm
        self.temporal = model.memory_temporal_positional_encoding
        self.slots = config.num_maskmem
        self.pointer_position = None
        if config.enable_temporal_pos_encoding_for_object_pointers:
            self.pointer_position = model.temporal_positional_encoding_projection_layer
        family = family_of(config)
        geometry, layout = family.geometry(config), family.memory_layout(model)
        side = geometry.embedding_size
        self.latents = geometry.memory_latents is not None
        hidden_grid = torch.zeros(1, geometry.hidden, side, side)
        position = flat(sine_grid(model.vision_encoder.neck.position_encoding, hidden_grid))
        self.register_buffer("embedding_position", position, persistent=False)
        self.register_buffer("memory_position", layout.position, persistent=False)
        self._register_rotary(model.memory_attention, side, layout)
        pairs = torch.arange(geometry.hidden).reshape(-1, 2)
        self.register_buffer("halves", pairs.T.reshape(-1).contiguous(), persistent=False)
        half = torch.arange(geometry.hidden // 2)
        divisor = TEMPERATURE ** (2 * (half // 2) / (geometry.hidden // 2))
        self.register_buffer("age_divisor", divisor, persistent=False)

    @torch.no_grad()
    def _register_rotary(self, attention: Any, side: int, layout: MemoryLayout) -> None:
        """Cosine and sine of the cells [h*w, C/2], and of a memory's tokens if they differ."""
        cells = _rotary(attention, side)
        self.register_buffer("cosine", cells[0], persistent=False)
        self.register_buffer("sine", cells[1], persistent=False)
        if self.latents:
            placed = _rotary(attention, layout.grid)
            free = layout.position.shape[1] - len(placed[0])
            # An angle of zero leaves a token as it is.
            cosine = F.pad(placed[0], (0, 0, free, 0), value=1.0)
            sine = F.pad(placed[1], (0, 0, free, 0))
            self.register_buffer("key_cosine", cosine, persistent=False)
            self.register_buffer("key_sine", sine, persistent=False)

    def forward(
        self,
        embedding: Tensor,
        memory: Tensor,
        memory_rows: Tensor,
        memory_age: Tensor,
        pointers: Tensor,
        pointer_age: Tensor,
        memory_cells: Tensor | None = None,
    ) -> Tensor:
        """The embedding conditioned on memory, for B objects."""
        objects, side = memory_rows.shape[1], embedding.shape[-1]
        tokens = memory[memory_rows.transpose(0, 1).long()]
        if not self.latents:
            tokens = tokens.flatten(3).transpose(2, 3)
        channels = self.memory_position.shape[-1]
        # Age 0 (a conditioning frame) takes the last row of the table, age n the row n - 1.
        age = (memory_age.long() + self.slots - 1) % self.slots
        position = self.temporal.reshape(self.slots, channels)[age].transpose(0, 1)
        where, rotary = self.memory_position, (self.cosine, self.sine)
        if self.latents:
            rotary = (self.key_cosine, self.key_sine)
        if memory_cells is not None:
            cells = memory_cells.transpose(0, 1).long()
            tokens = tokens.gather(2, cells[..., None].expand(-1, -1, -1, channels))
            where, rotary = where[0][cells], (self.cosine[cells], self.sine[cells])
        keyed = tokens + where + position[:, :, None, :]
        pointer_tokens, pointer_keyed = self._pointer_tokens(pointers, pointer_age, channels)
        values = torch.cat([tokens.flatten(1, 2), pointer_tokens], dim=1)[:, None]
        hidden = flat(embedding) + 0.1 * self.embedding_position
        hidden = hidden.expand(objects, -1, -1)[:, None]
        for layer in self.layers:
            hidden = hidden + self._self_attention(layer.self_attn, layer.layer_norm1(hidden))
            query = layer.layer_norm2(hidden)
            hidden = hidden + self._cross_attention(
                layer.cross_attn_image, query, (keyed, rotary), pointer_keyed, values
            )
            hidden = hidden + _feed_forward(layer, layer.layer_norm3(hidden))
        hidden = self.norm(hidden).transpose(2, 3)
        return hidden.reshape(objects, -1, side, side)

    def _pointer_tokens(
        self, pointers: Tensor, age: Tensor, channels: int
    ) -> tuple[Tensor, Tensor]:
        """Pointers [P,B,C] as tokens [B,P*C/m,m] without and with their age's encoding."""
        count, objects, hidden = pointers.shape
        splits = hidden // channels
        tokens = pointers.reshape(count, objects, splits, channels).permute(1, 0, 2, 3)
        if self.pointer_position is None:  # SAM 2.0 does not encode the age
            return tokens.flatten(1, 2), tokens.flatten(1, 2)
        angle = age[..., None] / self.age_divisor
        position = self.pointer_position(torch.cat([angle.sin(), angle.cos()], dim=-1))
        keyed = tokens + position.transpose(0, 1)[:, :, None, :]
        return tokens.flatten(1, 2), keyed.flatten(1, 2)

    def _project(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """A query or key projection with its channel pairs sorted into two halves."""
        return F.linear(x, linear.weight[self.halves], linear.bias[self.halves])

    def _rotate(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Rotary encoding of [..., h*w, C] with pairs in two halves; rotary: of selected cells."""
        first, second = x.chunk(2, dim=-1)
        cosine, sine = rotary or (self.cosine, self.sine)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    def _self_attention(self, attention: Any, x: Tensor) -> Tensor:
        query = self._rotate(self._project(attention.q_proj, x))
        key = self._rotate(self._project(attention.k_proj, x))
        return attention.o_proj(self._attend(query, key, attention.v_proj(x), attention.scaling))

    def _cross_attention(
        self,
        attention: Any,
        x: Tensor,
        keyed: tuple[Tensor, Rotary],
        pointer_keyed: Tensor,
        values: Tensor,
    ) -> Tensor:
        query = self._rotate(self._project(attention.q_proj, x))
        tokens, rotary = keyed
        memory_key = self._rotate(self._project(attention.k_proj, tokens), rotary).flatten(1, 2)
        pointer_key = self._project(attention.k_proj, pointer_keyed)
        key = torch.cat([memory_key, pointer_key], dim=1)[:, None]
        if self.fused:
            attended = self._attend(query, key, attention.v_proj(values), attention.scaling)
        else:
            # The weights of a query sum to one: the mean of projected values is the projected mean,
            # of a quarter of the channels in every SAM 2 variant.
            mean = self._attend(query, key, values, attention.scaling)
            attended = attention.v_proj(mean)
        return attention.o_proj(attended)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one head: [B,1,Q,C], [B,1,K,C], [B,1,K,V] -> [B,1,Q,V]."""
        keys = key.transpose(2, 3)
        tiles = [query * scale] if self.fused else torch.split(query * scale, QUERY_TILE, dim=2)
        return torch.cat([(tile @ keys).softmax(dim=-1) @ value for tile in tiles], dim=2)


def _rotary(attention: Any, side: int) -> Rotary:
    """The axial rotary encoding of a side x side grid of cells."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequency = attention.rotary_emb.inv_freq
    angle = torch.cat([x.reshape(-1, 1) * frequency, y.reshape(-1, 1) * frequency], dim=-1)
    return angle.cos(), angle.sin()


def _feed_forward(layer: Any, x: Tensor) -> Tensor:
    """The perceptron of a layer, which is a module of its own in EdgeTAM."""
    if hasattr(layer, "mlp"):
        return layer.mlp(x)
    return layer.linear2(layer.activation(layer.linear1(x)))
