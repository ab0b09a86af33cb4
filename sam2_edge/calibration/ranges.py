"""Ranges of a graph's tensors over calibration inputs: the values that INT8 covers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import HistogramCollector

from sam2_edge.bundle.contract import Feeds
from sam2_edge.calibration.tensor_stats import Range, extremes, session_with_outputs

Method = Literal["minmax", "percentile", "entropy"]
"""minmax: all values seen. percentile: all but the largest 0.001 %. entropy: the range that keeps
most of the distribution (TensorRT's own entropy calibration)."""

METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")

OPERATORS = ("Conv", "MatMul", "Gemm")

GROUP_BYTES = 2**30
"""Histograms hold whole tensors: the inputs run once per group of at most this size."""

_BINS = {"percentile": 2048, "entropy": 512}
"""Entropy tries a range per bin, so more bins take longer; ONNX Runtime's default of 128 leaves
nothing to choose from."""

_ENTROPY_LEVELS = 128
_PERCENTILE = 99.999


def collect_ranges(
    model: onnx.ModelProto, inputs: Iterable[Feeds], method: Method
) -> dict[str, Range]:
    """Range of every tensor that a Conv, MatMul or Gemm reads or writes.

    Args:
        model: A float32 graph.
        inputs: Read one by one; several times for histograms.
        method: Which of the values seen a range covers.
    """
    sizes = _tensor_bytes(onnx.shape_inference.infer_shapes(model))
    if method == "minmax":
        return extremes(model, sizes, inputs)
    found: dict[str, Range] = {}
    for group in _groups(sizes):
        found |= _by_histogram(model, group, inputs, method)
    return found


def _tensor_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Size of each float32 tensor at the operators that may be quantized."""
    graph = model.graph
    values = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output, *graph.value_info)}
    nodes = [node for node in graph.node if node.op_type in OPERATORS]
    names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    return {
        name: 4 * int(np.prod([max(1, d.dim_value) for d in values[name].shape.dim]))
        for name in names
        if name in values and values[name].elem_type == onnx.TensorProto.FLOAT
    }


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[n] for n in group) + size > GROUP_BYTES:
            yield group
            group = []
        group.append(name)
    yield group


def _by_histogram(
    model: onnx.ModelProto, names: list[str], inputs: Iterable[Feeds], method: Method
) -> dict[str, Range]:
    session = session_with_outputs(model, names)
    collector = HistogramCollector(
        method=method,
        symmetric=method == "percentile",
        num_bins=_BINS[method],
        num_quantized_bins=_ENTROPY_LEVELS,
        percentile=_PERCENTILE,
        scenario="same",
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for every input
        for feeds in inputs:
            collector.collect(dict(zip(names, session.run(None, dict(feeds)), strict=True)))
        found = collector.compute_collection_result()
    return {
        name: (float(np.ravel(limits[0])[0]), float(np.ravel(limits[1])[0]))
        for name, limits in found.items()
    }
