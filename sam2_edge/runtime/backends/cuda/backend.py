"""Base class of the GPU backends: tensors in device memory, and copies to and from it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, GraphSpec, graph_specs
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.commands import Commands
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor

_Self = TypeVar("_Self", bound="DeviceBackend")


class DeviceBackend:
    """Implements all of `Backend` except `run`.

    Args:
        geometry: The bundle's geometry.
        whole_frames: Keep work until `flush` or a download, and launch frames that repeat as one
            CUDA graph; see `Commands`.

    Raises:
        BackendError: If there is no GPU.
    """

    name: str
    on_device = True

    def __init__(self, geometry: Geometry, *, whole_frames: bool = False) -> None:
        self._memory = DeviceMemory(whole_frames=whole_frames)
        self._specs = graph_specs(geometry)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        """Allocate an uninitialized tensor."""
        return cast("Tensor", self._memory.empty(shape, dtype))

    def empty_block(self, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Tensor]:
        """Allocate uninitialized tensors, given by shape and dtype, in one piece of memory."""
        return cast("dict[str, Tensor]", self._memory.empty_block(tensors))

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Copy a host array to the GPU."""
        return cast("Tensor", self._memory.upload(array))

    def upload_block(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Copy host arrays to the GPU with one copy."""
        return cast("dict[str, Tensor]", self._memory.upload_block(arrays))

    def download(self, tensor: Tensor) -> NDArray[Any]:
        """Copy a tensor to the host; waits for the GPU."""
        return self._memory.download(cast("DeviceTensor", tensor))

    def download_block(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Copy tensors to the host; waits once for the GPU.

        Tensors that lie together in one piece of memory come with one copy.
        """
        return self._memory.download_block(cast("Mapping[str, DeviceTensor]", tensors))

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors on the GPU."""
        self._memory.copy(cast("DeviceTensor", source), cast("DeviceTensor", target))

    @property
    def stream(self) -> int:
        """The CUDA stream on which all work runs."""
        return self._memory.stream

    @property
    def commands(self) -> Commands:
        """What all work on the stream goes through."""
        return self._memory.commands

    def trim(self) -> None:
        """Give idle memory back to the GPU; waits for it."""
        self._memory.trim()

    def close(self) -> None:
        """Free everything; the backend and its tensors cannot be used any more."""
        memory: DeviceMemory | None = getattr(self, "_memory", None)  # None: there is no GPU
        if memory is None or memory.closed:
            return
        memory.commands.close()
        try:
            self._close_engines()
        finally:
            memory.close()  # last: it destroys the stream

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Otherwise attributes would go in the order of their creation, the stream first.
        if not sys.is_finalizing():
            self.close()

    def _check_open(self) -> None:
        """Raise BackendError after `close`."""
        if self._memory.closed:
            raise BackendError("this backend is closed; open another one")

    def _close_engines(self) -> None:
        """Drop everything that uses the stream; the constructor may not have come to its end."""

    def _outputs(
        self,
        spec: GraphSpec,
        sizes: Mapping[str, int],
        given: Mapping[str, Tensor] | None = None,
    ) -> dict[str, DeviceTensor]:
        """Return the outputs of a graph for these sizes: those given, and new ones.

        Raises:
            BackendError: If one that is given does not fit.
        """
        targets = dict(cast("Mapping[str, DeviceTensor]", given or {}))
        outputs: dict[str, DeviceTensor] = {}
        for output in spec.outputs:
            shape, dtype = output.shape(**sizes), np.dtype(output.dtype)
            target = targets.pop(output.name, None)
            if target is None:
                target = self._memory.empty(shape, dtype)
            elif (tuple(target.shape), target.dtype) != (shape, dtype):
                raise BackendError(
                    f"{spec.graph.value} gives {output.name} of shape {shape} and dtype {dtype}, "
                    f"not {target.shape} and {target.dtype}"
                )
            outputs[output.name] = target
        if targets:
            raise BackendError(
                f"{spec.graph.value} gives {list(outputs)}, but not {', '.join(targets)}"
            )
        return outputs


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
