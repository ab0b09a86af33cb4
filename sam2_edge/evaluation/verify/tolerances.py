"""Tolerances for the differences between a bundle and its reference, by precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, Precision
from sam2_edge.bundle.manifest import Manifest
from sam2_edge.errors import Sam2EdgeError

_MOST_EXACT_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Limits on the differences between a bundle and its reference.

    Attributes:
        graph: Maximum relative L2 difference of each graph's outputs.
        j_and_f: Minimum J&F of the masks against the reference.
        presence: Minimum share of frames that agree on presence.
        memory: Maximum relative L2 difference of stored memories, median over frames.
        pointer: Maximum relative L2 difference of object pointers, median over frames.
    """

    graph: Mapping[Graph, float]
    j_and_f: float
    presence: float
    memory: float
    pointer: float


LOOP_TOLERANCE: dict[Precision, dict[str, float]] = {
    "fp32": {"j_and_f": 0.995, "presence": 0.99, "memory": 1e-2, "pointer": 1e-2},
    "fp16": {"j_and_f": 0.98, "presence": 0.97, "memory": 5e-2, "pointer": 5e-2},
    "int8": {"j_and_f": 0.9, "presence": 0.95, "memory": 0.3, "pointer": 0.3},
}
"""Tolerances of the whole loop, by the least exact precision on either side. Memory rounded to
bfloat16 may differ by one rounding step, 2**-7 of a value."""


def tolerances_for(
    manifest: Manifest, changed: Mapping[str, float], reference: Manifest | None = None
) -> Tolerances:
    """Return the tolerances for a bundle and its reference, by their precisions.

    Args:
        manifest: Manifest of the bundle.
        changed: Replacements by name, valid for `check_tolerances`; "graph" applies to all graphs.
        reference: Manifest of the reference; None for PyTorch.
    """
    sides = [manifest] if reference is None else [manifest, reference]
    precisions = {
        graph: _least_exact(side.graphs[graph].precision for side in sides) for graph in Graph
    }
    limits = LOOP_TOLERANCE[_least_exact(precisions.values())] | dict(changed)
    graph = limits.pop("graph", None)
    by_graph = {g: PARITY_TOLERANCE[p] if graph is None else graph for g, p in precisions.items()}
    return Tolerances(graph=by_graph, **limits)


def check_tolerances(changed: Mapping[str, float]) -> None:
    """Check a user's replacements for the default tolerances.

    Raises:
        Sam2EdgeError: If a name is not a field of `Tolerances`, or a value is out of range.
    """
    known = sorted(field.name for field in fields(Tolerances))
    for name, value in changed.items():
        if name not in known:
            raise Sam2EdgeError(f"there is no tolerance {name!r}; choose one of {', '.join(known)}")
        upper = 1.0 if name in ("j_and_f", "presence") else math.inf
        if not (0 <= value <= upper and math.isfinite(value)):
            limit = "0 to 1" if upper == 1.0 else "0 or more"
            raise Sam2EdgeError(f"tolerance {name} is {value}; give {limit}")


def _least_exact(precisions: Iterable[Precision]) -> Precision:
    return max(precisions, key=_MOST_EXACT_FIRST.index)
