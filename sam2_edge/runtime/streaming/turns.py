"""Turns at a backend that several camera loops share, in the order in which they ask."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is passed on to whoever has waited longest.

    Python's own lock may go to the same thread again and again, and the others would starve.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        """Wait for a turn."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        called.acquire()

    def __exit__(self, *_error: object) -> None:
        """Pass the turn on."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
