"""Tensors in GPU memory, and copies to and from it, on a single stream."""

from __future__ import annotations

import ctypes
import math
import operator
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.commands import Commands
from sam2_edge.runtime.backends.cuda.driver import driver
from sam2_edge.runtime.backends.cuda.pool import ALIGNMENT, Block, Pool

IDLE_LIMIT = 64 * 2**20
"""Bytes of idle GPU memory that are kept; see `Pool.end_turn`."""

PINNED_LIMIT = 64 * 2**20
"""Bytes of pending uploads before the host waits for them, and of idle page-locked memory kept."""

MERGED_GAP = 256 * 2**10
"""Bytes between two tensors of one block that are downloaded along with them: about as quick as
another copy."""


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
        stride = math.prod(rest) * self.dtype.itemsize
        if isinstance(index, slice):
            start = 0 if index.start is None else index.start
            stop = length if index.stop is None else index.stop
            if index.step not in (None, 1) or not 0 <= start <= stop <= length:
                raise IndexError(f"{index} is not a range of {length} rows")
            address, shape = self.address + start * stride, (stop - start, *rest)
        else:
            row = operator.index(index)  # NumPy's numbers would spread to addresses and sizes
            if not 0 <= row < length:
                raise IndexError(f"row {row} of {length}")
            address, shape = self.address + row * stride, tuple(rest)
        return DeviceTensor(address, shape, self.dtype, self.block)


class DeviceMemory:
    """Allocation and copies on a stream of its own.

    All methods are for one thread at a time; tensors may be dropped on any thread.

    Args:
        whole_frames: See `Commands`.

    Raises:
        BackendError: If there is no GPU, or too little memory on it.
    """

    def __init__(self, *, whole_frames: bool = False) -> None:
        self._closed = True  # until there is something to free
        self._driver = driver()
        self.stream = self._driver.create_stream()
        self.commands = Commands(self._driver, self.stream, whole_frames=whole_frames)
        self._device = Pool(self._driver.alloc, self._driver.free, idle_limit=IDLE_LIMIT)
        self._pinned = Pool(
            self._driver.alloc_host, self._driver.free_host, idle_limit=PINNED_LIMIT
        )
        self._uploads: list[Block] = []  # read by copies that may not be done
        self._upload_bytes = 0
        self._closed = False

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> DeviceTensor:
        """Allocate an uninitialized tensor."""
        kind = np.dtype(dtype)
        block = self._take(self._device, math.prod(shape) * kind.itemsize)
        return DeviceTensor(block.address, shape, kind, block)

    def empty_block(
        self, tensors: Mapping[str, tuple[tuple[int, ...], Any]]
    ) -> dict[str, DeviceTensor]:
        """Allocate uninitialized tensors, given by shape and dtype, in one piece of memory."""
        kinds = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in tensors.items()}
        offsets, size = _layout(math.prod(shape) * d.itemsize for shape, d in kinds.values())
        block = self._take(self._device, size)
        return {
            name: DeviceTensor(block.address + offset, shape, dtype, block)
            for offset, (name, (shape, dtype)) in zip(offsets, kinds.items(), strict=True)
        }

    def upload(self, array: NDArray[Any]) -> DeviceTensor:
        """Copy a host array to a tensor; the array may be modified once this returns."""
        return self.upload_block({"": array})[""]

    def upload_block(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, DeviceTensor]:
        """Copy host arrays to tensors in one piece of memory, with one copy."""
        tensors = self.empty_block({name: (a.shape, a.dtype) for name, a in arrays.items()})
        filled = [name for name, tensor in tensors.items() if tensor.nbytes]
        if not filled:
            return tensors
        start = tensors[filled[0]].address
        size = tensors[filled[-1]].address + tensors[filled[-1]].nbytes - start
        staging = self._take(self._pinned, size)
        for name in filled:
            tensor = tensors[name]
            _host_view(staging, tensor.address - start, tensor)[...] = arrays[name]
        key = ("upload", start, staging.address, size)
        copy, stream = self._driver.copy_to_device, self.stream
        self.commands.submit(key, lambda _captured: copy(*key[1:], stream))
        self._uploads.append(staging)
        self._upload_bytes += size
        if self._upload_bytes > PINNED_LIMIT:
            self.synchronize()
        return tensors

    def download(self, tensor: DeviceTensor) -> NDArray[Any]:
        """Copy a tensor to a host array that belongs to the caller; waits for the GPU."""
        return self.download_block({"": tensor})[""]

    def download_block(self, tensors: Mapping[str, DeviceTensor]) -> dict[str, NDArray[Any]]:
        """Copy tensors to host arrays that belong to the caller; waits once for the GPU.

        Tensors that lie together in one piece of memory come with one copy.
        """
        spans = _spans(tensors.values())
        offsets, total = _layout(span.size for span in spans)
        staging = self._take(self._pinned, total)
        for span, offset in zip(spans, offsets, strict=True):
            self._submit_download(staging.address + offset, span)
        self.synchronize()
        return {
            name: _host_view(staging, _offset(tensor, spans, offsets), tensor).copy()
            for name, tensor in tensors.items()
        }

    def copy(self, source: DeviceTensor, target: DeviceTensor) -> None:
        """Copy between two tensors of equal shape."""
        if (source.shape, source.dtype) != (target.shape, target.dtype):
            raise ValueError(f"{source.shape} {source.dtype} to {target.shape} {target.dtype}")
        if source.nbytes:
            key = ("copy", target.address, source.address, source.nbytes)
            copy, stream = self._driver.copy_on_device, self.stream
            self.commands.submit(key, lambda _captured: copy(*key[1:], stream))

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self.commands.synchronize()
        self._uploads.clear()
        self._upload_bytes = 0
        self._device.end_turn()
        self._pinned.end_turn()

    def trim(self) -> None:
        """Give all idle memory back to the GPU; waits for it.

        For others that share the GPU, when objects are gone or an allocation of theirs failed.
        """
        if not self._closed:
            self.synchronize()
            self._device.trim()
            self._pinned.trim()

    def close(self) -> None:
        """Free everything; tensors become invalid."""
        if self._closed:
            return
        self._closed = True
        self.commands.close()
        self._device.close()
        self._pinned.close()
        with suppress(BackendError):
            self._driver.destroy_stream(self.stream)  # last, when nothing uses it

    @property
    def closed(self) -> bool:
        """Whether everything was freed."""
        return self._closed

    def __del__(self) -> None:
        if not sys.is_finalizing():  # the process frees everything at exit
            self.close()

    def _take(self, pool: Pool, size: int) -> Block:
        """Take a block; if memory is short, idle blocks of other sizes are freed."""
        try:
            return pool.take(size)
        except BackendError:
            self.trim()
        return pool.take(size)

    def _submit_download(self, target: int, span: _Span) -> None:
        key = ("download", target, span.start, span.size)
        copy, stream = self._driver.copy_to_host, self.stream
        self.commands.submit(key, lambda _captured: copy(*key[1:], stream))


@dataclass(slots=True)
class _Span:
    """Bytes of one block that are copied together."""

    start: int
    end: int
    block: object

    @property
    def size(self) -> int:
        return self.end - self.start


def _spans(tensors: Iterable[DeviceTensor]) -> list[_Span]:
    """Return what to copy for these tensors, in the order of addresses.

    Not in that of the tensors: the same copies must have the same order in every frame.
    """
    spans: list[_Span] = []
    for tensor in sorted((t for t in tensors if t.nbytes), key=lambda t: t.address):
        # Down to where a block may start, so that rows are aligned on the host as on the GPU.
        start = tensor.address - tensor.address % ALIGNMENT
        end = tensor.address + tensor.nbytes
        last = spans[-1] if spans else None
        if last and last.block is tensor.block and start <= last.end + MERGED_GAP:
            last.end = max(last.end, end)
        else:
            spans.append(_Span(start, end, tensor.block))
    return spans


def _offset(tensor: DeviceTensor, spans: list[_Span], offsets: list[int]) -> int:
    """Return where a tensor lies in the host's copy of the spans."""
    for span, offset in zip(spans, offsets, strict=True):
        if span.start <= tensor.address < span.end:
            return offset + tensor.address - span.start
    return 0  # it is empty


def _layout(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Return aligned offsets for pieces of these sizes, and the size of the whole."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = offsets[-1] + size
    return offsets, end


def _host_view(staging: Block, offset: int, tensor: DeviceTensor) -> NDArray[Any]:
    """View page-locked memory as an array like this tensor."""
    if not tensor.nbytes:
        return np.empty(tensor.shape, tensor.dtype)
    buffer = (ctypes.c_uint8 * tensor.nbytes).from_address(staging.address + offset)
    return np.ctypeslib.as_array(buffer).view(tensor.dtype).reshape(tensor.shape)
