"""EdgeTAM as a row of the table of families."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from transformers import EdgeTamVideoInferenceSession, EdgeTamVideoModel

from sam2_edge.models.edgetam.config import (
    IMAGE_SIZES,
    at_image_size,
    config_of,
    geometry,
    published_config,
)
from sam2_edge.models.edgetam.features import RepVitFeatures
from sam2_edge.models.edgetam.key_mapping import from_original, recognize
from sam2_edge.models.edgetam.perceiver import Perceiver
from sam2_edge.models.family import Family, MemoryLayout, Shapes, Variant
from sam2_edge.models.positions import flat, sine_grid
from sam2_edge.models.sam2.family import IMAGE_MEAN, IMAGE_STD

PUBLISHED = Variant("edgetam", "edgetam", "yonigozlan/EdgeTAM-hf", published_config)


def memory_layout(model: Any) -> MemoryLayout:
    """Latents without a place, then a grid of latents."""
    perceiver = model.spatial_perceiver
    side = isqrt(len(perceiver.latents_2d))
    grid = torch.zeros(1, perceiver.hidden_size, side, side)
    placed = flat(sine_grid(perceiver.positional_encoding, grid))
    free = torch.zeros(1, len(perceiver.latents_1d), perceiver.hidden_size)
    return MemoryLayout(torch.cat([free, placed], dim=1), side)


def _recognize(shapes: Shapes) -> Variant | None:
    return PUBLISHED if recognize(shapes) else None


EDGETAM = Family(
    model_types=("edgetam_video",),
    model_class=EdgeTamVideoModel,
    session_class=EdgeTamVideoInferenceSession,
    variants=(PUBLISHED,),
    image_sizes=IMAGE_SIZES,
    default_image_size=1024,
    mean=IMAGE_MEAN,
    std=IMAGE_STD,
    recorded_as=lambda _config: "edgetam",
    config_of=config_of,
    at_image_size=at_image_size,
    geometry=geometry,
    recognize=_recognize,
    from_original=from_original,
    from_published=dict,
    features=RepVitFeatures,
    memory_layout=memory_layout,
    compressor=Perceiver,
)
