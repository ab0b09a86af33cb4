"""Layer-by-layer comparison of two ONNX graphs, with Polygraphy.

Graphs of one model in different precisions share most tensor names; those tensors are compared.
Engines have no such tensors: compare the ONNX graphs that they were built from.
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
"""Tensors read in one run; all of them together would not fit in memory."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A tensor, the operator that produces it, and its difference from the reference."""

    tensor: str
    operator: str
    difference: Difference


def layer_differences(
    bundle: Bundle, reference: Bundle, graph: Graph, feeds: Feeds
) -> list[LayerDifference]:
    """Compare every floating-point tensor that both graphs have, in the order of computation.

    `check_layers` checks whether this is possible; `feeds` are the inputs of the graph.
    """
    import onnx
    from polygraphy.backend.onnx import modify_outputs
    from polygraphy.backend.onnxrt import OnnxrtRunner, session_from_onnx

    paths = [each.graph_path(graph) for each in (bundle, reference)]

    def values(path: Path, names: Sequence[str]) -> dict[str, Any]:
        marked = modify_outputs(onnx.load(path), outputs=list(names))
        with OnnxrtRunner(session_from_onnx(marked.SerializeToString())) as runner:
            return dict(runner.infer(dict(feeds)))

    operators = _operators(onnx.load(paths[0], load_external_data=False))
    theirs = _operators(onnx.load(paths[1], load_external_data=False))
    shared = [name for name, operator in operators.items() if theirs.get(name) == operator]
    found = []
    for start in range(0, len(shared), TENSORS_PER_RUN):
        names = shared[start : start + TENSORS_PER_RUN]
        ours, reference_values = (values(path, names) for path in paths)
        for name in names:
            apart = _difference(ours[name], reference_values[name])
            if apart is not None:
                found.append(LayerDifference(name, operators[name], apart))
    return found


def check_layers(bundle: Bundle, reference: Bundle, graph: Graph) -> None:
    """Check that the layers of a graph can be compared.

    Raises:
        BackendError: A bundle holds engines, or Polygraphy or ONNX is not installed.
    """
    for each in (bundle, reference):
        if each.manifest.graphs[graph].engine is not None:
            raise BackendError(
                f"{each.path} holds engines, whose layers are not accessible; compare the bundle "
                "of ONNX graphs that they were built from"
            )
    missing = [name for name in ("onnx", "polygraphy") if find_spec(name) is None]
    if missing:
        raise BackendError(
            f"comparing layers needs {' and '.join(missing)}; install with: "
            "pip install polygraphy onnx"
        )


def _operators(model: Any) -> dict[str, str]:
    """The operator that produces each tensor of a graph, in order."""
    return {name: node.op_type for node in model.graph.node for name in node.output if name}


def _difference(ours: Any, theirs: Any) -> Difference | None:
    """None for tensors that are not floating-point, or of different shapes."""
    same = ours.shape == theirs.shape
    if not same or not all(np.issubdtype(x.dtype, np.floating) for x in (ours, theirs)):
        return None
    return difference(ours, theirs)
