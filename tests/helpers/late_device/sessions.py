"""ONNX files that run on raw addresses of the late device, with ONNX Runtime's CPU provider.

The sessions are those of backend "cpu" on one thread, so that results are equal bit by bit.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sam2_edge.runtime.backends import ort_cpu
from tests.helpers.late_device import LateDevice

Placed = tuple[int, tuple[int, ...] | None]
"""Address and shape of a tensor; None for an output whose shape the graph determines."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


def view(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return the memory at an address as an array."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), kind).reshape(shape)


@cache
def _session(content: bytes) -> ort.InferenceSession:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        Path(file.name).write_bytes(content)
        bundle: Any = SimpleNamespace(graph_path=lambda _graph: Path(file.name))
        return ort_cpu._open(bundle, None, 1)  # type: ignore[arg-type] # any graph will do


class RawSession:
    """One graph; `axes` holds -1 where a tensor has no fixed size."""

    def __init__(self, content: bytes) -> None:
        self.session = _session(content)
        self.inputs = {node.name for node in self.session.get_inputs()}
        nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.dtypes = {node.name: np.dtype(_DTYPES[node.type]) for node in nodes}
        self.axes = {
            node.name: tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
            for node in nodes
        }

    def run(self, device: LateDevice, tensors: Mapping[str, Placed]) -> None:
        """Read all inputs and write all outputs, which must lie in device memory that is in use."""
        feeds = {name: self._array(device, name, *tensors[name]) for name in self.inputs}
        names = [name for name in self.dtypes if name not in self.inputs]
        for name, result in zip(names, self.session.run(names, feeds), strict=True):
            address, shape = tensors[name]
            if shape not in (None, result.shape):
                raise AssertionError(f"{name} has the shape {result.shape}, not {shape}")
            self._array(device, name, address, result.shape)[...] = result

    def _array(
        self, device: LateDevice, name: str, address: int, shape: tuple[int, ...] | None
    ) -> NDArray[Any]:
        assert shape is not None
        size = math.prod(shape) * self.dtypes[name].itemsize
        if size and not device.is_in_use(address, size):
            raise AssertionError(f"{name} {shape} is not in device memory that is in use")
        return view(address, shape, self.dtypes[name])
