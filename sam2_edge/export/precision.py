"""Precision modes: what each means for every graph, and how an exported file is converted."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from sam2_edge.bundle.contract import (
    FeatureDtype,
    Feeds,
    Graph,
    GraphSpec,
    GraphTarget,
    MemoryRounding,
    Precision,
)
from sam2_edge.calibration.frames import DEFAULT_FRAMES
from sam2_edge.calibration.qdq import quantize_model
from sam2_edge.calibration.ranges import Method
from sam2_edge.calibration.tensor_stats import Range
from sam2_edge.errors import ExportError
from sam2_edge.export.fp16 import fp32_only_nodes, overflowing_nodes, to_half
from sam2_edge.export.int8_search import Int8Plan

PrecisionMode = Literal["fp32", "mixed", "fp16", "int8"]
"""mixed: the two most expensive graphs in float16, those that decide on masks and memory in
float32. int8: the image encoder in INT8; its other layers and the other graphs in float16 for
TensorRT, in float32 for a CPU, which does not compute in float16."""

_FP32: dict[Graph, Precision] = dict.fromkeys(Graph, "fp32")
_FP16: dict[Graph, Precision] = dict.fromkeys(Graph, "fp16")
_MIXED: dict[Graph, Precision] = {
    **_FP32,
    Graph.IMAGE_ENCODER: "fp16",
    Graph.MEMORY_ATTENTION: "fp16",
}
_COMMON: dict[PrecisionMode, dict[Graph, Precision]] = {
    "fp32": _FP32,
    "mixed": _MIXED,
    "fp16": _FP16,
}

PRECISION_MODES: dict[GraphTarget, dict[PrecisionMode, dict[Graph, Precision]]] = {
    "cpu": {**_COMMON, "int8": {**_FP32, Graph.IMAGE_ENCODER: "int8"}},
    "gpu": {**_COMMON, "int8": {**_FP16, Graph.IMAGE_ENCODER: "int8"}},
}
"""Precision of every graph by target and mode."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Frames that show what will be seen in use.

    Attributes:
        source: A video, a folder of images, or the number or URL of a camera.
        method: Which of the values seen an INT8 range covers.
        frames: Number of frames taken from the source.
        budget: INT8 only: layers stay in float until J&F on synthetic clips falls by at most this,
            0 to 1. None quantizes every layer that can be.
    """

    source: str | Path
    method: Method = "minmax"
    frames: int = DEFAULT_FRAMES
    budget: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a model becomes ONNX graphs; checked on creation.

    Attributes:
        precision: See `PrecisionMode`.
        target: What the graphs are written for; see `GraphTarget`.
        calibration: Required for "int8". For "mixed" and "fp16" it shows which values are too large
            for float16; without it, seeded inputs do.
        memory_rounding: "bfloat16" stores memory as the published predictor does, "none" in full;
            see `rounding`.
        memory_tokens: Tokens of each memory that memory attention sees, chosen by the object's mask
            (`runtime/memory/token_selection.py`); None for all. Fewer are faster and not exact.

    Raises:
        ExportError: The precision and the calibration do not go together.
    """

    precision: PrecisionMode = "fp32"
    target: GraphTarget = "cpu"
    calibration: Calibration | None = None
    memory_rounding: MemoryRounding = "bfloat16"
    memory_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.calibration is None:
            raise ExportError(
                "int8 needs frames to calibrate with; give --calibrate with a video, a folder of "
                "images or a camera that shows what will be seen in use"
            )
        if self.calibration is None:
            return
        if self.precision == "fp32":
            raise ExportError(
                "fp32 is not calibrated; leave out --calibrate, or choose mixed, fp16 or int8"
            )
        budget = self.calibration.budget
        if budget is not None and self.precision != "int8":
            raise ExportError(f"a budget is for int8, not for {self.precision}; leave it out")
        if budget is not None and not 0 <= budget < 1:
            raise ExportError(f"a budget of {budget} of J&F; give 0 to 1, such as 0.005")

    @property
    def precisions(self) -> dict[Graph, Precision]:
        """Precision of every graph."""
        return PRECISION_MODES[self.target][self.precision]

    @property
    def feature_dtype(self) -> FeatureDtype:
        """Dtype of features and memories between graphs.

        float16 on a GPU wherever the encoder and memory attention compute in it: what they read and
        write is then rounded to float16 in any case.
        """
        return "float16" if self.target == "gpu" and self.precision != "fp32" else "float32"

    @property
    def rounding(self) -> MemoryRounding:
        """How the memory encoder rounds what is stored.

        Memory in float16 is not rounded to bfloat16: that has 3 bits less, and GPUs of compute
        capability 7.5 do not support it.
        """
        return "none" if self.feature_dtype == "float16" else self.memory_rounding


def float16_tensors(spec: GraphSpec) -> frozenset[str]:
    """Names of a graph's inputs and outputs in float16."""
    return frozenset(t.name for t in (*spec.inputs, *spec.outputs) if t.dtype == "float16")


def cast_features(path: Path, features: Collection[str]) -> None:
    """Rewrite a float32 graph so that the named inputs and outputs are float16."""
    model = _load(path)
    onnx.save(to_half(model, {node.name for node in model.graph.node}, features), path)


def convert_to_fp16(path: Path, inputs: Iterable[Feeds], features: Collection[str] = ()) -> None:
    """Rewrite a float32 graph in float16.

    Args:
        path: The file.
        inputs: Show which values are too large for float16.
        features: Names of its inputs and outputs that become float16.
    """
    model = _load(path)
    keep = fp32_only_nodes(model) | overflowing_nodes(model, inputs)
    onnx.save(to_half(model, keep, features), path)


def convert_to_int8(
    path: Path,
    plan: Int8Plan,
    target: GraphTarget,
    inputs: Iterable[Feeds],
    features: Collection[str] = (),
) -> dict[str, Range]:
    """Rewrite a float32 graph with the layers of `plan` in INT8.

    For a GPU the rest becomes float16; `inputs` show which values are too large for it, and
    `features` names inputs and outputs that become float16.

    Returns:
        The ranges of the layers' inputs.
    """
    model = _load(path)
    quantized = quantize_model(model, plan.ranges, plan.layers, target)
    if target == "gpu":
        keep = fp32_only_nodes(quantized) | overflowing_nodes(model, inputs)
        quantized = to_half(quantized, keep, features)
    onnx.save(quantized, path)
    layers = [node for node in model.graph.node if node.name in plan.layers]
    return {node.input[0]: plan.ranges[node.input[0]] for node in layers}


def _load(path: Path) -> onnx.ModelProto:
    """Load a graph and its weights, and delete the file of weights beside it."""
    model = onnx.load(path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return model
