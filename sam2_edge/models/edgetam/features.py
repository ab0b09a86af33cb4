"""EdgeTAM's backbone and feature pyramid over transformers' weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.edgetam.repvit import fused


class RepVitFeatures(nn.Module):
    """pixels [1,3,S,S], normalized -> high_res_0, high_res_1, embedding.

    The two finer levels of the pyramid receive nothing from the coarser ones, so each is one linear
    map with the decoder's projection, and the pyramid's many channels are never computed.
    """

    def __init__(self, model: Any, target: GraphTarget) -> None:  # noqa: ARG002 # one form for all
        super().__init__()
        neck, decoder = model.vision_encoder.neck, model.mask_decoder
        if list(neck.fpn_top_down_levels) != [2, 3]:
            raise ValueError("only the coarsest level is added to a finer one in EdgeTAM")
        self.backbone = fused(model.vision_encoder.backbone.timm_model)
        coarse, self.middle, fine, finest = neck.convs
        self.coarse = coarse
        self.fine = _composed(fine, decoder.conv_s1)
        self.finest = _composed(finest, decoder.conv_s0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features; shapes as in the contract."""
        finest, fine, middle, coarse = self.backbone(pixels)
        coarse = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return self.finest(finest), self.fine(fine), self.middle(middle) + coarse


@torch.no_grad()
def _composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One convolution of 1 x 1 that equals two; its weights are computed in float64."""
    assert first.bias is not None
    assert second.bias is not None
    inner, outer = (conv.weight.double().flatten(1) for conv in (first, second))
    result = nn.Conv2d(first.in_channels, second.out_channels, 1)
    result.weight.copy_((outer @ inner)[:, :, None, None])
    result.bias = nn.Parameter((outer @ first.bias.double() + second.bias.double()).float())
    return result
