"""Commands to a camera loop from other threads, which run between its frames.

However many there are, they take at most half of the loop's time: each one is paid for with time
that has passed since the last ones.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sam2_edge.errors import LoopError, Sam2EdgeError

MAX_WAITING_COMMANDS = 64
"""Length of the queue of commands."""

MAX_CREDIT_S = 0.1
"""How long commands may run at a stretch, after a time without any."""


class CommandQueue:
    """A bounded queue of commands; `submit` may be called from any thread.

    Args:
        heartbeat: Called after each command, in the thread that runs it.
    """

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._lock = threading.Lock()  # guards _waiting and _closed
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = self._stopped = False
        self._credit_s = MAX_CREDIT_S
        self._left_s = time.monotonic()

    def submit(self, command: Callable[[], Any]) -> Future[Any]:
        """Queue a command, and return the Future of its outcome.

        Raises:
            LoopError: If the queue is full or closed.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise LoopError("this loop has ended and accepts no more commands")
            if len(self._waiting) >= MAX_WAITING_COMMANDS:
                self._drop_cancelled()
            if len(self._waiting) >= MAX_WAITING_COMMANDS:
                raise LoopError(
                    f"{MAX_WAITING_COMMANDS} commands already wait for this loop, which is the "
                    "limit; wait for the answer to one before you send another"
                )
            self._waiting.append((command, future))
        return future

    def run(self, *, at_least: int = 0) -> bool:
        """Run waiting commands in order, and return whether there were any.

        Stops when they have taken as long as the time since the last call, at most `MAX_CREDIT_S`.
        A command that takes longer is made up for by the next calls.

        Args:
            at_least: Number of waiting commands to run regardless of the time they take.

        Raises:
            Exception: What a command raised, if it is not a Sam2EdgeError. Its Future is resolved.
        """
        now = time.monotonic()
        self._credit_s = min(self._credit_s + now - self._left_s, MAX_CREDIT_S)
        ran = False
        try:
            while (at_least > 0 or self._credit_s > 0) and (item := self._next()) is not None:
                at_least -= 1
                began_s = time.monotonic()
                ran = _execute(*item) or ran
                self._credit_s -= time.monotonic() - began_s
                self._heartbeat()
        finally:
            self._left_s = time.monotonic()
        return ran

    def stop(self) -> None:
        """Run no more commands, even if `run` is at work in another thread."""
        self._stopped = True

    def close(self) -> None:
        """Accept no more commands, and answer those that wait with a LoopError."""
        with self._lock:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(LoopError("the loop ended before this command"))

    def _next(self) -> tuple[Callable[[], Any], Future[Any]] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self._stopped else None

    def _drop_cancelled(self) -> None:
        self._waiting = deque(item for item in self._waiting if not item[1].cancelled())


def _execute(command: Callable[[], Any], future: Future[Any]) -> bool:
    """Run one command, and return whether it ran rather than being cancelled."""
    if not future.set_running_or_notify_cancel():
        return False
    try:
        outcome = command()
    except BaseException as error:
        future.set_exception(error)  # even if it ends the loop
        if not isinstance(error, Sam2EdgeError):
            raise
    else:
        future.set_result(outcome)
    return True
