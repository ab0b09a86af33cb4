"""The contract of the graphs: their names, tensors, axes and tolerances.

Export, check, build and run all read it. Axes that are letters are dynamic: B objects, N points, M
memories of an object, R stored memories of all objects, P object pointers, H rows and K columns of
bytes of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

MASK_PIXELS = 4
"""Pixels of the mask logits along the side of a cell of the embedding, in every family."""

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 2048
"""Sides of the model input, pixels; each family takes some sizes between them."""

LABEL_PAD = -1
LABEL_BACKGROUND = 0
LABEL_FOREGROUND = 1
LABEL_BOX_TOP_LEFT = 2
LABEL_BOX_BOTTOM_RIGHT = 3

NO_OBJECT_LOGIT = -1024.0
"""Mask logit of every pixel where the object score is not positive (SAM 2's own constant)."""

Precision = Literal["fp32", "fp16", "int8"]
"""Precision of a graph's computation."""

PARITY_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""Largest allowed difference between a graph and its PyTorch module, by precision, relative to
max(1, largest magnitude of the output): the one table. INT8's, on calibration frames, finds broken
graphs; the accuracy of masks shows how exact a graph is. `verify` allows the same relative L2
difference of every output."""

BFLOAT16_TOLERANCE = 1e-1
"""The same for the mask logits of a whole loop whose memory is rounded to bfloat16: a value near
the middle of two steps, 2**-7 of its size apart, is rounded up or down depending on the order of
additions. Measured: most frames below 1e-3, the worst 7.6e-2 on 12 of its pixels."""

MemoryRounding = Literal["none", "bfloat16"]
"""How the memory encoder rounds what is stored."""

FeatureDtype = Literal["float32", "float16"]

GraphTarget = Literal["cpu", "gpu"]
"""What graphs are written for: cpu with little memory traffic between operators, gpu in the form
that TensorRT compiles to fused attention. The results agree."""


class Graph(str, Enum):
    """The exported graphs, in the order of a frame's path."""

    IMAGE_ENCODER = "image_encoder"
    MEMORY_ATTENTION = "memory_attention"
    MASK_PROMPT = "mask_prompt"
    MASK_DECODER = "mask_decoder"
    MEMORY_ENCODER = "memory_encoder"
    MASK_BITS = "mask_bits"


Feeds = Mapping[str, NDArray[np.generic]]
"""Inputs of a graph on the host, by name."""

Axis = int | str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, numpy dtype name and axes; a letter is a dynamic axis."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # in a manifest

    name: str
    dtype: str
    axes: tuple[Axis, ...]

    def shape(self, **sizes: int) -> tuple[int, ...]:
        """The concrete shape for the given sizes of the dynamic axes, such as `B=2`."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Inputs and outputs of one graph, in order."""

    graph: Graph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def dynamic_axes(self) -> tuple[str, ...]:
        """Letters of the dynamic axes, in order of first use."""
        letters = [a for spec in self.inputs for a in spec.axes if isinstance(a, str)]
        return tuple(dict.fromkeys(letters))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes that determine every tensor of a model.

    Attributes:
        image_size: Side of the square model input, pixels.
        stride: Pixels of the model input along the side of a cell of the embedding.
        hidden: Channels of the embedding (256 in SAM 2).
        memory_channels: Channels of one memory (64 in SAM 2).
        memory_slots: Memories attended to with one conditioning frame (7 in SAM 2).
        pointers: Object pointers attended to with one conditioning frame (16 in SAM 2).
        memory_latents: Tokens of a memory that is a list of latents; None if it is a grid of cells.
        memory_tokens: Cells of each memory that are attended to; None for all.
        feature_dtype: Dtype of features, conditioned embeddings and memories between graphs.
    """

    image_size: int
    hidden: int = 256
    memory_channels: int = 64
    memory_slots: int = 7
    pointers: int = 16
    stride: int = 16
    memory_latents: int | None = None
    memory_tokens: int | None = None
    feature_dtype: FeatureDtype = "float32"

    @property
    def embedding_size(self) -> int:
        """Side of the embedding, cells."""
        return self.image_size // self.stride

    @property
    def mask_size(self) -> int:
        """Side of the mask logits, pixels."""
        return MASK_PIXELS * self.embedding_size

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """Shape of one memory: [m,h,h] of cells, or [T,m] of latents."""
        if self.memory_latents is not None:
            return (self.memory_latents, self.memory_channels)
        return (self.memory_channels, self.embedding_size, self.embedding_size)

    @property
    def recent_memories(self) -> int:
        """Number of recent frames whose memory is attended to."""
        return self.memory_slots - 1

    @property
    def recent_pointers(self) -> int:
        """Number of recent frames whose pointer is attended to."""
        return self.pointers - 1


def graph_specs(geometry: Geometry) -> dict[Graph, GraphSpec]:
    """The contract of every graph for one geometry."""
    size, c = geometry.image_size, geometry.hidden
    h, low = geometry.embedding_size, geometry.mask_size

    def f32(name: str, *axes: Axis) -> TensorSpec:
        return TensorSpec(name, "float32", axes)

    def i32(name: str, *axes: Axis) -> TensorSpec:
        return TensorSpec(name, "int32", axes)

    def feature(name: str, *axes: Axis) -> TensorSpec:
        return TensorSpec(name, geometry.feature_dtype, axes)

    high_res = (
        feature("high_res_0", 1, c // 8, low, low),
        feature("high_res_1", 1, c // 4, low // 2, low // 2),
    )
    embedding = feature("embedding", 1, c, h, h)
    conditioned = feature("conditioned", "B", c, h, h)
    mask_input = f32("mask_input", "B", 1, low, low)
    mask_logits = f32("mask_logits", "B", 1, low, low)
    object_score = f32("object_score", "B")
    # Indices y * h + x of the cells attended to.
    kept = geometry.memory_tokens
    memory_cells = () if kept is None else (i32("memory_cells", "M", "B", kept),)
    specs = (
        GraphSpec(
            Graph.IMAGE_ENCODER,
            (TensorSpec("image", "uint8", (1, size, size, 3)),),
            (*high_res, embedding, feature("unconditioned", 1, c, h, h)),
        ),
        GraphSpec(
            Graph.MEMORY_ATTENTION,
            (
                embedding,
                feature("memory", "R", *geometry.memory_shape),
                i32("memory_rows", "M", "B"),
                i32("memory_age", "M", "B"),
                f32("pointers", "P", "B", c),
                f32("pointer_age", "P", "B"),
                *memory_cells,
            ),
            (conditioned,),
        ),
        GraphSpec(
            Graph.MASK_PROMPT,
            (f32("mask", "B", 1, size, size),),
            (mask_input, mask_logits),
        ),
        GraphSpec(
            Graph.MASK_DECODER,
            (
                conditioned,
                *high_res,
                f32("point_coords", "B", "N", 2),
                i32("point_labels", "B", "N"),
                mask_input,
                i32("has_mask", "B"),
                i32("multimask", "B"),
            ),
            (
                f32("masks", "B", 4, low, low),
                f32("iou", "B", 4),
                f32("mask_pointers", "B", 4, c),
                i32("best_index", "B"),
                f32("best_mask", "B", 1, low, low),
                f32("best_iou", "B"),
                f32("pointer", "B", c),
                object_score,
            ),
        ),
        GraphSpec(
            Graph.MEMORY_ENCODER,
            (
                embedding,
                mask_logits,
                object_score,
                i32("binarize", "B"),
            ),
            (feature("memory", "B", *geometry.memory_shape),),
        ),
        GraphSpec(
            Graph.MASK_BITS,
            (mask_logits, f32("row_weights", "H", low), f32("column_weights", low, "K", 8)),
            (TensorSpec("bits", "uint8", ("B", "H", "K")),),
        ),
    )
    return {spec.graph: spec for spec in specs}
