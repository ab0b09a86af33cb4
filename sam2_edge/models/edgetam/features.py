"""EdgeTAM's backbone and feature pyramid over transformers' weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.composition import composed
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
        self.fine = composed(fine, decoder.conv_s1)
        self.finest = composed(finest, decoder.conv_s0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features; shapes as in the contract."""
        finest, fine, middle, coarse = self.backbone(pixels)
        coarse = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return self.finest(finest), self.fine(fine), self.middle(middle) + coarse
