"""The range of sizes that each engine is built for, chosen so that its memory stays bounded.

TensorRT reserves activation memory for the largest sizes of a profile, and all engines of a bundle
share one block, so that the largest profile counts.
"""

from __future__ import annotations

from sam2_edge.bundle.contract import Geometry, Graph, GraphSpec, graph_specs
from sam2_edge.bundle.manifest import Profile
from sam2_edge.export.tensorrt.builder import ShapeRange
from sam2_edge.export.tensorrt.options import EngineOptions

MAX_STORED = 1024
"""Memories in the bank. It takes no activation memory: memory attention reads rows in place."""

ATTENTION_CELLS = 4096
"""Cells of all objects in one run of memory attention: one object at 1024 pixels, four at 512.
With 10 memories each, SAM 2.1 in float16 takes 340 MiB for them (TensorRT-RTX 1.7, SM86). Larger
batches gain nothing, since a few thousand queries keep a GPU busy."""

FUSED_ALONE_CELLS = 4096
"""Cells from which TensorRT fuses all attention of a profile for a single object. Below, it needs
one for two (TensorRT-RTX 1.7: 4 of 8 at 640, 768 and 896 pixels, none at 512)."""

MAX_FRAME_SIDE = 4096
"""Pixels of a side of a frame whose masks are packed on the GPU; of larger ones logits are fetched,
and the host does it."""

PACKED_VALUES = 2**26
"""Resized logits in one run of mask bits: 128 MiB in float16."""


def engine_profiles(geometry: Geometry, options: EngineOptions) -> dict[Graph, Profile]:
    """Min, opt and max size of every dynamic axis of every graph."""
    cells = geometry.embedding_size**2
    at_least = 2 if cells < FUSED_ALONE_CELLS else 1
    attended = max(at_least, min(options.max_objects, ATTENTION_CELLS // cells))
    packed = max(1, min(options.max_objects, PACKED_VALUES // MAX_FRAME_SIDE**2))
    objects = (1, 1, options.max_objects)
    limits: dict[Graph, Profile] = {
        Graph.IMAGE_ENCODER: {},
        Graph.MEMORY_ATTENTION: {
            "R": (1, geometry.memory_slots, MAX_STORED),
            "M": (1, geometry.memory_slots, geometry.recent_memories + options.max_cond_frames),
            "B": (1, 1, attended),
            "P": (1, geometry.pointers, geometry.recent_pointers + options.max_cond_frames),
        },
        Graph.MASK_PROMPT: {"B": objects},
        Graph.MASK_DECODER: {"B": objects, "N": (1, 1, options.max_points)},
        Graph.MEMORY_ENCODER: {"B": objects},
        Graph.MASK_BITS: {
            "B": (1, 1, packed),
            "H": (1, 720, MAX_FRAME_SIDE),
            "K": (1, 160, MAX_FRAME_SIDE // 8),
        },
    }
    specs = graph_specs(geometry)
    return {graph: {a: limits[graph][a] for a in specs[graph].dynamic_axes} for graph in Graph}


def engine_shapes(spec: GraphSpec, profile: Profile) -> dict[str, ShapeRange]:
    """Min, opt and max shape of every input of a graph."""
    sizes = [{axis: limits[i] for axis, limits in profile.items()} for i in range(3)]
    return {
        tensor.name: (
            tensor.shape(**sizes[0]),
            tensor.shape(**sizes[1]),
            tensor.shape(**sizes[2]),
        )
        for tensor in spec.inputs
    }
