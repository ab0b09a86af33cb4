"""How far a bundle may be from its reference, by precision: the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from sam2_edge.bundle import Manifest
from sam2_edge.contract import Precision
from sam2_edge.errors import Sam2EdgeError

_EXACTEST_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Budget:
    """graph: most relative L2 difference of a graph's output on the inputs of the loop. j_and_f:
    least mean of J and F of the masks against the reference's. presence: least share of frames on
    which both say the same of an object's presence. memory, pointer: most relative L2 difference of
    what is remembered, in the median over frames.
    """

    graph: float
    j_and_f: float
    presence: float
    memory: float
    pointer: float


BUDGETS: dict[Precision, Budget] = {
    "fp32": Budget(graph=1e-3, j_and_f=0.995, presence=0.99, memory=1e-2, pointer=1e-2),
    "fp16": Budget(graph=3e-2, j_and_f=0.98, presence=0.97, memory=5e-2, pointer=5e-2),
    "int8": Budget(graph=0.3, j_and_f=0.9, presence=0.95, memory=0.3, pointer=0.3),
}
"""Seen with nano: docs/verify.md. Memory that is rounded to bfloat16 may differ by one step, 2**-7
of a value."""


def budget_for(manifest: Manifest, changed: Mapping[str, float]) -> Budget:
    """The budget of a bundle's least exact graph, with the values of `changed` in place.

    Raises Sam2EdgeError for a name that is none of `Budget`'s.
    """
    precisions = {entry.precision for entry in manifest.graphs.values()}
    least = max(precisions, key=_EXACTEST_FIRST.index)
    known = {field.name for field in fields(Budget)}
    for name, value in changed.items():
        if name not in known:
            raise Sam2EdgeError(
                f"there is no budget {name!r}; choose one of {', '.join(sorted(known))}"
            )
        if not value >= 0:
            raise Sam2EdgeError(f"budget {name} is {value}; give 0 or more")
    return replace(BUDGETS[least], **changed)
