"""SAM 2 as a row of the table of families."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from sam2_edge.bundle.contract import Geometry
from sam2_edge.models.family import Family, MemoryLayout, geometry
from sam2_edge.models.positions import flat, sine_grid
from sam2_edge.models.sam2.hiera import HieraFeatures
from sam2_edge.models.sam2.key_mapping import from_original
from sam2_edge.models.sam2.variants import (
    IMAGE_SIZES,
    STRIDE,
    VARIANTS,
    at_image_size,
    recognize,
)

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in 0..1 that SAM 2 is trained with (ImageNet's)."""


def _geometry(config: Sam2VideoConfig) -> Geometry:
    return geometry(config, stride=STRIDE)


def memory_grid(model: Any, side: int) -> MemoryLayout:
    """The layout of a memory that is a grid of side x side cells."""
    grid = torch.zeros(1, model.config.memory_encoder_output_channels, side, side)
    return MemoryLayout(flat(sine_grid(model.memory_encoder.position_encoding, grid)), side)


def _layout(model: Sam2VideoModel) -> MemoryLayout:
    return memory_grid(model, _geometry(model.config).embedding_size)


def _recorded_as(config: Sam2VideoConfig) -> str:
    return "sam2.1" if config.enable_occlusion_spatial_embedding else "sam2"


SAM2 = Family(
    model_types=("sam2_video", "sam2"),
    model_class=Sam2VideoModel,
    session_class=Sam2VideoInferenceSession,
    variants=VARIANTS,
    image_sizes=IMAGE_SIZES,
    default_image_size=1024,
    mean=IMAGE_MEAN,
    std=IMAGE_STD,
    recorded_as=_recorded_as,
    config_of=Sam2VideoConfig.from_dict,
    at_image_size=at_image_size,
    geometry=_geometry,
    recognize=recognize,
    from_original=from_original,
    from_published=dict,
    features=HieraFeatures,
    memory_layout=_layout,
    compressor=lambda _model: None,
)
