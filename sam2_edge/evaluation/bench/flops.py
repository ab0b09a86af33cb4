"""Floating-point operations of an ONNX graph, and the peak throughput of this machine.

Only matrix products and convolutions are counted, with two operations per multiply-add; all others
together are a few percent of a SAM 2 graph. Requires the package `onnx` (extra `export`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sam2_edge.bundle.temporary import scratch_folder

PEAK_SIZE, PEAK_RUNS = 2048, 8
"""Side of the square matrices for measuring the machine's peak, and number of runs."""


def graph_flops(path: Path, sizes: Mapping[str, int]) -> int:
    """Count the operations of one run of an ONNX graph with these sizes of its dynamic axes.

    Raises:
        ModuleNotFoundError: If `onnx` is not installed.
        ValueError: If a shape cannot be inferred.
    """
    import onnx

    with scratch_folder() as folder:
        fixed = folder / "fixed.onnx"
        _write_fixed(path, sizes, fixed)
        try:
            inferred = onnx.shape_inference.infer_shapes(onnx.load(fixed), strict_mode=True)
        except onnx.shape_inference.InferenceError as error:
            raise ValueError(f"the shapes in {path.name} cannot be inferred: {error}") from error
    shapes = _shapes(inferred.graph)
    return sum(_flops(node, shapes) for node in inferred.graph.node)


def _write_fixed(path: Path, sizes: Mapping[str, int], target: Path) -> None:
    """Write the graph with fixed axes.

    ONNX Runtime then folds everything computed from shapes, which ONNX's own shape inference cannot
    handle.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    for axis, size in sizes.items():
        options.add_free_dimension_override_by_name(axis, size)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def peak_flops(threads: int | None) -> float:
    """Measure the operations per second of a large float32 product, the best of several runs.

    Raises:
        ModuleNotFoundError: If `onnx` is not installed.
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper

    shape = [PEAK_SIZE, PEAK_SIZE]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("a", "b", "c")]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "peak", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: np.ones(shape, np.float32) for name in ("a", "b")}
    best = math.inf
    for _ in range(PEAK_RUNS):
        start = time.perf_counter()
        session.run(None, feeds)
        best = min(best, time.perf_counter() - start)
    return 2.0 * PEAK_SIZE**3 / best


def _shapes(graph: Any) -> dict[str, list[int]]:
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = [axis.dim_value for axis in axes]
    return shapes


def _flops(node: Any, shapes: Mapping[str, list[int]]) -> int:
    if node.op_type not in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
        return 0
    try:
        first, second = (shapes[name] for name in node.input[:2])
        result = shapes[node.output[0]]
    except KeyError as error:
        raise ValueError(f"the shape of {error} in node {node.name} is unknown") from error
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "MatMul":
        return 2 * math.prod(result) * first[-1]
    if node.op_type == "Gemm":
        return 2 * math.prod(result) * first[0 if attributes.get("transA") else 1]
    if node.op_type == "Conv":
        return 2 * math.prod(result) * math.prod(second[1:])
    return 2 * math.prod(first) * math.prod(second[1:])
