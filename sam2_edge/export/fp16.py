"""An ONNX graph in half precision, node by node, with float32 where half would spoil the result.

Inputs and outputs of the graph keep their types, except those that are named. Precision is in the
graph itself, as strongly typed engines require: every float16 node has float16 inputs, and a
Cast stands where float16 and float32 meet. Why no library does this: docs/guides/precision.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, MutableSequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sam2_edge.bundle.contract import Feeds
from sam2_edge.calibration.tensor_stats import extremes

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16

MAX_FLOAT16 = 65504.0
"""Largest finite float16."""

EXACT_COUNT = 2048
"""Integers up to this are exact in float16: sums of more terms stay in float32."""

HEADROOM = 4.0
"""Observed values must stay below the largest float16 by this factor: other frames exceed them."""

_ANGLES = ("Sin", "Cos")
_SUMS = ("ReduceSum", "ReduceMean")
_RATIOS = ("Max", "Min", "Clip", "Div", "Where")
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
"""Operators between a count and a decision, and those that decide."""

_ANY_TYPE = ("Cast", "Shape", "Size")
"""Operators that accept any input type."""

_ALWAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that the operator's definition fixes at float32 (Resize: roi and scales)."""


def to_half(
    model: onnx.ModelProto, keep: Collection[str], features: Collection[str] = ()
) -> onnx.ModelProto:
    """Copy a float32 graph with every node in float16 except those named in `keep`.

    Args:
        model: A float32 graph.
        keep: Names of nodes; `fp32_only_nodes` and `overflowing_nodes` find them.
        features: Names of the graph's inputs and outputs that become float16.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    return _Converter(inferred, frozenset(keep), frozenset(features)).convert()


def fp32_only_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of nodes whose kind requires float32.

    - Sine, cosine and everything that leads to them: an angle of 30 rad has an error of 0.015 in
      float16, which a position encoding would lose.
    - Sums and means over more than 2048 elements or an unknown number: counts above that are not
      exact, and 256 x 256 pixels exceed the largest float16. Ratios and comparisons of such sums.
    - Nodes with a constant that float16 cannot represent.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    return _leading_to_angles(inferred) | _long_sums(inferred) | _with_large_constants(inferred)


def overflowing_nodes(model: onnx.ModelProto, inputs: Iterable[Feeds]) -> set[str]:
    """Names of nodes that read or write a value near or beyond the largest float16.

    Args:
        model: A float32 graph.
        inputs: Inputs on which the graph is run to observe its values.
    """
    types = tensor_types(onnx.shape_inference.infer_shapes(model).graph)
    made = {o for n in model.graph.node for o in n.output if types.get(o) == FLOAT}
    seen = extremes(model, made, inputs)
    wide = {n for n, (a, b) in seen.items() if not max(-a, b) * HEADROOM <= MAX_FLOAT16}
    return {n.name for n in model.graph.node if not wide.isdisjoint((*n.input, *n.output))}


@dataclass(slots=True)
class _Converter:
    """State of one conversion: the current type of each float tensor, and the Casts so far."""

    model: onnx.ModelProto
    keep: frozenset[str]
    features: frozenset[str]
    types: dict[str, int] = field(default_factory=dict)
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    kept_constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def convert(self) -> onnx.ModelProto:
        graph = self.model.graph
        self.types = tensor_types(graph)
        self.constants = {t.name: t for t in graph.initializer}
        self.types |= {value.name: HALF for value in graph.input if value.name in self.features}
        for node in graph.node:
            self._convert(node)
        for output in graph.output:
            wanted = HALF if output.name in self.features else FLOAT
            if self.types[output.name] in (FLOAT, HALF) and self.types[output.name] != wanted:
                self._cast_output(output.name, wanted)
        converted = onnx.ModelProto()
        converted.CopyFrom(self.model)
        for value in (*converted.graph.input, *converted.graph.output):
            if value.name in self.features:
                value.type.tensor_type.elem_type = HALF
        for name in ("node", "initializer", "value_info"):
            converted.graph.ClearField(name)
        converted.graph.node.extend(self.nodes)
        converted.graph.initializer.extend(self.kept_constants.values())
        return converted

    def _convert(self, original: onnx.NodeProto) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        wanted = FLOAT if node.name in self.keep else HALF
        held = _ALWAYS_FLOAT.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if not name:
                continue
            if self.types.get(name) in (FLOAT, HALF) and node.op_type not in _ANY_TYPE:
                node.input[index] = self._as(name, FLOAT if index in held else wanted)
            elif name in self.constants:
                self.kept_constants[name] = self.constants[name]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = wanted
        for name in node.output:
            if self.types.get(name) == FLOAT:
                self.types[name] = wanted
        self.nodes.append(node)

    def _as(self, name: str, wanted: int) -> str:
        """The name of a float tensor in a type, cast if necessary."""
        if name in self.constants:
            return self._constant(name, wanted)
        if self.types[name] == wanted:
            return name
        if (name, wanted) not in self.casts:
            cast = f"{name}_{_suffix(wanted)}"
            self.nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=wanted))
            self.casts[name, wanted] = cast
        return self.casts[name, wanted]

    def _constant(self, name: str, wanted: int) -> str:
        if wanted == FLOAT:
            self.kept_constants[name] = self.constants[name]
            return name
        half = f"{name}_{_suffix(wanted)}"
        if half not in self.kept_constants:
            values = numpy_helper.to_array(self.constants[name]).astype(np.float16)
            self.kept_constants[half] = numpy_helper.from_array(values, half)
        return half

    def _cast_output(self, output: str, wanted: int) -> None:
        """Cast an output of the graph to the other float type, under its own name."""
        made = f"{output}_{_suffix(self.types[output])}"
        for node in self.nodes:
            rename_tensor(node.input, output, made)
            rename_tensor(node.output, output, made)
        self.nodes.append(helper.make_node("Cast", [made], [output], name=output, to=wanted))


def _suffix(kind: int) -> str:
    return "half" if kind == HALF else "float"


def rename_tensor(names: MutableSequence[str], old: str, new: str) -> None:
    """Replace a name in a node's inputs or outputs."""
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    return itertools.chain(graph.input, graph.output, graph.value_info)


def tensor_types(graph: onnx.GraphProto) -> dict[str, int]:
    """ONNX element type of every tensor whose type is known."""
    types = {v.name: v.type.tensor_type.elem_type for v in _values(graph)}
    return types | {t.name: t.data_type for t in graph.initializer}


def _leading_to_angles(model: onnx.ModelProto) -> set[str]:
    makers = {output: node for node in model.graph.node for output in node.output}
    todo = [node for node in model.graph.node if node.op_type in _ANGLES]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if node.name not in found:
            found.add(node.name)
            todo += [makers[name] for name in node.input if name in makers]
    return found


def _long_sums(model: onnx.ModelProto) -> set[str]:
    """Names of long sums and means, and of what leads from a count to a decision.

    The decoder compares a ratio of two counts with 0.98: rounded to float16, 65,300 of 65,536
    pixels would be 0 (the divisor is infinite), and 9,000 of 9,188 would not be below 0.98.
    """
    sizes = {v.name: _size(v) for v in _values(model.graph)}
    found: set[str] = set()
    counts: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _SUMS:
            before, after = sizes.get(node.input[0]), sizes.get(node.output[0])
            if before is None or after is None or before > EXACT_COUNT * after:
                found.add(node.name)
                counts.update(node.output if node.op_type == "ReduceSum" else ())
        elif node.op_type in (*_RATIOS, *_COMPARISONS) and not counts.isdisjoint(node.input):
            found.add(node.name)
            counts.update(node.output if node.op_type in _RATIOS else ())
    return found


def _size(value: onnx.ValueInfoProto) -> int | None:
    """Number of elements, dynamic axes counted as 1; None if the rank is unknown."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    sizes = [max(1, d.dim_value) for d in value.type.tensor_type.shape.dim]
    return int(np.prod(sizes)) if sizes else 1


def _with_large_constants(model: onnx.ModelProto) -> set[str]:
    large = {
        t.name
        for t in model.graph.initializer
        if t.data_type == FLOAT and np.abs(numpy_helper.to_array(t)).max(initial=0.0) > MAX_FLOAT16
    }
    return {n.name for n in model.graph.node if not large.isdisjoint(n.input)}
