"""The published model variants: names, configurations, and recognition from weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from transformers import Sam2VideoConfig, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge.bundle.contract import IMAGE_SIZES, MASK_STRIDE, MEMORY_STRIDE, Geometry
from sam2_edge.errors import CheckpointError, ExportError

DEFAULT_IMAGE_SIZE = 1024

NANO = "sam2-edge-nano"
"""Name of the model that comes with the package."""


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


@dataclass(frozen=True, slots=True)
class Variant:
    """One published model: `family` is "sam2" or "sam2.1", `size` a key of `HIERA`."""

    family: str
    size: str

    @property
    def name(self) -> str:
        """The name users give, such as "sam2.1-hiera-tiny"."""
        return f"{self.family}-hiera-{self.size}"

    @property
    def hub_id(self) -> str:
        """The repository on the Hugging Face Hub."""
        return f"facebook/{self.name}"


VARIANTS = MappingProxyType(
    {v.name: v for family in ("sam2.1", "sam2") for v in (Variant(family, size) for size in HIERA)}
)


def variant_config(variant: Variant, image_size: int = DEFAULT_IMAGE_SIZE) -> Sam2VideoConfig:
    """The transformers configuration of a variant at an image size in pixels."""
    hiera = HIERA[variant.size]
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
    published_21 = variant.family == "sam2.1"
    config = Sam2VideoConfig(
        vision_config=vision,
        enable_occlusion_spatial_embedding=published_21,
        enable_temporal_pos_encoding_for_object_pointers=published_21,
    )
    return at_image_size(config, image_size)


def at_image_size(config: Sam2VideoConfig, image_size: int) -> Sam2VideoConfig:
    """Set every entry of a configuration that depends on the image size, and return it.

    The weights of SAM 2 do not depend on the image size.

    Raises:
        ExportError: The backbone does not take this size.
    """
    check_image_size(image_size)
    sides = [image_size // stride for stride in (MASK_STRIDE, 2 * MASK_STRIDE, MEMORY_STRIDE)]
    # Eager attention exports as two products and a softmax, whatever the PyTorch version; others
    # that a configuration may name would be fetched.
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    config.image_size = image_size
    config.vision_config.backbone_feature_sizes = [[side, side] for side in sides]
    config.vision_config.backbone_config.image_size = [image_size, image_size]
    config.prompt_encoder_config.image_size = image_size
    config.memory_attention_rope_feat_sizes = [sides[-1], sides[-1]]
    return config


def geometry_of(config: Sam2VideoConfig) -> Geometry:
    """The geometry of a configuration."""
    return Geometry(
        image_size=int(config.image_size),
        hidden=config.vision_config.fpn_hidden_size,
        memory_channels=config.memory_encoder_output_channels,
        memory_slots=config.num_maskmem,
        pointers=config.max_object_pointers_in_encoder,
    )


def check_image_size(image_size: int) -> None:
    """Raise ExportError unless the backbone takes this image size in pixels."""
    if image_size not in IMAGE_SIZES:
        listed = ", ".join(map(str, IMAGE_SIZES))
        raise ExportError(
            f"the backbone does not take image size {image_size}; choose a multiple of "
            f"{IMAGE_SIZES.step}: {listed}"
        )


def recognize_variant(shapes: Mapping[str, Sequence[int]]) -> Variant:
    """The variant of an original checkpoint, from the names and shapes of its tensors.

    Raises:
        CheckpointError: The image encoder is not one of the published ones.
    """
    prefix = "image_encoder.trunk."
    blocks = {name.split(".")[3] for name in shapes if name.startswith(prefix + "blocks.")}
    width = (*shapes.get(prefix + "patch_embed.proj.weight", ()), 0)[0]
    for size, hiera in HIERA.items():
        if (hiera.width, sum(hiera.blocks)) == (width, len(blocks)):
            return Variant("sam2.1" if "no_obj_embed_spatial" in shapes else "sam2", size)
    known = "; ".join(f"{n}: {sum(h.blocks)} of width {h.width}" for n, h in HIERA.items())
    raise CheckpointError(
        f"these weights have {len(blocks)} image encoder blocks of width {width}, unlike any SAM 2 "
        f"model ({known}); give a SAM 2 or SAM 2.1 checkpoint"
    )
