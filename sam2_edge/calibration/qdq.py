"""An ONNX graph with INT8 weights and activations, as QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import onnx
import onnx.helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.calibration.ranges import OPERATORS
from sam2_edge.calibration.tensor_stats import Range

QDQ_OPSET = 19


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a runtime wants its pairs of QuantizeLinear and DequantizeLinear."""

    activations: QuantType
    symmetric: bool
    quantized_outputs: bool
    seven_bit_weights: bool


RECIPES: dict[GraphTarget, Recipe] = {
    # TensorRT's parser takes signed, symmetric pairs and biases in float. Outputs are left alone:
    # what follows a layer (an addition, a normalization) is computed in float anyway.
    "gpu": Recipe(
        QuantType.QInt8, symmetric=True, quantized_outputs=False, seven_bit_weights=False
    ),
    # x86-64 multiplies unsigned by signed bytes. Without VNNI it adds two products in 16 bits,
    # which hold 2 * 255 * 64 but not 2 * 255 * 127 (vpmaddubsw saturates).
    "cpu": Recipe(
        QuantType.QUInt8, symmetric=False, quantized_outputs=True, seven_bit_weights=True
    ),
}


def quantize_model(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    target: GraphTarget,
) -> onnx.ModelProto:
    """Copy a graph with the named Conv, MatMul and Gemm nodes in INT8.

    Weights are quantized per channel.

    Args:
        model: A float32 graph.
        ranges: Ranges of the tensors at those nodes, see `collect_ranges`.
        layers: Names of the nodes.
        target: What the graph is written for.
    """
    recipe = RECIPES[target]
    source = onnx.ModelProto()
    source.CopyFrom(onnx.shape_inference.infer_shapes(model))
    if not layers:  # ONNX Runtime would take that as all of them
        return source
    known = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=recipe.seven_bit_weights,
        weight_qType=QuantType.QInt8,
        activation_qType=recipe.activations,
        tensors_range=TensorsData(CalibrationMethod.MinMax, known),
        nodes_to_quantize=list(layers),
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
    quantized: onnx.ModelProto = quantizer.model.model
    # Operator set 19 brought pairs with float16 scales; nothing else in it matters here.
    del quantized.opset_import[:]
    quantized.opset_import.append(onnx.helper.make_opsetid("", QDQ_OPSET))
    return quantized


def quantizable_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that may be quantized, in order.

    These are Conv, MatMul and Gemm with a weight, without the first and the last of every path
    through the graph. Products of two activations, as in attention, are not among them.
    """
    weights = {t.name for t in model.graph.initializer}
    weighted = [n for n in model.graph.node if n.op_type in OPERATORS and n.input[1] in weights]
    readers: dict[str, list[onnx.NodeProto]] = {}
    makers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        for name in node.output:
            makers[name] = [node]
    names = {n.name for n in weighted}
    return [
        n.name
        for n in weighted
        if _reaches(n, names, makers, attrgetter("input"))
        and _reaches(n, names, readers, attrgetter("output"))
    ]


def _reaches(
    start: onnx.NodeProto,
    names: Collection[str],
    neighbors: Mapping[str, list[onnx.NodeProto]],
    tensors: Callable[[onnx.NodeProto], Iterable[str]],
) -> bool:
    """Whether a node leads to another of `names` through the tensors on one of its sides."""
    todo, seen = list(tensors(start)), set()
    while todo:
        for node in neighbors.get(todo.pop(), ()):
            if node.name in names:
                return True
            if node.name not in seen:
                seen.add(node.name)
                todo += tensors(node)
    return False
