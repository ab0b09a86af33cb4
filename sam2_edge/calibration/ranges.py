"""Ranges of a graph's tensors over calibration inputs, by ONNX Runtime's calibrators."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

from sam2_edge.contract import Feeds

Method = Literal["minmax", "percentile", "entropy"]
"""minmax: the largest values seen. percentile: leaves out the largest 0.001 %. entropy: the range
that keeps most of the distribution (TensorRT's own entropy calibration)."""

METHODS: dict[Method, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}

OPERATORS = ("Conv", "MatMul", "Gemm")

Range = tuple[float, float]


def collect_ranges(
    model: onnx.ModelProto, inputs: Iterable[Feeds], method: Method
) -> dict[str, Range]:
    """Least and largest value to be kept of every tensor that Conv, MatMul and Gemm read or write.

    inputs: one after another, so that one set of intermediate tensors is in memory at a time.
    """
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        calibrator = create_calibrator(
            path,
            list(OPERATORS),
            augmented_model_path=str(Path(folder) / "watched.onnx"),
            calibrate_method=METHODS[method],
        )
        for feeds in inputs:
            calibrator.collect_data(_One(feeds))
        found = calibrator.compute_data()
    limits = {name: data.range_value for name, data in found.items()}
    return {name: (_number(least), _number(most)) for name, (least, most) in limits.items()}


class _One(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
    """A single set of inputs."""

    def __init__(self, feeds: Feeds) -> None:
        self._left: Iterator[Feeds] = iter([feeds])

    def get_next(self) -> Any:
        return next(self._left, None)


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])
