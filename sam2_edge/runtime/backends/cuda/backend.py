"""Base class of the GPU backends: tensors in device memory, and copies to and from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, GraphSpec, graph_specs
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor


class DeviceBackend:
    """Implements all of `Backend` except `run`."""

    def __init__(self, geometry: Geometry) -> None:
        self._memory = DeviceMemory()
        self._specs = graph_specs(geometry)

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate an uninitialized tensor."""
        return cast("Tensor", self._memory.empty(shape))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Copy a host array to the GPU."""
        return cast("Tensor", self._memory.upload(array))

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """Copy a tensor to the host; waits for the GPU."""
        return self._memory.download(cast("DeviceTensor", tensor))

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors on the GPU."""
        self._memory.copy(cast("DeviceTensor", source), cast("DeviceTensor", target))

    @property
    def stream(self) -> int:
        """The CUDA stream on which all work runs."""
        return self._memory.stream

    def _outputs(self, spec: GraphSpec, sizes: Mapping[str, int]) -> dict[str, DeviceTensor]:
        """Allocate the outputs of a graph for these sizes of its dynamic axes."""
        return {o.name: self._memory.empty(o.shape(**sizes), o.dtype) for o in spec.outputs}


def axis_sizes(spec: GraphSpec, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Return the size of every dynamic axis of a graph's inputs.

    Raises:
        BackendError: If names, dtypes or shapes differ from the contract.
    """
    names = [tensor.name for tensor in spec.inputs]
    if sorted(inputs) != sorted(names):
        raise BackendError(f"{spec.graph.value} takes {names}, but got {sorted(inputs)}")
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        value = inputs[tensor.name]
        shape = tuple(value.shape)
        for axis, size in zip(tensor.axes, shape, strict=False):
            if isinstance(axis, str):
                sizes.setdefault(axis, size)
        if shape != tensor.shape(**sizes) or value.dtype != np.dtype(tensor.dtype):
            raise BackendError(
                f"{spec.graph.value} cannot take {tensor.name} of shape {shape} and dtype "
                f"{value.dtype}"
            )
    return sizes
