"""Bundles that claim to contain engines, with the limits of engines."""

from __future__ import annotations

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant

VERSION = "1.0"
"""Of TensorRT, in these bundles and on the late device."""


def as_engines(
    bundle: Bundle,
    variant: TensorRtVariant = "tensorrt-rtx",
    *,
    objects: int = 8,
    attention: int | None = None,
    packed: int | None = None,
    points: int = 4,
    conditioning: int = 4,
) -> Bundle:
    """Return a bundle whose ONNX graphs have an engine's entry in the manifest.

    Args:
        bundle: A bundle of ONNX graphs.
        variant: What the engines claim to be built for.
        objects: Objects per run.
        attention: Objects per run of memory attention; None for as many.
        packed: Objects per run of mask bits; None for as many.
        points: Points per object.
        conditioning: Conditioning frames per object.
    """
    geometry = bundle.manifest.geometry
    limits = {
        "R": 512,
        "M": geometry.recent_memories + conditioning,
        "P": geometry.recent_pointers + conditioning,
        "B": objects,
        "N": points,
        "H": 2160,
        "K": 480,
    }
    graphs = {}
    for graph, spec in graph_specs(geometry).items():
        most = dict(limits)
        if graph is Graph.MEMORY_ATTENTION:
            most["B"] = attention or objects
        if graph is Graph.MASK_BITS:
            most["B"] = packed or objects
        engine = EngineEntry(
            variant=variant,
            version=VERSION,
            compute_capabilities=((8, 6),),
            profile={axis: (1, 1, most[axis]) for axis in spec.dynamic_axes},
        )
        graphs[graph] = bundle.manifest.graphs[graph].model_copy(update={"engine": engine})
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
