"""What the toolkit needs to know of a family of models; `families.py` has the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from sam2_edge.bundle.contract import Geometry, GraphTarget

Shapes = Mapping[str, Sequence[int]]
"""Names and shapes of a checkpoint's tensors."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One published model.

    Attributes:
        name: What users give, such as "sam2.1-hiera-tiny".
        family: What the manifest records, such as "sam2.1".
        hub_id: The repository on the Hugging Face Hub.
        config: Makes its transformers configuration for an image size in pixels.
    """

    name: str
    family: str
    hub_id: str
    config: Callable[[int], PreTrainedConfig]


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Where the tokens of one memory are, for memory attention.

    Attributes:
        position: Sine encoding of each token, [1,T,m] float32.
        grid: Side of the grid of cells by which the last tokens are rotated; those before it have
            no place.
    """

    position: Tensor
    grid: int


def geometry(config: Any, *, stride: int, latents: int | None = None) -> Geometry:
    """The geometry of a configuration; its entries have the same names in every family.

    Args:
        config: transformers' configuration of a video model.
        stride: Pixels of the model input along the side of a cell of the embedding.
        latents: Tokens of a memory that is a list of latents; None if it is a grid of cells.
    """
    return Geometry(
        image_size=int(config.image_size),
        hidden=config.vision_config.fpn_hidden_size,
        memory_channels=config.memory_encoder_output_channels,
        memory_slots=config.num_maskmem,
        pointers=config.max_object_pointers_in_encoder,
        stride=stride,
        memory_latents=latents,
    )


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models.

    Attributes:
        model_types: `model_type` in config.json of its folders.
        model_class: transformers' video model, whose layers the graphs use.
        session_class: transformers' inference session for it.
        variants: Published models.
        image_sizes: Sides of the model input that the backbone takes, pixels.
        default_image_size: The size of training.
        mean, std: Normalization of RGB in 0..1.
        recorded_as: What the manifest records for a configuration.
        config_of: Makes a configuration of the content of a config.json.
        at_image_size: Sets every entry of a configuration that depends on the image size.
        geometry: The geometry of a configuration.
        recognize: The variant of an original checkpoint; None if it is of another family.
        from_original: An original checkpoint's tensors under transformers' names.
        from_published: The same of a folder's tensors.
        features: A module from normalized pixels [1,3,S,S] to high_res_0 [1,C/8,4h,4h], high_res_1
            [1,C/4,2h,2h] and embedding [1,C,h,h].
        memory_layout: Where the tokens of a memory are.
        compressor: A module from a memory [B,m,h,w] to what is stored; None if that is the grid.
    """

    model_types: tuple[str, ...]
    model_class: type[PreTrainedModel]
    session_class: type[Any]
    variants: tuple[Variant, ...]
    image_sizes: range
    default_image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    recorded_as: Callable[[Any], str]
    config_of: Callable[[dict[str, Any]], PreTrainedConfig]
    at_image_size: Callable[[Any, int], PreTrainedConfig]
    geometry: Callable[[Any], Geometry]
    recognize: Callable[[Shapes], Variant | None]
    from_original: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    from_published: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    features: Callable[[Any, GraphTarget], nn.Module]
    memory_layout: Callable[[Any], MemoryLayout]
    compressor: Callable[[Any], nn.Module | None]
