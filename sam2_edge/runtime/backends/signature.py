"""Compares what a loaded graph takes and returns with its contract."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sam2_edge.bundle.contract import GraphSpec, TensorSpec
from sam2_edge.errors import BundleError

DYNAMIC = "?"
"""An axis of no fixed size."""


def check_signature(
    path: Path, spec: GraphSpec, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]
) -> None:
    """Check the tensors of a loaded graph, in any order.

    Args:
        path: File of the graph, for the message.
        spec: The graph's contract.
        inputs: What it takes, with DYNAMIC for every axis of no fixed size.
        outputs: What it returns.

    Raises:
        BundleError: A name, dtype or shape differs.
    """
    for kind, wanted, found in (
        ("inputs", spec.inputs, inputs),
        ("outputs", spec.outputs, outputs),
    ):
        expected, actual = _described(wanted), _described(found)
        if expected != actual:
            raise BundleError(
                f"{path}: {spec.graph.value} has the {kind} {_without(actual, expected)} instead "
                f"of {_without(expected, actual)}; export the bundle again"
            )


def _described(tensors: Iterable[TensorSpec]) -> set[str]:
    return {
        f"{t.name} {t.dtype} "
        f"[{', '.join(DYNAMIC if isinstance(axis, str) else str(axis) for axis in t.axes)}]"
        for t in tensors
    }


def _without(tensors: set[str], others: set[str]) -> str:
    return ", ".join(sorted(tensors - others)) or "no others"
