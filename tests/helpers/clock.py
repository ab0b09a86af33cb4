"""A clock that tests control, and a way to wait for other threads."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 60.0
"""Maximum wait for another thread; a passing test takes a fraction of it."""


class FakeTime:
    """Replaces the module `time` in the code under test."""

    gmtime = staticmethod(time.gmtime)
    strftime = staticmethod(time.strftime)

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until another thread or process makes a condition true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
