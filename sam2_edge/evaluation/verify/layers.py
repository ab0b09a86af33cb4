"""Which layer of an ONNX graph departs from the same layer of a reference, through Polygraphy.

Graphs of one model in different precisions share the names of most of their tensors; those are
compared. Engines have no such tensors left: compare the ONNX graphs that they were built from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Feeds, Graph
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.differences import Difference, difference

AT_ONCE = 24
"""Tensors that are read in one run: all of them together would not fit into memory."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A tensor, the operator that makes it, and how far it is from the reference's."""

    tensor: str
    operator: str
    difference: Difference


def layer_differences(
    bundle: Bundle, reference: Bundle, graph: Graph, feeds: Feeds
) -> list[LayerDifference]:
    """Every floating-point tensor that both graphs have, in the order of computation.

    feeds: inputs of the graph.

    Raises BackendError for engines, and without polygraphy and onnx.
    """
    check_layers(bundle, reference, graph)
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
    for names in _parts(shared):
        ours, reference_values = (values(path, names) for path in paths)
        for name in names:
            apart = _apart(ours[name], reference_values[name])
            if apart is not None:
                found.append(LayerDifference(name, operators[name], apart))
    return found


def check_layers(bundle: Bundle, reference: Bundle, graph: Graph) -> None:
    """Raise BackendError unless the layers of a graph can be compared."""
    for each in (bundle, reference):
        if each.manifest.graphs[graph].engine is not None:
            raise BackendError(
                f"{each.path} holds engines, whose layers cannot be looked into; compare the "
                "bundle of ONNX graphs that they were built from"
            )
    lacking = [name for name in ("onnx", "polygraphy") if find_spec(name) is None]
    if lacking:
        raise BackendError(
            f"layers are compared through Polygraphy, and {', '.join(lacking)} cannot be imported; "
            "install it with: pip install polygraphy onnx"
        )


def _operators(model: Any) -> dict[str, str]:
    """The operator behind every tensor of a graph, in order."""
    return {name: node.op_type for node in model.graph.node for name in node.output if name}


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


def _apart(ours: Any, theirs: Any) -> Difference | None:
    """None for what is no tensor of numbers, or is laid out differently."""
    alike = ours.shape == theirs.shape
    if not alike or not all(np.issubdtype(x.dtype, np.floating) for x in (ours, theirs)):
        return None
    return difference(ours, theirs)
