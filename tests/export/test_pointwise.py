"""Convolutions with kernels of 1 that follow each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam2_edge.export.pointwise import merge_pointwise

RANDOM = np.random.default_rng(7)
IMAGE = RANDOM.standard_normal((1, 6, 8, 8), dtype=np.float32)


def convolution(source: str, name: str, *, bias: bool = True, **attributes: Any) -> onnx.NodeProto:
    """A node that writes `name` and reads the constants `name`.w and `name`.b."""
    constants = [f"{name}.w", f"{name}.b"][: 1 + bias]
    return helper.make_node("Conv", [source, *constants], [name], **attributes)


def model(nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], *outputs: str) -> Any:
    """A graph from "x" [1,6,8,8] with random weights of these shapes."""
    constants = []
    for name, shape in shapes.items():
        for part, size in (("w", shape), ("b", shape[:1])):
            values = RANDOM.standard_normal(size, dtype=np.float32)
            constants.append(numpy_helper.from_array(values, f"{name}.{part}"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        constants,
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, [None] * 4)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(graph: onnx.ModelProto) -> list[Any]:
    onnx.checker.check_model(graph)
    return ort.InferenceSession(graph.SerializeToString()).run(None, {"x": IMAGE})


def merged(graph: onnx.ModelProto) -> list[str]:
    """Merge, check that the results stay, and return what the nodes write."""
    before = run(graph)
    merge_pointwise(graph.graph)
    for got, want in zip(run(graph), before, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    read = {name for node in graph.graph.node for name in node.input}
    assert {constant.name for constant in graph.graph.initializer} <= read
    return [node.output[0] for node in graph.graph.node]


@pytest.mark.parametrize("inner_bias", [True, False])
@pytest.mark.parametrize("outer_bias", [True, False])
def test_two_in_a_row_become_one(inner_bias: bool, outer_bias: bool) -> None:
    nodes = [
        convolution("x", "a", bias=inner_bias),
        convolution("a", "y", bias=outer_bias, kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4),
    ]
    graph = model(nodes, {"a": (32, 6, 1, 1), "y": (4, 32, 1, 1)}, "y")
    assert merged(graph) == ["y"]
    assert not graph.graph.value_info


def test_three_in_a_row_become_one() -> None:
    nodes = [convolution("x", "a"), convolution("a", "b"), convolution("b", "y")]
    shapes = {"a": (32, 6, 1, 1), "b": (16, 32, 1, 1), "y": (4, 16, 1, 1)}
    assert merged(model(nodes, shapes, "y")) == ["y"]


@pytest.mark.parametrize(
    ("outer", "shape"),
    [
        ({"pads": [1, 1, 1, 1]}, (4, 32, 1, 1)),
        ({"strides": [2, 2]}, (4, 32, 1, 1)),
        ({"group": 2}, (4, 16, 1, 1)),
        ({}, (4, 32, 3, 3)),
    ],
    ids=["padded", "strided", "grouped", "kernel of 3"],
)
def test_only_kernels_of_1_alone_are_merged(outer: dict[str, Any], shape: tuple[int, ...]) -> None:
    nodes = [convolution("x", "a"), convolution("a", "y", **outer)]
    assert merged(model(nodes, {"a": (32, 6, 1, 1), "y": shape}, "y")) == ["a", "y"]


def test_results_that_others_read_stay() -> None:
    nodes = [convolution("x", "a"), convolution("a", "y"), helper.make_node("Relu", ["a"], ["z"])]
    shapes = {"a": (32, 6, 1, 1), "y": (4, 32, 1, 1)}
    assert merged(model(nodes, shapes, "y", "z")) == ["a", "y", "z"]
    assert merged(model(nodes[:2], shapes, "y", "a")) == ["a", "y"]


def test_a_bottleneck_stays() -> None:
    nodes = [convolution("x", "a"), convolution("a", "y")]
    assert merged(model(nodes, {"a": (2, 6, 1, 1), "y": (12, 2, 1, 1)}, "y")) == ["a", "y"]
