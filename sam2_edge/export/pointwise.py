"""Convolutions with kernels of 1 that follow each other become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


def merge_pointwise(graph: onnx.GraphProto) -> None:
    """Merge pairs of convolutions with kernels of 1, in place, where that saves operations.

    The finest level of the feature pyramid, with 256 channels at a quarter of the picture's side,
    only goes through another such convolution: it need not be computed. Weights are multiplied in
    float64.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    for outer in list(graph.node):
        inner = makers.get(outer.input[0]) if outer.input else None
        if inner is None or readers[inner.output[0]] != 1:
            continue
        if not (_is_pointwise(inner, weights) and _is_pointwise(outer, weights)):
            continue
        first, first_bias = _affine(inner, weights)
        second, second_bias = _affine(outer, weights)
        weight, bias = second @ first, second @ first_bias + second_bias
        if weight.size >= first.size + second.size:
            continue
        dtype = numpy_helper.to_array(weights[outer.input[1]]).dtype
        names = [f"{outer.output[0]}.weight", f"{outer.output[0]}.bias"]
        for name, values in zip(names, (weight[:, :, None, None], bias), strict=True):
            weights[name] = numpy_helper.from_array(values.astype(dtype), name)
        outer.input[:] = [inner.input[0], *names]
        graph.node.remove(inner)
    _keep_used(graph, weights)


def _is_pointwise(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node is a convolution of each position by itself, with constants in the graph."""
    constants = [weights.get(name) for name in node.input[1:]]
    if node.op_type != "Conv" or not all(
        c is not None and c.data_location != onnx.TensorProto.EXTERNAL for c in constants
    ):
        return False
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return (
        list(weights[node.input[1]].dims[2:]) == [1, 1]
        and given.get("group", 1) == 1
        and set(given.get("strides", [1])) == {1}
        and not any(given.get("pads", []))
    )


def _affine(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> tuple[Array, Array]:
    """Matrix [outputs,inputs] and bias [outputs] of a convolution with kernels of 1, float64."""
    matrix, *bias = (numpy_helper.to_array(weights[n]).astype(np.float64) for n in node.input[1:])
    return matrix[:, :, 0, 0], bias[0] if bias else np.zeros(len(matrix))


def _keep_used(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Leave in the graph the constants and the shapes that belong to its nodes."""
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    constants = [tensor for name, tensor in weights.items() if name in used]
    shapes = [value for value in graph.value_info if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del graph.value_info[:]
    graph.value_info.extend(shapes)
