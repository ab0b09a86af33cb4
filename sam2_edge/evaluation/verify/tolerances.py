"""How far a bundle may be from its reference, by precision: the one table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from sam2_edge.bundle.contract import Graph, Precision
from sam2_edge.bundle.manifest import Manifest
from sam2_edge.errors import Sam2EdgeError

_EXACTEST_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Budget:
    """graph: most relative L2 difference of a graph's output on the inputs of the loop. j_and_f:
    least mean of J and F of the masks against the reference's. presence: least share of frames on
    which both say the same of an object's presence. memory, pointer: most relative L2 difference of
    what is remembered, in the median over frames.
    """

    graph: Mapping[Graph, float]
    j_and_f: float
    presence: float
    memory: float
    pointer: float


GRAPH_LIMITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""By the precision of the graph."""

LOOP_LIMITS: dict[Precision, dict[str, float]] = {
    "fp32": {"j_and_f": 0.995, "presence": 0.99, "memory": 1e-2, "pointer": 1e-2},
    "fp16": {"j_and_f": 0.98, "presence": 0.97, "memory": 5e-2, "pointer": 5e-2},
    "int8": {"j_and_f": 0.9, "presence": 0.95, "memory": 0.3, "pointer": 0.3},
}
"""By the precision of the least exact graph on either side. Memory that is rounded to bfloat16 may
differ by one step, 2**-7 of a value."""


def budget_for(
    manifest: Manifest, changed: Mapping[str, float], reference: Manifest | None = None
) -> Budget:
    """The budget of a bundle, with the values of `changed` in place; graph then holds for all.

    reference: of the bundle that it is compared with, None for PyTorch.

    Raises Sam2EdgeError for a name that is none of `Budget`'s, and for a value out of range.
    """
    check_limits(changed)
    sides = [manifest] if reference is None else [manifest, reference]
    precisions = {
        graph: _least_exact(side.graphs[graph].precision for side in sides) for graph in Graph
    }
    limits = LOOP_LIMITS[_least_exact(precisions.values())] | dict(changed)
    graph = limits.pop("graph", None)
    by_graph = {g: GRAPH_LIMITS[p] if graph is None else graph for g, p in precisions.items()}
    return Budget(graph=by_graph, **limits)


def _least_exact(precisions: Iterable[Precision]) -> Precision:
    return max(precisions, key=_EXACTEST_FIRST.index)


def check_limits(changed: Mapping[str, float]) -> None:
    """Raise Sam2EdgeError for a name that is none of `Budget`'s, and for a value out of range."""
    known = {field.name for field in fields(Budget)}
    for name, value in changed.items():
        if name not in known:
            raise Sam2EdgeError(
                f"there is no budget {name!r}; choose one of {', '.join(sorted(known))}"
            )
        most = 1.0 if name in ("j_and_f", "presence") else math.inf
        if not (0 <= value <= most and math.isfinite(value)):
            limit = "0 to 1" if most == 1.0 else "0 or more"
            raise Sam2EdgeError(f"budget {name} is {value}; give {limit}")
