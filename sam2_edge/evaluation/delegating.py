"""A backend that wraps another one: the base for measuring and comparing backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import Backend, Tensor


class DelegatingBackend:
    """Passes every call on to another backend; subclasses override `run`."""

    def __init__(self, inner: Backend) -> None:
        self.name = inner.name
        self._inner = inner

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph."""
        return self._inner.run(graph, inputs)

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialized float32 tensor."""
        return self._inner.empty(shape)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A host array as a tensor."""
        return self._inner.upload(array)

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """A tensor as a host array."""
        return self._inner.download(tensor)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors of equal shape."""
        self._inner.copy(source, target)
