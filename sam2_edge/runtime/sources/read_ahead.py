"""Reads a few items ahead in a thread, so that reading overlaps with the work on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

AHEAD = 2
"""Items that are read ahead: one more than the overlap needs, since some take longer."""

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    items: Generator[Item, None, None], read: Callable[[Item], Read], *, ahead: int = AHEAD
) -> Generator[Read, None, None]:
    """Yield `read(item)` for each item, in order; close the iteration to end the thread.

    An error appears in place of its item, after all items before it. Apart from the item that was
    yielded last, at most `ahead` are in memory.

    Args:
        items: Advanced by one thread, and closed at the end.
        read: Called in that thread.
        ahead: Number of items that are read ahead.
    """
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="sam2_edge ahead") as pool:
        waiting: deque[Future[tuple[Read, ...]]] = deque()
        try:
            for _ in range(ahead):
                waiting.append(pool.submit(_read_next, items, read))
            while found := waiting.popleft().result():
                waiting.append(pool.submit(_read_next, items, read))
                yield found[0]
        finally:
            pool.shutdown(cancel_futures=True)


def _read_next(items: Iterator[Item], read: Callable[[Item], Read]) -> tuple[Read, ...]:
    """Return the next item, read; an empty tuple at the end."""
    for item in items:
        return (read(item),)
    return ()
