"""Tensors in GPU memory, used on a single stream.

Blocks come from a pool and return to it when no tensor holds them, so nothing is allocated after a
few frames. The free block with the lowest address is used first: a repeating loop finds its tensors
at the same addresses, as a captured CUDA graph requires. A block may be reused while the GPU still
reads it, since the stream keeps operations in order.
"""

from __future__ import annotations

import ctypes
import heapq
import math
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.driver import bindings, checked

PINNED_LIMIT = 64 * 2**20
"""Bytes of pending uploads before the host waits for them."""


class _Pool:
    """All memory of one stream, freed when its last tensor is gone."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.stream = int(checked(cuda.cudaStreamCreate(), "creating a CUDA stream"))
        self.free: dict[int, list[int]] = defaultdict(list)
        self._owned: set[int] = set()
        self._pinned: list[int] = []
        end = weakref.finalize(self, _free_all, cuda, self.stream, self._owned, self._pinned)
        end.atexit = False  # the process frees everything at exit

    def take(self, size: int) -> int:
        """Return the address of a free or new block; if memory is short, idle blocks are freed."""
        if self.free[size]:
            return heapq.heappop(self.free[size])
        try:
            address = self._allocate(size)
        except BackendError:
            if not self._free_idle():
                raise
            address = self._allocate(size)
        self._owned.add(address)
        return address

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory."""
        doing = f"allocating {size} bytes of page-locked memory"
        address = int(checked(self.cuda.cudaMallocHost(size), doing))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def _allocate(self, size: int) -> int:
        return int(checked(self.cuda.cudaMalloc(size), f"allocating {size} bytes of GPU memory"))

    def _free_idle(self) -> bool:
        """Free idle blocks and return whether there were any."""
        checked(self.cuda.cudaStreamSynchronize(self.stream), "waiting for the GPU")
        idle = [address for blocks in self.free.values() for address in blocks]
        for blocks in self.free.values():
            blocks.clear()  # in place: blocks in use refer to these lists
        for address in idle:
            self._owned.discard(address)
            checked(self.cuda.cudaFree(address), "freeing GPU memory")
        return bool(idle)


def _free_all(cuda: Any, stream: int, owned: set[int], pinned: list[int]) -> None:
    """Free everything, ignoring errors."""
    cuda.cudaStreamSynchronize(stream)
    for address in owned:
        cuda.cudaFree(address)
    for address in pinned:
        cuda.cudaFreeHost(address)
    cuda.cudaStreamDestroy(stream)


class _Block:
    """Device memory that returns to its pool when its last tensor is gone."""

    __slots__ = ("address", "pool", "size")

    def __init__(self, pool: _Pool, size: int) -> None:
        self.address, self.pool, self.size = pool.take(size), pool, size

    def __del__(self) -> None:
        if hasattr(self, "size"):  # the allocation succeeded
            heapq.heappush(self.pool.free[self.size], self.address)


class DeviceTensor:
    """A contiguous tensor in device memory; see `backends.base.Tensor`."""

    __slots__ = ("address", "block", "dtype", "shape")

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], block: object
    ) -> None:
        self.address, self.shape, self.dtype, self.block = address, shape, dtype, block

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, index: int | slice, /) -> DeviceTensor:
        length, *rest = self.shape
        if isinstance(index, slice):
            stop = length if index.stop is None else index.stop
            if index.start or index.step or not 0 <= stop <= length:
                raise IndexError(f"{index} is not a prefix of {length} rows")
            return DeviceTensor(self.address, (stop, *rest), self.dtype, self.block)
        if not 0 <= index < length:
            raise IndexError(f"row {index} of {length}")
        stride = math.prod(rest) * self.dtype.itemsize
        return DeviceTensor(self.address + index * stride, tuple(rest), self.dtype, self.block)


class DeviceMemory:
    """Allocation and copies on one stream of the current GPU.

    Raises:
        BackendError: If there is no GPU, or too little memory on it.
    """

    def __init__(self) -> None:
        self._cuda = bindings()
        self._pool = _Pool(self._cuda)
        self.stream = self._pool.stream
        self._pinned: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        self._in_flight: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> DeviceTensor:
        """Allocate an uninitialized tensor."""
        kind = np.dtype(dtype)
        block = _Block(self._pool, max(1, math.prod(shape)) * kind.itemsize)
        return DeviceTensor(block.address, shape, kind, block)

    def upload(self, array: NDArray[Any]) -> DeviceTensor:
        """Copy a host array to a tensor; the array may be modified once this returns."""
        tensor = self.empty(array.shape, array.dtype)
        staging = self._stage(tensor.nbytes)
        staging[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._copy(tensor.address, staging.ctypes.data, tensor.nbytes, "HostToDevice")
        self._in_flight.append(staging)
        if sum(buffer.nbytes for buffer in self._in_flight) > PINNED_LIMIT:
            self.synchronize()
        return tensor

    def download(self, tensor: DeviceTensor) -> NDArray[Any]:
        """Copy a tensor to a host array that belongs to the caller."""
        staging = self._stage(tensor.nbytes)
        self._copy(staging.ctypes.data, tensor.address, tensor.nbytes, "DeviceToHost")
        self.synchronize()
        result = staging.view(tensor.dtype).reshape(tensor.shape).copy()
        self._pinned[staging.nbytes].append(staging)
        return result

    def copy(self, source: DeviceTensor, target: DeviceTensor) -> None:
        """Copy between two tensors of equal shape."""
        if (source.shape, source.dtype) != (target.shape, target.dtype):
            raise ValueError(f"{source.shape} {source.dtype} to {target.shape} {target.dtype}")
        self._copy(target.address, source.address, source.nbytes, "DeviceToDevice")

    def synchronize(self) -> None:
        """Wait until all enqueued work is done."""
        checked(self._cuda.cudaStreamSynchronize(self.stream), "waiting for the GPU")
        for staging in self._in_flight:
            self._pinned[staging.nbytes].append(staging)
        self._in_flight.clear()

    def _stage(self, size: int) -> NDArray[np.uint8]:
        """Return page-locked host memory, which asynchronous copies require."""
        return self._pinned[size].pop() if self._pinned[size] else self._pool.pinned(size)

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, f"cudaMemcpy{kind}")
        status = self._cuda.cudaMemcpyAsync(target, source, size, direction, self.stream)
        checked(status, f"copying {size} bytes")
