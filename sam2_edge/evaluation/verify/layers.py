"""Layer-by-layer comparison of two ONNX graphs.

Graphs of one model in different precisions share most tensor names, and those tensors are compared.
Engines do not expose their tensors: compare the ONNX graphs that they were built from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Feeds, Graph
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.differences import Difference, difference

TENSORS_PER_RUN = 24
"""Tensors read per run; all at once would not fit in memory."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A tensor, the operator that produces it, and its difference from the reference."""

    tensor: str
    operator: str
    difference: Difference


def layer_differences(
    bundle: Bundle, reference: Bundle, graph: Graph, feeds: Feeds
) -> list[LayerDifference]:
    """Compare every floating-point tensor that both graphs share, in order of execution.

    Args:
        bundle: Bundle to compare.
        reference: Bundle to compare it with; both must pass `check_layers`.
        graph: Graph to compare.
        feeds: Inputs of the graph.
    """
    paths = [each.graph_path(graph) for each in (bundle, reference)]
    operators, theirs = (_operators(path) for path in paths)
    shared = [name for name, operator in operators.items() if theirs.get(name) == operator]
    differences = []
    for start in range(0, len(shared), TENSORS_PER_RUN):
        names = shared[start : start + TENSORS_PER_RUN]
        for name, got, want in zip(names, *(_run(p, names, feeds) for p in paths), strict=True):
            numbers = all(np.issubdtype(x.dtype, np.floating) for x in (got, want))
            if numbers and got.shape == want.shape:
                result = difference(got, want)
                if result is not None:
                    differences.append(LayerDifference(name, operators[name], result))
    return differences


def check_layers(bundle: Bundle, reference: Bundle, graph: Graph) -> None:
    """Check that the layers of a graph can be compared.

    Raises:
        BackendError: If a bundle holds engines, or onnx is not installed.
    """
    for each in (bundle, reference):
        if each.manifest.graphs[graph].engine is not None:
            raise BackendError(
                f"{each.path} holds engines, whose layers are not accessible; compare the bundle "
                "of ONNX graphs that they were built from"
            )
    if find_spec("onnx") is None:
        raise BackendError("comparing layers needs onnx; install it with: pip install onnx")


def _operators(path: Path) -> dict[str, str]:
    """Return the operator that produces each tensor of a graph, in order."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {name: node.op_type for node in graph.node for name in node.output if name}


def _run(path: Path, names: Sequence[str], feeds: Feeds) -> list[Any]:
    """Run a graph and return the values of internal tensors."""
    import onnx
    import onnxruntime as ort

    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), dict(feeds))
