"""The backend protocol: the interface between `runtime.model` and an inference engine.

Tensors are opaque to the tracker and the memory bank. The backend decides where they live; on a GPU
they stay on the device until `download`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph


class Tensor(Protocol):
    """A contiguous tensor on the backend's device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return a view along the first axis: an int selects a row, a slice from 0 a prefix."""
        ...


class Backend(Protocol):
    """Runs the graphs of one bundle and owns their memory."""

    name: str

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph; inputs and outputs are keyed by tensor name.

        Inputs may be views and are not retained. Outputs belong to the caller and stay valid as
        long as it holds them.

        Raises:
            BackendError: If the graph fails, or an input does not fit it.
        """
        ...

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate an uninitialized float32 tensor."""
        ...

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Copy a host array to a tensor of the same shape and dtype."""
        ...

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """Copy a float32 tensor to a host array that belongs to the caller."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors or views of equal shape."""
        ...
