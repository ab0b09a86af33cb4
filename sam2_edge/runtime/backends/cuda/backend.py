"""What the GPU backends share: where tensors live and how they get there and back."""

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
    """Memory of a GPU backend; see `Backend` for the methods."""

    def __init__(self, geometry: Geometry) -> None:
        self._memory = DeviceMemory()
        self._specs = graph_specs(geometry)

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """See `Backend.empty`."""
        return cast("Tensor", self._memory.empty(shape))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """See `Backend.upload`."""
        return cast("Tensor", self._memory.upload(array))

    def download(self, tensor: Tensor) -> NDArray[np.float32]:
        """See `Backend.download`."""
        return self._memory.download(cast("DeviceTensor", tensor))

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Backend.copy`."""
        self._memory.copy(cast("DeviceTensor", source), cast("DeviceTensor", target))

    def mark(self) -> Any:
        """See `Backend.mark`."""
        return self._memory.mark()

    def milliseconds(self, first: Any, last: Any) -> float:
        """See `Backend.milliseconds`."""
        return self._memory.milliseconds(first, last)

    def _outputs(
        self, spec: GraphSpec, inputs: Mapping[str, DeviceTensor]
    ) -> dict[str, DeviceTensor]:
        """Room for the outputs of a run on these inputs."""
        sizes = axis_sizes(spec, inputs)
        return {o.name: self._memory.empty(o.shape(**sizes), o.dtype) for o in spec.outputs}


def axis_sizes(spec: GraphSpec, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Size of every dynamic axis, from arrays or tensors that are the inputs.

    Raises BackendError when names, types or shapes are not those of the contract.
    """
    wanted = [tensor.name for tensor in spec.inputs]
    if sorted(inputs) != sorted(wanted):
        raise BackendError(f"{spec.graph.value} takes {wanted}, it was given {sorted(inputs)}")
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
