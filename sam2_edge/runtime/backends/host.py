"""Tensors that are numpy arrays: shared by all backends with tensors in host memory."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends.base import Tensor


class HostTensors:
    """All of `Backend` except `run`."""

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate an uninitialized array."""
        return cast("Tensor", np.empty(shape, np.float32))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Return the array itself, made contiguous."""
        return cast("Tensor", np.ascontiguousarray(array))

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """Return a copy: the caller may change it, and the tensor may still become memory."""
        return cast("NDArray[np.float32]", tensor).copy()

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two arrays or views of equal shape."""
        np.copyto(cast("NDArray[np.float32]", target), cast("NDArray[np.float32]", source))
