"""What the GPU backends share: tensors in device memory, and copies to and from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, Graph, GraphSpec, graph_specs
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor


class DeviceBackend:
    """All of `Backend` except `run`."""

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

    def _outputs(
        self, spec: GraphSpec, inputs: Mapping[str, DeviceTensor]
    ) -> dict[str, DeviceTensor]:
        """Allocate the outputs of a run on these inputs."""
        sizes = axis_sizes(spec, inputs)
        return {o.name: self._memory.empty(o.shape(**sizes), o.dtype) for o in spec.outputs}


def axis_sizes(spec: GraphSpec, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Return the size of every dynamic axis of a graph's inputs.

    Raises:
        BackendError: If names, types or shapes differ from the contract.
    """
    wanted = [tensor.name for tensor in spec.inputs]
    if sorted(inputs) != sorted(wanted):
        raise BackendError(f"{spec.graph.value} takes {wanted}, but got {sorted(inputs)}")
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        given = inputs[tensor.name]
        for axis, size in zip(tensor.axes, given.shape, strict=False):
            if isinstance(axis, str):
                sizes.setdefault(axis, size)
        if tuple(given.shape) != tensor.shape(**sizes) or given.dtype != np.dtype(tensor.dtype):
            raise _misfit(spec.graph, tensor.name, given)
    return sizes


def _misfit(graph: Graph, name: str, given: Any) -> BackendError:
    shape = tuple(given.shape)
    return BackendError(f"{graph.value} cannot take {name} of shape {shape} and type {given.dtype}")
