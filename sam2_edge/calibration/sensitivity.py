"""What quantizing one layer alone does to the outputs of its graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Feeds
from sam2_edge.calibration.qdq import QdqTarget, quantized
from sam2_edge.calibration.tensor_stats import Range


def layer_errors(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    nodes: Collection[str],
    inputs: Iterable[Feeds],
    engine: QdqTarget,
) -> dict[str, float]:
    """Error of the graph with only this node in INT8, for each of `nodes`, the worst first.

    The error is the root mean square of the difference over that of the value, of the output where
    it is largest, on average over `inputs`.
    """
    feeds = list(inputs)
    wanted = _results(model, feeds)
    errors = {}
    for node in nodes:
        got = _results(quantized(model, ranges, [node], engine), feeds)
        errors[node] = float(
            np.mean([relative_error(a, b) for a, b in zip(got, wanted, strict=True)])
        )
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _results(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[list[NDArray[np.float32]]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, dict(each)) for each in feeds]


def relative_error(got: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """Root mean square of the difference over that of the value, of the output with the largest."""
    pairs = zip(got, wanted, strict=True)
    return max(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in pairs)
