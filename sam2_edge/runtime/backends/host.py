"""Tensors in host memory, as numpy arrays."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends.base import Tensor


class HostTensors:
    """Implements all of `Backend` except `run`."""

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate an uninitialized array."""
        return cast("Tensor", np.empty(shape, np.float32))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Return the array itself, or a contiguous copy."""
        return cast("Tensor", np.ascontiguousarray(array))

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """Return a copy, since the caller may modify it while the tensor is still in use."""
        return cast("NDArray[np.float32]", tensor).copy()

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two arrays or views of equal shape."""
        np.copyto(cast("NDArray[np.float32]", target), cast("NDArray[np.float32]", source))
