"""The mask decoder graph as a PyTorch module: prompts and features become masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sam2_edge.bundle.contract import NO_OBJECT_LOGIT


class MaskDecoder(nn.Module):
    """Prompts and a conditioned embedding -> four masks with scores and pointers, and the best.

    Includes the prompt encoder. As in SAM 2, a padding point always follows the points, so tracking
    without a prompt is one point of label -1. `multimask` picks the best of masks 1 to 3 by
    predicted IoU. Otherwise mask 0 is taken, or the best of the others where mask 0 is unstable
    ("dynamic multimask"); the pointer stays that of mask 0.
    """

    image_position: Tensor

    def __init__(self, model: Any) -> None:
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
        where = 2 * math.pi * ((2 / self.image_size) * (coords + 0.5) - 1)
        # Multiplications instead of a product of matrices: on compute capability 7.5, TensorRT
        # refuses such products in float32, which these angles need.
        angle = where[..., :1] * frequencies[0] + where[..., 1:] * frequencies[1]
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


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Row `index[b]` of `x[b]`, keeping the axis: [B,K,...], [B] -> [B,1,...]."""
    index = index.reshape(-1, *([1] * (x.dim() - 1))).expand(-1, 1, *x.shape[2:])
    return x.gather(1, index)
