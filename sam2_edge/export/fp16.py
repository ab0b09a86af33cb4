"""An ONNX graph in half precision, node by node, with float32 where half would spoil the result.

Inputs and outputs of the graph keep their types, so the runtime does not know. Precision is in the
graph itself, as strongly typed engines want it: every float16 node gets float16 inputs, and where
float16 and float32 meet there is a Cast. Why no library does this: docs/guides/precision.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, MutableSequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sam2_edge.bundle.contract import Feeds
from sam2_edge.calibration.tensor_stats import extremes

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16

MAX_FLOAT16 = 65504.0
"""Largest finite float16."""

EXACT_COUNT = 2048
"""Whole numbers up to this are exact in float16: a sum of more terms than this is not trusted."""

HEADROOM = 4.0
"""Values seen must stay this far below the largest float16: other frames will have larger ones."""

_ANGLES = ("Sin", "Cos")
_SUMS = ("ReduceSum", "ReduceMean")
_ANY_TYPE = ("Cast", "Shape", "Size")
"""Operators that take an input of any type as it is."""

_ALWAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that the operator's definition holds at float32 (Resize: roi and scales)."""


def to_half(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """A copy of `model` in which every node computes in float16 but those named in `keep`, which
    `fp32_only_nodes` and `overflowing_nodes` find.
    """
    converter = _Converter(onnx.shape_inference.infer_shapes(model), frozenset(keep))
    return converter.convert()


def fp32_only_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of nodes that must stay in float32 by what they are.

    - sine and cosine and all that leads to them: an angle of 30 rad has an error of 0.015 in
      float16, which is what a position encoding would lose;
    - sums and means over more than 2048 elements or an unknown number of them: counts above are not
      exact, and 256 x 256 pixels are beyond the largest number;
    - nodes with a constant that float16 cannot hold.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    return _leading_to_angles(inferred) | _long_sums(inferred) | _with_large_constants(inferred)


def overflowing_nodes(model: onnx.ModelProto, inputs: Iterable[Feeds]) -> set[str]:
    """Names of nodes that make or take a value near or beyond the largest float16, by what was
    seen when `model`, in float32, ran on each of `inputs`.
    """
    types = _tensor_types(onnx.shape_inference.infer_shapes(model).graph)
    made = {o for n in model.graph.node for o in n.output if types.get(o) == FLOAT}
    seen = extremes(model, made, inputs)
    wide = {n for n, (a, b) in seen.items() if not max(-a, b) * HEADROOM <= MAX_FLOAT16}
    return {n.name for n in model.graph.node if not wide.isdisjoint((*n.input, *n.output))}


def emulate_fp16(half: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to float16's precision wherever `half`, from `to_half`, does.

    ONNX Runtime's CPU provider computes most float16 operators in float32 and drops the Casts
    between them, so that it shows nothing of what float16 does to a result; this graph does. Sums
    inside an operator stay in float32, as on tensor cores; the range of float16 is not simulated.
    """
    types = _tensor_types(onnx.shape_inference.infer_shapes(half).graph)
    model = onnx.ModelProto()
    model.CopyFrom(half)
    model.graph.ClearField("node")
    model.graph.ClearField("value_info")
    for tensor in model.graph.initializer:
        if tensor.data_type == HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.initializer.append(
        numpy_helper.from_array(np.array(_SPLITTER, np.float32), _SPLITTER_NAME)
    )
    for original in half.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
                attribute.i = FLOAT
        halves = [name for name in node.output if types.get(name) == HALF]
        for name in halves:
            _rename(node.output, name, f"{name}_exact")
        model.graph.node.append(node)
        for name in halves:
            model.graph.node.extend(_rounding(f"{name}_exact", name))
    return model


_SPLITTER = 2.0**13 + 1
_SPLITTER_NAME = "float16_splitter"


def _rounding(exact: str, rounded: str) -> list[onnx.NodeProto]:
    """Round float32 to the 11 bits of float16 in plain arithmetic (Dekker 1971, "split"), which no
    optimizer takes out as it would two Casts.
    """
    scaled, rest = f"{rounded}_scaled", f"{rounded}_rest"
    return [
        helper.make_node("Mul", [exact, _SPLITTER_NAME], [scaled], name=scaled),
        helper.make_node("Sub", [scaled, exact], [rest], name=rest),
        helper.make_node("Sub", [scaled, rest], [rounded], name=f"{rounded}_round"),
    ]


@dataclass(slots=True)
class _Converter:
    """State of one conversion: the type that each float tensor has now, and Casts made so far."""

    model: onnx.ModelProto
    keep: frozenset[str]
    types: dict[str, int] = field(default_factory=dict)
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    kept_constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def convert(self) -> onnx.ModelProto:
        graph = self.model.graph
        self.types = _tensor_types(graph)
        self.constants = {t.name: t for t in graph.initializer}
        for node in graph.node:
            self._convert(node)
        for output in graph.output:
            if output.type.tensor_type.elem_type == FLOAT and self.types[output.name] == HALF:
                self._restore(output.name)
        converted = onnx.ModelProto()
        converted.CopyFrom(self.model)
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
        """The name under which a float tensor is to be had in a type."""
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

    def _restore(self, output: str) -> None:
        """Give a float16 result of the graph back as float32, under its own name."""
        half = f"{output}_{_suffix(HALF)}"
        for node in self.nodes:
            _rename(node.input, output, half)
            _rename(node.output, output, half)
        self.nodes.append(helper.make_node("Cast", [half], [output], name=output, to=FLOAT))


def _suffix(kind: int) -> str:
    return "half" if kind == HALF else "float"


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    return itertools.chain(graph.input, graph.output, graph.value_info)


def _tensor_types(graph: onnx.GraphProto) -> dict[str, int]:
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
    sizes = {v.name: _size(v) for v in _values(model.graph)}
    sums = [node for node in model.graph.node if node.op_type in _SUMS]
    return {
        node.name for node in sums if not _few(sizes.get(node.input[0]), sizes.get(node.output[0]))
    }


def _few(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and before <= EXACT_COUNT * after


def _size(value: onnx.ValueInfoProto) -> int | None:
    """Number of elements, dynamic axes counted as one; None where the rank is not known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    sizes = [max(1, d.dim_value) for d in value.type.tensor_type.shape.dim]
    return int(np.prod(sizes)) if sizes else 1


def _with_large_constants(model: onnx.ModelProto) -> set[str]:
    large = {
        t.name
        for t in model.graph.initializer
        if t.data_type == FLOAT and _largest(numpy_helper.to_array(t)) > MAX_FLOAT16
    }
    return {n.name for n in model.graph.node if not large.isdisjoint(n.input)}


def _largest(values: NDArray[np.generic]) -> float:
    return float(np.abs(values).max(initial=0.0))
