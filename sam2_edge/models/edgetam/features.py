"""EdgeTAM's backbone and feature pyramid over transformers' weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.edgetam.repvit import fused


class RepVitFeatures(nn.Module):
    """pixels [1,3,S,S], normalized -> features at 4, 2 and 1 cells, each of C channels."""

    def __init__(self, model: Any, target: GraphTarget) -> None:  # noqa: ARG002 # one form for all
        super().__init__()
        self.backbone = fused(model.vision_encoder.backbone.timm_model)
        self.neck = model.vision_encoder.neck
        if list(self.neck.fpn_top_down_levels) != [2, 3]:
            raise ValueError("only the coarsest level is added to a finer one in EdgeTAM")

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three finest levels of the pyramid, finest first."""
        finest, fine, middle, coarse = self.backbone(pixels)
        coarse_lateral, middle_lateral, fine_lateral, finest_lateral = self.neck.convs
        coarse = F.interpolate(coarse_lateral(coarse), scale_factor=2.0, mode="nearest")
        return finest_lateral(finest), fine_lateral(fine), middle_lateral(middle) + coarse
