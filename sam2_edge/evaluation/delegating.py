"""A backend around another one: what measuring and comparing build on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import Backend, Tensor


class DelegatingBackend:
    """Hands everything on to `own`; see `Backend`."""

    def __init__(self, own: Backend) -> None:
        self.name = own.name
        self._own = own

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Backend.run`."""
        return self._own.run(graph, inputs)

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """See `Backend.empty`."""
        return self._own.empty(shape)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """See `Backend.upload`."""
        return self._own.upload(array)

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """See `Backend.download`."""
        return self._own.download(tensor)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Backend.copy`."""
        self._own.copy(source, target)

    def mark(self) -> Any:
        """See `Backend.mark`."""
        return self._own.mark()

    def milliseconds(self, first: Any, last: Any) -> float:
        """See `Backend.milliseconds`."""
        return self._own.milliseconds(first, last)
