"""The exported graphs as PyTorch modules over the submodules of a `Sam2VideoModel`.

Each forward takes and returns the tensors of `sam2_edge.contract`, in its order. Everything that
depends on weights is in here; which tensors meet which is the runtime's business. All operations
are differentiable and share the model's parameters, so the same modules serve training; there, and
only there, `embedding` may have B rows of its own instead of one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2VideoModel

from sam2_edge.contract import MASK_STRIDE, NO_OBJECT_LOGIT, Geometry, Graph, MemoryRounding

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation of RGB in 0..1, with which SAM 2 is trained."""

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0
"""A mask prompt becomes logits of +10 and -10 (SAM 2, `_use_mask_as_output`)."""

QUERY_TILE = 512
"""Queries that memory attention takes at a time. At 1024 pixels with a full bank the scores of all
4096 queries are half a gigabyte per layer; tile by tile they are an eighth of that, and ONNX
Runtime is no slower (docs/architecture.md)."""

TEMPERATURE = 10000.0
"""Base of the sine encoding of pointer ages (SAM 2, `get_1d_sine_pe`)."""


def geometry_of(model: Sam2VideoModel) -> Geometry:
    """The geometry that a model's configuration fixes."""
    config = model.config
    return Geometry(
        image_size=int(config.image_size),
        hidden=config.vision_config.fpn_hidden_size,
        memory_channels=config.memory_encoder_output_channels,
        memory_slots=config.num_maskmem,
        pointers=config.max_object_pointers_in_encoder,
    )


def graph_modules(
    model: Sam2VideoModel, *, memory_rounding: MemoryRounding = "bfloat16"
) -> dict[Graph, nn.Module]:
    """One module per graph of the contract, in evaluation mode if the model is."""
    modules: dict[Graph, nn.Module] = {
        Graph.IMAGE_ENCODER: ImageEncoder(model),
        Graph.MEMORY_ATTENTION: MemoryAttention(model),
        Graph.MASK_PROMPT: MaskPrompt(model),
        Graph.MASK_DECODER: MaskDecoder(model),
        Graph.MEMORY_ENCODER: MemoryEncoder(model, rounding=memory_rounding),
    }
    for module in modules.values():
        module.train(model.training)
    return modules


class ImageEncoder(nn.Module):
    """image uint8 [1,S,S,3] RGB -> high_res_0, high_res_1, embedding, unconditioned."""

    mean: Tensor
    std: Tensor
    position: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.no_memory = model.no_memory_embedding
        self.levels = model.config.vision_config.num_feature_levels
        self.register_buffer("mean", 255.0 * torch.tensor(IMAGE_MEAN), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(IMAGE_STD), persistent=False)
        self.register_buffer(
            "position", self._position(int(model.config.image_size)), persistent=False
        )

    @torch.no_grad()
    def _position(self, image_size: int) -> Tensor:
        """The backbone's position encoding [1,S/4,S/4,D], computed once.

        In the graph it would be a bicubic Resize of a parameter, which runtimes interpolate
        differently. Constant here, it does not train through this module.
        """
        side = image_size // MASK_STRIDE
        window = self.backbone.pos_embed_window
        spread = F.interpolate(self.backbone.pos_embed, size=(side, side), mode="bicubic")
        tiles = side // window.shape[-1]
        return (spread + window.tile(1, 1, tiles, tiles)).permute(0, 2, 3, 1).contiguous()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of one image; shapes as in the contract."""
        pixels = ((image.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        hidden = self.backbone.patch_embed(pixels) + self.position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block(hidden)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        features, _ = self.neck(tuple(stages))
        # The neck returns low to high resolution; the graph gives high to low.
        finest, middle, embedding = features[-self.levels :][::-1]
        no_memory = self.no_memory.reshape(1, -1, 1, 1)
        return self.conv_s0(finest), self.conv_s1(middle), embedding, embedding + no_memory


class MemoryAttention(nn.Module):
    """embedding, memory, memory_age, pointers, pointer_age -> conditioned.

    Rotary encoding is written in real numbers, with the channel pairs of queries and keys sorted
    into two halves by their weights (the scores do not change), and applied slot by slot, so that
    nothing is tiled along the keys.
    """

    embedding_position: Tensor
    memory_position: Tensor
    halves: Tensor
    age_divisor: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
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
        geometry = geometry_of(model)
        side = geometry.embedding_size
        hidden_grid = torch.zeros(1, geometry.hidden, side, side)
        sine = model.vision_encoder.neck.position_encoding
        self.register_buffer(
            "embedding_position", _flat(sine_grid(sine, hidden_grid)), persistent=False
        )
        memory_grid = torch.zeros(1, geometry.memory_channels, side, side)
        sine = model.memory_encoder.position_encoding
        self.register_buffer(
            "memory_position", _flat(sine_grid(sine, memory_grid)), persistent=False
        )
        self._rotary(model.memory_attention, side)
        pairs = torch.arange(geometry.hidden).reshape(-1, 2)
        self.register_buffer("halves", pairs.T.reshape(-1).contiguous(), persistent=False)
        half = torch.arange(geometry.hidden // 2)
        divisor = TEMPERATURE ** (2 * (half // 2) / (geometry.hidden // 2))
        self.register_buffer("age_divisor", divisor, persistent=False)

    @torch.no_grad()
    def _rotary(self, attention: Any, side: int) -> None:
        """Cosine and sine [h*w, C/2] of the axial rotary encoding of a side x side grid."""
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        frequency = attention.rotary_emb.inv_freq
        angle = torch.cat([x.reshape(-1, 1) * frequency, y.reshape(-1, 1) * frequency], dim=-1)
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    def forward(
        self,
        embedding: Tensor,
        memory: Tensor,
        memory_age: Tensor,
        pointers: Tensor,
        pointer_age: Tensor,
    ) -> Tensor:
        """The embedding conditioned on memory, for B objects."""
        slots, objects, channels = memory.shape[:3]
        side = embedding.shape[-1]
        tokens = memory.permute(1, 0, 3, 4, 2).reshape(objects, slots, side * side, channels)
        # Age 0 (a prompted frame) takes the last row of the table, age n the row n - 1.
        age = (memory_age.long() + self.slots - 1) % self.slots
        position = self.temporal.reshape(self.slots, channels)[age].transpose(0, 1)
        keyed = tokens + self.memory_position + position[:, :, None, :]
        pointer_tokens, pointer_keyed = self._pointer_tokens(pointers, pointer_age, channels)
        values = torch.cat([tokens.flatten(1, 2), pointer_tokens], dim=1)
        hidden = _flat(embedding) + 0.1 * self.embedding_position
        hidden = hidden.expand(objects, -1, -1)
        for layer in self.layers:
            hidden = hidden + self._self_attention(layer.self_attn, layer.layer_norm1(hidden))
            query = layer.layer_norm2(hidden)
            hidden = hidden + self._cross_attention(
                layer.cross_attn_image, query, keyed, pointer_keyed, values
            )
            inner = layer.activation(layer.linear1(layer.layer_norm3(hidden)))
            hidden = hidden + layer.linear2(inner)
        hidden = self.norm(hidden).transpose(1, 2)
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

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary encoding of [..., h*w, C] whose pairs stand in two halves."""
        first, second = x.chunk(2, dim=-1)
        cosine, sine = self.cosine, self.sine
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    def _self_attention(self, attention: Any, x: Tensor) -> Tensor:
        query = self._rotate(self._project(attention.q_proj, x))
        key = self._rotate(self._project(attention.k_proj, x))
        return attention.o_proj(_attend(query, key, attention.v_proj(x), attention.scaling))

    def _cross_attention(
        self, attention: Any, x: Tensor, keyed: Tensor, pointer_keyed: Tensor, values: Tensor
    ) -> Tensor:
        query = self._rotate(self._project(attention.q_proj, x))
        memory_key = self._rotate(self._project(attention.k_proj, keyed)).flatten(1, 2)
        pointer_key = self._project(attention.k_proj, pointer_keyed)
        key = torch.cat([memory_key, pointer_key], dim=1)
        return attention.o_proj(_attend(query, key, attention.v_proj(values), attention.scaling))


class MaskPrompt(nn.Module):
    """mask float32 [B,1,S,S] of 0 and 1 -> mask_input (for the decoder), mask_logits.

    The reduction by 4 is PyTorch's antialiased bilinear one, written as a convolution: a triangle
    of 8 taps, renormalised at the border (Resize with antialias is not to be had everywhere).
    """

    taps: Tensor
    weight_sum: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.downsample = model.mask_downsample
        taps = 1.0 - (torch.arange(8) - 3.5).abs() / MASK_STRIDE
        self.register_buffer("taps", torch.outer(taps, taps)[None, None], persistent=False)
        size = int(model.config.image_size)
        ones = torch.ones(1, 1, size, size)
        self.register_buffer("weight_sum", self._reduce(ones), persistent=False)

    def _reduce(self, mask: Tensor) -> Tensor:
        return F.conv2d(mask, self.taps, stride=MASK_STRIDE, padding=2)

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mask as the decoder sees it, and as logits."""
        logits = self._reduce(mask * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS) / self.weight_sum
        return self.downsample(mask), logits


class MaskDecoder(nn.Module):
    """Prompts and a conditioned embedding -> four masks with scores and pointers, and the choice.

    The prompt encoder is inside. As in SAM 2 a padding point follows the points always, so that
    tracking without a prompt is one point of label -1. `multimask` picks the best of masks 1 to 3
    by predicted IoU; otherwise mask 0 is taken, or the best of the others where mask 0 is not
    stable ("dynamic multimask"), while its pointer stays that of mask 0.
    """

    image_position: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.prompts = model.prompt_encoder
        self.decoder = model.mask_decoder
        self.pointer_projection = model.object_pointer_proj
        self.no_object_pointer = model.no_object_pointer
        self.image_size = int(model.config.image_size)
        position = model.get_image_wide_positional_embeddings().detach()
        self.register_buffer("image_position", position, persistent=False)

    def forward(
        self,
        conditioned: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, ...]:
        """All outputs of the contract, in its order."""
        dense = torch.where(
            has_mask[:, None, None, None] > 0,
            self.prompts.mask_embed(mask_input),
            self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1),
        )
        sparse = self._embed_points(point_coords, point_labels)
        tokens, image = self._transform(conditioned + dense, sparse)
        mask_tokens = tokens[:, 2:6]
        masks = self._masks(image, high_res_0, high_res_1, mask_tokens)
        iou = self.decoder.iou_prediction_head(tokens[:, 1])
        object_score = self.decoder.pred_obj_score_head(tokens[:, 0])
        present = object_score > 0
        pointers = self.pointer_projection(mask_tokens)
        pointers = torch.where(present[..., None], pointers, self.no_object_pointer)
        index, pointer_index = self._choose(masks, iou, multimask)
        best_mask = _pick(masks, index)
        best_mask = torch.where(present[..., None, None], best_mask, NO_OBJECT_LOGIT)
        return (
            masks,
            iou,
            pointers,
            index.to(torch.int32),
            best_mask,
            _pick(iou, index)[:, 0],
            _pick(pointers, pointer_index)[:, 0],
            object_score[:, 0],
        )

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Point prompts [B,N,2], [B,N] -> tokens [B,N+1,C], the last one padding."""
        frequencies = self.prompts.shared_embedding.positional_embedding
        angle = 2 * math.pi * ((2 / self.image_size) * (coords + 0.5) - 1) @ frequencies
        position = torch.cat([angle.sin(), angle.cos()], dim=-1)
        padding = self.prompts.not_a_point_embed.weight
        kinds = torch.cat([padding, self.prompts.point_embed.weight], dim=0)
        points = position * (labels[..., None] >= 0).to(position.dtype) + kinds[labels.long() + 1]
        return torch.cat([points, padding[None].expand(points.shape[0], -1, -1)], dim=1)

    def _transform(self, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Two-way attention; returns tokens [B,T,C] and image [B,C,h,w]."""
        decoder = self.decoder
        output = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        tokens = torch.cat([output[None].expand(sparse.shape[0], -1, -1), sparse], dim=1)
        tokens, keys = decoder.transformer(
            point_embeddings=tokens[:, None],
            image_embeddings=image,
            image_positional_embeddings=self.image_position,
            attention_similarity=None,
        )
        return tokens[:, 0], keys[:, 0].transpose(1, 2).reshape(image.shape)

    def _masks(self, image: Tensor, fine: Tensor, middle: Tensor, mask_tokens: Tensor) -> Tensor:
        """Mask logits [B,4,S/4,S/4] from the upscaled image and one hypernetwork per token."""
        decoder = self.decoder
        hidden = decoder.upscale_layer_norm(decoder.upscale_conv1(image) + middle)
        hidden = decoder.upscale_conv2(decoder.activation(hidden)) + fine
        hidden = decoder.activation(hidden)
        kernels = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)],
            dim=1,
        )
        return (kernels @ hidden.flatten(2)).unflatten(2, hidden.shape[-2:])

    def _choose(self, masks: Tensor, iou: Tensor, multimask: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the chosen mask [B] and of its pointer [B]."""
        best = iou[:, 1:].argmax(dim=1) + 1
        single = masks[:, 0].flatten(1)
        delta = self.decoder.dynamic_multimask_stability_delta
        inner = (single > delta).to(single.dtype).sum(dim=1)
        outer = (single > -delta).to(single.dtype).sum(dim=1)
        # An empty mask counts as stable (SAM 2, `_get_stability_scores`).
        stability = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
        several = multimask > 0
        unstable = stability < self.decoder.dynamic_multimask_stability_thresh
        first = torch.zeros_like(best)
        return torch.where(several | unstable, best, first), torch.where(several, best, first)


class MemoryEncoder(nn.Module):
    """embedding, mask_logits, object_score, binarize -> memory.

    rounding: "bfloat16" rounds what is stored as the published predictor does (the tensor stays
    float32), "none" does not.
    """

    def __init__(self, model: Sam2VideoModel, *, rounding: MemoryRounding) -> None:
        super().__init__()
        self.encoder = model.memory_encoder
        self.scale = float(model.config.sigmoid_scale_for_mem_enc)
        self.bias = float(model.config.sigmoid_bias_for_mem_enc)
        self.absent = model.occlusion_spatial_embedding_parameter
        self.size = int(model.config.image_size)
        self.round_to_bfloat16 = rounding == "bfloat16"

    def forward(
        self, embedding: Tensor, mask_logits: Tensor, object_score: Tensor, binarize: Tensor
    ) -> Tensor:
        """Memory [B,m,h,w] of a frame for B objects."""
        logits = F.interpolate(
            mask_logits, size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        hard = (logits > 0).to(logits.dtype)
        mask = torch.where(binarize[:, None, None, None] > 0, hard, logits.sigmoid())
        mask = self.encoder.mask_downsampler(mask * self.scale + self.bias)
        hidden = self.encoder.feature_projection(embedding) + mask
        memory = self.encoder.projection(self.encoder.memory_fuser(hidden))
        if self.absent is not None:
            gone = (object_score <= 0).to(memory.dtype)[:, None, None, None]
            memory = memory + gone * self.absent.reshape(1, -1, 1, 1)
        if self.round_to_bfloat16:
            memory = memory.to(torch.bfloat16).to(torch.float32)
        return memory


def _flat(grid: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,h*w,C]."""
    return grid.flatten(2).transpose(1, 2)


@torch.no_grad()
def sine_grid(encoding: nn.Module, grid: Tensor) -> Tensor:
    """The sine encoding that a transformers position module gives for a grid's shape."""
    return encoding(grid.shape, grid.device, grid.dtype).clone()


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of one head: [B,Q,C], [B,K,C], [B,K,C] -> [B,Q,C], tile by tile of the queries."""
    keys = key.transpose(1, 2)
    tiles = torch.split(query * scale, QUERY_TILE, dim=1)
    return torch.cat([(tile @ keys).softmax(dim=-1) @ value for tile in tiles], dim=1)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Row `index[b]` of `x[b]`, keeping the axis: [B,K,...], [B] -> [B,1,...]."""
    index = index.reshape(-1, *([1] * (x.dim() - 1))).expand(-1, 1, *x.shape[2:])
    return x.gather(1, index)
