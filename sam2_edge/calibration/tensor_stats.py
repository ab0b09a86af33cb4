"""Values of tensors inside a float32 graph while it runs, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from sam2_edge.bundle.contract import Feeds

Range = tuple[float, float]


def extremes(
    model: onnx.ModelProto, names: Collection[str], inputs: Iterable[Feeds]
) -> dict[str, Range]:
    """Min and max of each of the float32 tensors `names` over all `inputs`."""
    session, kept = _session_with_extremes(model, names)
    found: dict[str, Range] = {}
    for feeds in inputs:
        results = [float(value) for value in session.run(None, dict(feeds))]
        for name, low, high in zip(kept, results[::2], results[1::2], strict=True):
            before = found.get(name, (low, high))
            found[name] = (min(before[0], low), max(before[1], high))
    return found


def _session_with_extremes(
    model: onnx.ModelProto, names: Collection[str]
) -> tuple[ort.InferenceSession, list[str]]:
    """A session whose outputs are min and max of tensors, in the order returned."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    graph.ClearField("node")
    graph.ClearField("output")
    kept: list[str] = []

    def watch(tensors: Iterable[str]) -> None:
        # Right after the node that makes a tensor, so that it is kept no longer.
        for name in tensors:
            if name in names:
                kept.append(name)
                for operator in ("ReduceMin", "ReduceMax"):
                    output = f"{name}_{operator}"
                    graph.node.append(helper.make_node(operator, [name], [output], keepdims=0))
                    graph.output.append(
                        helper.make_tensor_value_info(output, TensorProto.FLOAT, [])
                    )

    watch(value.name for value in model.graph.input)
    for node in model.graph.node:
        graph.node.append(node)
        watch(node.output)
    return ordered_session(watched), kept


def session_with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """A session whose outputs are float32 tensors inside a graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.ClearField("output")
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return ordered_session(watched)


def ordered_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session that runs the nodes of a graph unchanged, in their order.

    ONNX Runtime's own order would reduce the watched tensors at the end: 11 GB and more instead of
    2 GB for the image encoder of SAM 2.1 tiny at 1024 pixels.
    """
    options = ort.SessionOptions()
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
