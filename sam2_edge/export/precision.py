"""What a precision policy means for each graph, and how it is applied to an exported file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from sam2_edge.bundle.contract import Feeds, Graph, Precision
from sam2_edge.bundle.manifest import CalibrationEntry
from sam2_edge.calibration.frames import DEFAULT_FRAMES, CalibrationFrames
from sam2_edge.calibration.qdq import QdqTarget, candidates, quantized
from sam2_edge.calibration.ranges import Method, collect_ranges
from sam2_edge.export.fp16 import fp32_only_nodes, overflowing_nodes, to_half

PrecisionMode = Literal["fp32", "mixed", "fp16", "int8"]
"""mixed: the two graphs that cost most in float16, what decides on masks and memory in float32.
int8: the image encoder in INT8; what is left in it, and the other graphs, in float16 for TensorRT
and in float32 for a CPU, which does not compute in float16."""

_ALL_HALF: dict[Graph, Precision] = dict.fromkeys(Graph, "fp16")
_ALL_FULL: dict[Graph, Precision] = dict.fromkeys(Graph, "fp32")

_MIXED: dict[Graph, Precision] = _ALL_FULL | {
    Graph.IMAGE_ENCODER: "fp16",
    Graph.MEMORY_ATTENTION: "fp16",
}


def _policies(rest: dict[Graph, Precision]) -> dict[PrecisionMode, dict[Graph, Precision]]:
    """Precision of each graph by policy; rest: what the others are in beside INT8."""
    int8 = rest | {Graph.IMAGE_ENCODER: "int8"}
    return {"fp32": _ALL_FULL, "mixed": _MIXED, "fp16": _ALL_HALF, "int8": int8}


PRECISION_MODES: dict[QdqTarget, dict[PrecisionMode, dict[Graph, Precision]]] = {
    "cpu": _policies(_ALL_FULL),
    "tensorrt": _policies(_ALL_HALF),
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to calibrate with: a video, a folder of images, or a camera by its number or URL, of
    what will be seen in use.

    method, budget: for INT8 alone. budget: leave layers in float until J&F on synthetic clips falls
    by at most so much; None puts all that can be into INT8.
    """

    source: str | Path
    method: Method = "minmax"
    frames: int = DEFAULT_FRAMES
    budget: float | None = None


def halve(path: Path, inputs: Iterable[Feeds]) -> None:
    """Rewrite a float32 graph in float16; `inputs` show where values are too large for it."""
    model = _load(path)
    keep = fp32_only_nodes(model) | overflowing_nodes(model, inputs)
    onnx.save(to_half(model, keep), path)


def quantize(
    path: Path,
    frames: CalibrationFrames,
    method: Method,
    engine: QdqTarget,
    *,
    inputs: Iterable[Feeds],
    errors: Mapping[str, float],
    left_out: Sequence[str],
) -> CalibrationEntry:
    """Rewrite a float32 graph with INT8 weights and activations, calibrated on `frames`, but for
    the layers that are left out. inputs: show where values are too large for float16. errors: of
    layers alone, for the record.
    """
    model = _load(path)
    nodes = [node for node in candidates(model) if node not in left_out]
    ranges = collect_ranges(model, frames, method)
    made = quantized(model, ranges, nodes, engine)
    if engine == "tensorrt":
        made = to_half(made, fp32_only_nodes(made) | overflowing_nodes(model, inputs))
    onnx.save(made, path)
    used = {name for node in model.graph.node if node.name in nodes for name in node.input[:1]}
    return CalibrationEntry(
        source=frames.source,
        frames=frames.numbers,
        method=method,
        ranges={name: found for name, found in ranges.items() if name in used},
        left_out=tuple(left_out),
        sensitivity=dict(errors),
    )


def _load(path: Path) -> onnx.ModelProto:
    """A graph with its weights, which no longer lie beside it."""
    model = onnx.load(path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return model
