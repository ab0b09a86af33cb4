"""A pool of memory blocks, for memory whose allocation is slow: that of a GPU, and page-locked.

The free block with the lowest address is used first: a repeating loop finds its tensors at the same
addresses, as a captured CUDA graph requires.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress

from sam2_edge.errors import BackendError

ALIGNMENT = 256
"""Addresses of blocks, and of tensors within them, are multiples of this: TensorRT requires it."""

KEPT_TURNS = 2
"""Turns without use before a block may be freed: a loop keeps all its blocks, however large."""


def size_class(size: int) -> int:
    """Return the size of the block for this many bytes: less than a quarter more, at least 256.

    Four sizes between powers of two: blocks fit the tensors of other numbers of objects too.
    """
    step = max(ALIGNMENT, 1 << max(0, (size - 1).bit_length() - 3))
    return max(1, -(-size // step)) * step


class Pool:
    """Blocks of one kind of memory.

    A block may be taken again while the GPU still uses it, if both uses are on one stream, which
    keeps them in order.

    Args:
        allocate: Allocates bytes and returns their address.
        release: Frees an address.
        idle_limit: Bytes of idle blocks that are kept when a turn ends.
    """

    def __init__(
        self, allocate: Callable[[int], int], release: Callable[[int], None], *, idle_limit: int
    ) -> None:
        self._allocate, self._release, self._limit = allocate, release, idle_limit
        self._sizes: dict[int, int] = {}  # of every block
        self._free: dict[int, list[int]] = defaultdict(list)  # heaps of addresses by size
        self._last_turn: dict[int, int] = {}  # of free blocks
        # Blocks return whenever the garbage collector runs, on any thread and in the middle of any
        # line here: they only join this queue.
        self._returned: deque[int] = deque()
        self._turn, self._idle_bytes = 0, 0
        self._closed = False

    def take(self, size: int) -> Block:
        """Return a free block of at least this size, or a new one.

        Raises:
            BackendError: If there is too little memory, or after `close`.
        """
        if self._closed:
            raise BackendError("this backend is closed; open another one")
        self._collect()
        size = size_class(size)
        if self._free[size]:
            address = heapq.heappop(self._free[size])
            del self._last_turn[address]
            self._idle_bytes -= size
        else:
            address = self._allocate(size)
            self._sizes[address] = size
        return Block(address, self._returned)

    def end_turn(self) -> None:
        """Free idle blocks beyond the limit, the longest unused first.

        To be called at the end of each turn of a loop, when the GPU has done all its work.
        """
        self._turn += 1
        self._collect()
        if self._idle_bytes > self._limit:
            for address in sorted(self._last_turn, key=self._last_turn.__getitem__):
                in_use = self._turn - self._last_turn[address] <= KEPT_TURNS
                if in_use or self._idle_bytes <= self._limit:
                    break
                self._forget(address)

    def trim(self) -> None:
        """Free all idle blocks; the GPU must have done all its work."""
        self._collect()
        for address in list(self._last_turn):
            self._forget(address)

    def close(self) -> None:
        """Free all blocks, those in use as well."""
        self._closed = True
        for address in self._sizes:
            with suppress(BackendError):
                self._release(address)
        self._sizes.clear()

    def _collect(self) -> None:
        """Make returned blocks available."""
        while self._returned:
            address = self._returned.popleft()
            size = self._sizes[address]
            heapq.heappush(self._free[size], address)
            self._last_turn[address] = self._turn
            self._idle_bytes += size

    def _forget(self, address: int) -> None:
        """Free an idle block."""
        size = self._sizes.pop(address)
        del self._last_turn[address]
        self._free[size].remove(address)
        heapq.heapify(self._free[size])
        self._idle_bytes -= size
        self._release(address)


class Block:
    """Memory that returns to its pool when nothing holds it any more."""

    __slots__ = ("_returned", "address")

    def __init__(self, address: int, returned: deque[int]) -> None:
        self.address, self._returned = address, returned

    def __del__(self) -> None:
        self._returned.append(self.address)
