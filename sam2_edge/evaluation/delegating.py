"""A backend that wraps another one, as a base class for measuring and comparing backends."""

from __future__ import annotations

from collections.abc import Mapping

from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import Backend, Tensor


class DelegatingBackend:
    """Delegates all calls to another backend; subclasses override `run`."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name, self.empty, self.copy = inner.name, inner.empty, inner.copy
        self.upload, self.download = inner.upload, inner.download

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph."""
        return self._inner.run(graph, inputs)
