"""EdgeTAM's configurations for transformers, published and by image size."""

from __future__ import annotations

from typing import Any

from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

from sam2_edge.bundle.contract import MAX_IMAGE_SIZE, Geometry
from sam2_edge.models import family
from sam2_edge.models.edgetam.repvit import RepVitConfig, repvit_config

STRIDE = 16
"""Pixels of the model input per cell of the embedding."""

IMAGE_SIZES = range(256, MAX_IMAGE_SIZE + 1, 256)
"""Sides of the model input, pixels: windows of whole cells must tile the embedding 16 x 16 times,
one for each latent that has a place."""


def published_config(image_size: int) -> EdgeTamVideoConfig:
    """The configuration of the published checkpoint (EdgeTAM, configs/edgetam.yaml).

    Unlike in SAM 2.1, and in transformers' defaults, neither the age of a pointer nor the absence
    of the object is encoded.
    """
    config = EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(backbone_config=RepVitConfig()),
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    return at_image_size(config, image_size)


def config_of(content: dict[str, Any]) -> EdgeTamVideoConfig:
    """The configuration in a config.json, with our backbone in place of timm's.

    Raises:
        CheckpointError: The backbone is another one.
    """
    vision = dict(content.get("vision_config") or {})
    backbone = dict(vision.get("backbone_config") or {})
    if backbone.get("model_type") != RepVitConfig.model_type:
        vision["backbone_config"] = repvit_config(backbone).to_dict()
    return EdgeTamVideoConfig.from_dict({**content, "vision_config": vision})


def at_image_size(config: EdgeTamVideoConfig, image_size: int) -> EdgeTamVideoConfig:
    """Set every entry that depends on the image size, and return the configuration."""
    sides = [image_size // stride for stride in (4, 8, STRIDE)]
    config.image_size = image_size
    config.vision_config.backbone_feature_sizes = [[side, side] for side in sides]
    config.prompt_encoder_config.image_size = image_size
    config.memory_attention_rope_feat_sizes = [sides[-1], sides[-1]]
    return config


def geometry(config: EdgeTamVideoConfig) -> Geometry:
    """The geometry of a configuration: a memory is a list of latents."""
    latents = config.perceiver_resampler_num_latents + config.perceiver_resampler_num_latents_2d
    return family.geometry(config, stride=STRIDE, latents=latents)
