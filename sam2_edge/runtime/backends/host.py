"""Tensors that are numpy arrays: what every backend whose tensors live in host memory shares."""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends.base import Tensor


class HostTensors:
    """All of `Backend` but for running graphs."""

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """See `Backend.empty`."""
        return cast("Tensor", np.empty(shape, np.float32))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """The array itself, made contiguous."""
        return cast("Tensor", np.ascontiguousarray(array))

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """A copy: a caller may change it, and the tensor may yet become memory."""
        return cast("NDArray[np.float32]", tensor).copy()

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Backend.copy`."""
        np.copyto(cast("NDArray[np.float32]", target), cast("NDArray[np.float32]", source))

    def mark(self) -> Any:
        """Now: nothing is under way when a call returns."""
        return time.perf_counter()

    def milliseconds(self, first: Any, last: Any) -> float:
        """See `Backend.milliseconds`."""
        return 1e3 * float(last - first)
