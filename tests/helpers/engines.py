"""Bundles that claim to contain engines, with the limits of engines."""

from __future__ import annotations

from sam2_edge import Bundle
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.export.tensorrt.bundle import EngineOptions, engine_profile


def as_engines(
    bundle: Bundle, *, objects: int = 8, points: int = 4, conditioning: int = 4
) -> Bundle:
    """Return a bundle whose ONNX graphs have an engine's entry in the manifest."""
    options = EngineOptions(
        "tensorrt-rtx", max_objects=objects, max_points=points, max_cond_frames=conditioning
    )
    profile = engine_profile(bundle.manifest.geometry, options)
    engine = EngineEntry(
        variant="tensorrt-rtx", version="1", compute_capabilities=((8, 6),), profile=profile
    )
    graphs = {
        graph: entry.model_copy(update={"engine": engine})
        for graph, entry in bundle.manifest.graphs.items()
    }
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
