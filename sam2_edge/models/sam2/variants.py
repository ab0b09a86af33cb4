"""The published models of SAM 2: configurations, and recognition from weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from transformers import Sam2VideoConfig, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge.bundle.contract import MAX_IMAGE_SIZE
from sam2_edge.models.family import Shapes, Variant

STRIDE = 16
"""Pixels of the model input per cell of the embedding."""

IMAGE_SIZES = range(64, MAX_IMAGE_SIZE + 1, 32)
"""Sides of the model input, pixels: the last Hiera stage has stride 32, and 8 x 8 windows tile the
stage of stride 4."""


@dataclass(frozen=True, slots=True)
class Hiera:
    """The image encoder of one size (SAM 2 paper, appendix; model configs).

    Width and heads are those of the first stage and double with each stage.
    """

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: int = 7


HIERA = MappingProxyType(
    {
        "tiny": Hiera(96, 1, (1, 2, 7, 2), (5, 7, 9)),
        "small": Hiera(96, 1, (1, 2, 11, 2), (7, 10, 13)),
        "base-plus": Hiera(112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
        "large": Hiera(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
    }
)


def variant_config(image_size: int, family: str, size: str) -> Sam2VideoConfig:
    """The transformers configuration of a family ("sam2", "sam2.1") and a key of `HIERA`."""
    hiera = HIERA[size]
    widths = [hiera.width * 2**i for i in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=hiera.width,
        num_attention_heads=hiera.heads,
        blocks_per_stage=list(hiera.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[hiera.heads * 2**i for i in range(4)],
        window_size_per_stage=list(hiera.windows),
        global_attention_blocks=list(hiera.global_blocks),
        window_positional_embedding_background_size=[hiera.background] * 2,
    )
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
    published_21 = family == "sam2.1"
    config = Sam2VideoConfig(
        vision_config=vision,
        enable_occlusion_spatial_embedding=published_21,
        enable_temporal_pos_encoding_for_object_pointers=published_21,
    )
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    return at_image_size(config, image_size)


def at_image_size(config: Sam2VideoConfig, image_size: int) -> Sam2VideoConfig:
    """Set every entry that depends on the image size, and return the configuration."""
    sides = [image_size // stride for stride in (4, 8, STRIDE)]
    config.image_size = image_size
    config.vision_config.backbone_feature_sizes = [[side, side] for side in sides]
    config.vision_config.backbone_config.image_size = [image_size, image_size]
    config.prompt_encoder_config.image_size = image_size
    config.memory_attention_rope_feat_sizes = [sides[-1], sides[-1]]
    return config


def recognize(shapes: Shapes) -> Variant | None:
    """The variant of an original checkpoint; None if the image encoder is no published one."""
    prefix = "image_encoder.trunk."
    blocks = {name.split(".")[3] for name in shapes if name.startswith(prefix + "blocks.")}
    width = (*shapes.get(prefix + "patch_embed.proj.weight", ()), 0)[0]
    for size, hiera in HIERA.items():
        if (hiera.width, sum(hiera.blocks)) == (width, len(blocks)):
            family = "sam2.1" if "no_obj_embed_spatial" in shapes else "sam2"
            return next(v for v in VARIANTS if v.name == f"{family}-hiera-{size}")
    return None


VARIANTS = tuple(
    Variant(
        f"{family}-hiera-{size}",
        family,
        f"facebook/{family}-hiera-{size}",
        partial(variant_config, family=family, size=size),
    )
    for family in ("sam2.1", "sam2")
    for size in HIERA
)
