"""The backend protocol: the seam between `runtime.model` and whatever runs the graphs.

The tracker and the memory bank only pass tensors along. A backend decides where they live; on a GPU
they stay there, and only `download` brings one back.
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
        """Sizes of the axes."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return a view along the first axis: an int drops it, a slice from 0 keeps a prefix."""
        ...


class Backend(Protocol):
    """Runs the graphs of one bundle and owns their memory."""

    name: str

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph; inputs and outputs are keyed by the contract's names.

        Inputs may be views and are not kept. Outputs belong to the caller and stay valid as long as
        it holds them.

        Raises:
            BackendError: If the graph cannot run.
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
