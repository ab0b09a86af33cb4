"""The families of models that are exported, and how to find one. A new family is one row here."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from transformers import PreTrainedConfig

from sam2_edge.bundle.contract import Geometry
from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.models.edgetam.family import EDGETAM
from sam2_edge.models.family import Family, Shapes, Variant
from sam2_edge.models.sam2.family import SAM2
from sam2_edge.models.sam3.family import SAM3

FAMILIES: tuple[Family, ...] = (SAM2, EDGETAM, SAM3)

VARIANTS = MappingProxyType({v.name: v for family in FAMILIES for v in family.variants})

NANO = "sam2-edge-nano"
"""Name of the model that comes with the package."""


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a configuration."""
    return family_of_type(config.model_type)


def family_of_type(model_type: object) -> Family:
    """The family with this `model_type` in its config.json.

    Raises:
        CheckpointError: There is none.
    """
    known = {name: family for family in FAMILIES for name in family.model_types}
    if not isinstance(model_type, str) or model_type not in known:
        raise CheckpointError(
            f"model_type {model_type!r} is no video model that can be exported; give a folder "
            f"whose config.json has one of: {', '.join(known)}"
        )
    return known[model_type]


def family_of_variant(variant: Variant) -> Family:
    """The family that publishes a variant."""
    return next(family for family in FAMILIES if variant in family.variants)


def find_variant(name: str) -> Variant | None:
    """The variant with this name or repository on the Hugging Face Hub."""
    return next((v for v in VARIANTS.values() if name in (v.name, v.hub_id)), None)


def recognize_variant(shapes: Shapes) -> Variant:
    """The variant of an original checkpoint, from the names and shapes of its tensors.

    Raises:
        CheckpointError: It is none of the published ones.
    """
    for family in FAMILIES:
        if variant := family.recognize(shapes):
            return variant
    found = ", ".join(name[:80] for name in sorted(shapes)[:3])
    raise CheckpointError(
        f"these {len(shapes)} tensors ({found}, ...) are unlike any known model "
        f"({', '.join(VARIANTS)}); give an original checkpoint of one of these"
    )


def geometry_of(config: Any) -> Geometry:
    """The geometry of a configuration."""
    return family_of(config).geometry(config)


def at_image_size(config: Any, image_size: int) -> Any:
    """Set every entry of a configuration that depends on the image size, and return it.

    The weights do not depend on the image size.

    Raises:
        ExportError: The backbone does not take this size.
    """
    family = family_of(config)
    check_image_size(family, image_size)
    # Eager attention exports as two products and a softmax, whatever the PyTorch version; others
    # that a configuration may name would be fetched.
    config._attn_implementation = "eager"  # noqa: SLF001 # transformers has no public setter for it
    return family.at_image_size(config, image_size)


def check_image_size(family: Family, image_size: int) -> None:
    """Raise ExportError unless the backbone takes this image size in pixels."""
    if image_size not in family.image_sizes:
        listed = ", ".join(map(str, family.image_sizes))
        raise ExportError(
            f"the backbone does not take image size {image_size}; choose a multiple of "
            f"{family.image_sizes.step}: {listed}"
        )
