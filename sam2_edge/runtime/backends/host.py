"""Tensors in host memory, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends.base import Layout, Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class HostTensors:
    """Implements all of `Backend` except `run`."""

    on_device = False

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        """Allocate an uninitialized array."""
        return cast("Tensor", np.empty(shape, dtype))

    def empty_block(self, layout: Layout) -> dict[str, Tensor]:
        """Allocate uninitialized arrays."""
        return {name: self.empty(shape, dtype) for name, (shape, dtype) in layout.items()}

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Return the array itself, or a contiguous copy."""
        return cast("Tensor", np.ascontiguousarray(array))

    def upload_block(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Return the arrays themselves, or contiguous copies."""
        return {name: self.upload(array) for name, array in arrays.items()}

    def download(self, tensor: Tensor) -> NDArray[Any]:
        """Return a copy, since the caller may modify it while the tensor is still in use."""
        return cast("NDArray[Any]", tensor).copy()

    def download_block(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Return copies."""
        return {name: self.download(tensor) for name, tensor in tensors.items()}

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two arrays or views of equal shape."""
        np.copyto(cast("NDArray[Any]", target), cast("NDArray[Any]", source))

    def close(self) -> None:
        """Do nothing: the interpreter frees arrays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
