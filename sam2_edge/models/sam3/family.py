"""SAM 3's tracker as a row of the table of families."""

from __future__ import annotations

from typing import Any

from transformers import Sam3TrackerVideoInferenceSession, Sam3TrackerVideoModel

from sam2_edge.models.family import Family, MemoryLayout, Shapes, Variant
from sam2_edge.models.sam2.family import memory_grid
from sam2_edge.models.sam3.config import (
    DETECTOR_AND_TRACKER,
    IMAGE_SIZES,
    TRACKER,
    at_image_size,
    config_of,
    geometry,
    published_config,
)
from sam2_edge.models.sam3.key_mapping import from_original, from_published, recognize
from sam2_edge.models.sam3.vit import VitFeatures

PUBLISHED = Variant("sam3", "sam3", "facebook/sam3", published_config)


def _layout(model: Any) -> MemoryLayout:
    return memory_grid(model, geometry(model.config).embedding_size)


def _recognize(shapes: Shapes) -> Variant | None:
    return PUBLISHED if recognize(shapes) else None


SAM3 = Family(
    model_types=(TRACKER, DETECTOR_AND_TRACKER),
    model_class=Sam3TrackerVideoModel,
    session_class=Sam3TrackerVideoInferenceSession,
    variants=(PUBLISHED,),
    image_sizes=IMAGE_SIZES,
    default_image_size=1008,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    recorded_as=lambda _config: "sam3",
    config_of=config_of,
    at_image_size=at_image_size,
    geometry=geometry,
    recognize=_recognize,
    from_original=from_original,
    from_published=from_published,
    features=VitFeatures,
    memory_layout=_layout,
    compressor=lambda _model: None,
)
