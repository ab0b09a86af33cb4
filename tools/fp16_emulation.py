"""Emulation of float16 on a CPU, for tests and benchmarks.

ONNX Runtime's CPU provider computes most float16 operators in float32 and drops the Casts between
them, so it does not show what float16 does to a result.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sam2_edge.export.fp16 import FLOAT, HALF, rename_tensor, tensor_types

_SPLITTER = 2.0**13 + 1
_SPLITTER_NAME = "float16_splitter"


def emulate_fp16(half: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to float16's precision wherever `half`, from `to_half`, does.

    Sums inside an operator stay in float32, as on tensor cores; the range of float16 is not
    emulated. Inputs in float16 become float32 and are taken as they are.
    """
    types = tensor_types(onnx.shape_inference.infer_shapes(half).graph)
    model = onnx.ModelProto()
    model.CopyFrom(half)
    model.graph.ClearField("node")
    model.graph.ClearField("value_info")
    for tensor in model.graph.initializer:
        if tensor.data_type == HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    _retype(model.graph)
    for original in half.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
                attribute.i = FLOAT
        halves = [name for name in node.output if types.get(name) == HALF]
        for name in halves:
            rename_tensor(node.output, name, f"{name}_exact")
        model.graph.node.append(node)
        for name in halves:
            model.graph.node.extend(_rounding(f"{name}_exact", name))
    if any(_SPLITTER_NAME in node.input for node in model.graph.node):
        splitter = numpy_helper.from_array(np.array(_SPLITTER, np.float32), _SPLITTER_NAME)
        model.graph.initializer.append(splitter)
    return model


def _retype(graph: onnx.GraphProto) -> None:
    """Declare float16 inputs and outputs as float32."""
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT


def _rounding(exact: str, rounded: str) -> list[onnx.NodeProto]:
    """Round float32 to the 11 bits of float16 in plain arithmetic (Dekker 1971, "split").

    Optimizers leave it alone, unlike two Casts.
    """
    scaled, rest = f"{rounded}_scaled", f"{rounded}_rest"
    return [
        helper.make_node("Mul", [exact, _SPLITTER_NAME], [scaled], name=scaled),
        helper.make_node("Sub", [scaled, exact], [rest], name=rest),
        helper.make_node("Sub", [scaled, rest], [rounded], name=f"{rounded}_round"),
    ]
