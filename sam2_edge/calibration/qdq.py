"""An ONNX graph with INT8 weights and activations, as QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx.helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from sam2_edge.calibration.ranges import OPERATORS
from sam2_edge.calibration.tensor_stats import Range

QDQ_OPSET = 19

QdqTarget = Literal["tensorrt", "cpu"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a runtime wants its Q/DQ pairs."""

    activations: QuantType
    symmetric: bool
    quantized_outputs: bool


RECIPES: dict[QdqTarget, Recipe] = {
    # What TensorRT's parser takes: signed, symmetric, biases in float. Outputs are left alone: what
    # follows a layer (an addition, a normalization) is computed in float anyway.
    "tensorrt": Recipe(QuantType.QInt8, symmetric=True, quantized_outputs=False),
    # AVX-512 VNNI multiplies unsigned by signed bytes.
    "cpu": Recipe(QuantType.QUInt8, symmetric=False, quantized_outputs=True),
}


def quantized(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    nodes: Collection[str],
    engine: QdqTarget,
) -> onnx.ModelProto:
    """A copy of `model` in which the named Conv, MatMul and Gemm nodes compute in INT8.

    Weights are quantized per channel. ranges: of the tensors at those nodes, see `collect_ranges`.
    """
    recipe = RECIPES[engine]
    source = onnx.ModelProto()
    source.CopyFrom(onnx.shape_inference.infer_shapes(model))
    if not nodes:  # ONNX Runtime would take that for all of them
        return source
    known = {n: TensorData(lowest=_f32(a), highest=_f32(b)) for n, (a, b) in ranges.items()}
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=recipe.activations,
        tensors_range=TensorsData(CalibrationMethod.MinMax, known),
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=list(OPERATORS),
        extra_options={
            "ActivationSymmetric": recipe.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": []
            if recipe.quantized_outputs
            else list(OPERATORS),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    # Pairs whose scales are float16 came with operator set 19; nothing else in it concerns us.
    del made.opset_import[:]
    made.opset_import.append(onnx.helper.make_opsetid("", QDQ_OPSET))
    return made


def candidates(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that may be quantized, in order: Conv, MatMul and Gemm with a weight,
    without the first and the last of every path through the graph.

    Products of two activations, as in attention, are not among them.
    """
    weights = {t.name for t in model.graph.initializer}
    weighted = [n for n in model.graph.node if n.op_type in OPERATORS and n.input[1] in weights]
    names = {n.name for n in weighted}
    before = _reached(model, names, _makers(model), forwards=False)
    after = _reached(model, names, _readers(model), forwards=True)
    return [n.name for n in weighted if n.name in before and n.name in after]


def _reached(
    model: onnx.ModelProto,
    names: Collection[str],
    neighbors: Mapping[str, list[onnx.NodeProto]],
    *,
    forwards: bool,
) -> set[str]:
    """Those of `names` from which another of them is reached along the graph."""
    found = set()
    for node in model.graph.node:
        if node.name in names and _meets(node, names, neighbors, forwards=forwards):
            found.add(node.name)
    return found


def _meets(
    node: onnx.NodeProto,
    names: Collection[str],
    neighbors: Mapping[str, list[onnx.NodeProto]],
    *,
    forwards: bool,
) -> bool:
    todo, seen = list(_edges(node, forwards=forwards)), set()
    while todo:
        tensor = todo.pop()
        for other in neighbors.get(tensor, ()):
            if other.name in names:
                return True
            if other.name not in seen:
                seen.add(other.name)
                todo += _edges(other, forwards=forwards)
    return False


def _edges(node: onnx.NodeProto, *, forwards: bool) -> Iterator[str]:
    return iter(node.output if forwards else node.input)


def _makers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    return {output: [node] for node in model.graph.node for output in node.output}


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _f32(value: float) -> Any:
    return np.array(value, np.float32)
