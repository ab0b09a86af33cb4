"""Configurations of SAM 3's tracker for transformers, published and by image size."""

from __future__ import annotations

from typing import Any

from transformers import Sam3TrackerVideoConfig

from sam2_edge.bundle.contract import MAX_IMAGE_SIZE, Geometry
from sam2_edge.errors import CheckpointError
from sam2_edge.models import family

STRIDE = 14
"""Pixels of the model input per cell of the embedding: the side of a patch."""

WINDOW = 24
"""Cells along the side of an attention window, and of the table of positions that is tiled."""

IMAGE_SIZES = range(STRIDE * WINDOW, MAX_IMAGE_SIZE + 1, STRIDE * WINDOW)
"""Sides of the model input, pixels, whose cells windows tile."""

LEVELS = [4.0, 2.0, 1.0]
"""Cells of the levels of the pyramid per cell of the embedding; the detector has one more."""

TRACKER, DETECTOR_AND_TRACKER = "sam3_tracker_video", "sam3_video"
"""`model_type` of a folder with the tracker alone, and of the published one with both."""


def published_config(image_size: int) -> Sam3TrackerVideoConfig:
    """The configuration of the published checkpoint, which transformers has as its defaults."""
    config = Sam3TrackerVideoConfig()
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    return at_image_size(config, image_size)


def config_of(content: dict[str, Any]) -> Sam3TrackerVideoConfig:
    """The tracker's configuration in a config.json of the tracker, or of detector and tracker.

    Raises:
        CheckpointError: The image encoder is divided into patches, windows or levels that are not
            SAM 3's.
    """
    if content.get("model_type") == DETECTOR_AND_TRACKER:
        content = dict(content.get("tracker_config") or {})
    config = Sam3TrackerVideoConfig.from_dict(content)
    vision, backbone = config.vision_config, config.vision_config.backbone_config
    divided = (backbone.patch_size, WINDOW % backbone.window_size, vision.scale_factors[:3])
    if divided != (STRIDE, 0, LEVELS):
        raise CheckpointError(
            f"the image encoder has patches of {backbone.patch_size} pixels, windows of "
            f"{backbone.window_size} cells and levels {vision.scale_factors}; SAM 3 has {STRIDE}, "
            f"a divisor of {WINDOW} and {LEVELS}: give a checkpoint of SAM 3"
        )
    return config


def at_image_size(config: Sam3TrackerVideoConfig, image_size: int) -> Sam3TrackerVideoConfig:
    """Set every entry that depends on the image size, and return the configuration."""
    config.image_size = image_size  # transformers sets those of the parts
    return config


def geometry(config: Sam3TrackerVideoConfig) -> Geometry:
    """The geometry of a configuration."""
    return family.geometry(config, stride=STRIDE)
