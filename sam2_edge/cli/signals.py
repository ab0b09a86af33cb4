"""What SIGINT and SIGTERM do to the command line, at each stage of its life.

- Before a command runs: end the process at once.
- While it runs: raise KeyboardInterrupt, once. Cleaning up then runs undisturbed by signals that
  come along with the first one, as from `timeout` or a container's own; a later one ends the
  process at once.
- After it: nothing, since the process is ending.

It imports little: the command line handles signals before anything else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # as shells say it

TOGETHER_S = 0.5
"""Signals within this time of the first one count as the same."""

_RETRY_S = 0.05
"""Time until an interruption that had to wait is tried again."""

SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


class Repeats:
    """Tells whether a signal is the first, one that came along with it, or a later one."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    def is_first(self) -> bool:
        """Count a signal; returns whether it is the first."""
        if self._first_s is not None:
            return False
        self._first_s = time.monotonic()
        return True

    def is_later(self) -> bool:
        """Whether the time has passed in which signals belong to the first."""
        return self._first_s is not None and time.monotonic() - self._first_s >= TOGETHER_S


def end_at_once(_number: int, _frame: FrameType | None) -> None:
    """End without an exception, which imports of native modules might swallow."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def end_when_signaled() -> None:
    """Let signals end the process at once."""
    for number in SIGNALS:
        signal.signal(number, end_at_once)


def ignore_signals() -> None:
    """Let signals do nothing, in a process that is ending anyway."""
    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def was_interrupted() -> bool:
    """Whether an `Interruption` has come, even if native code made another error of it."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, Interruption) and handler.has_come


class Interruption:
    """A handler of signals that raises KeyboardInterrupt once, and where nothing swallows it.

    Not during an import: native modules may swallow the exception, or abort. Not in code whose
    exceptions Python only reports, such as destructors. There it waits for the end.
    """

    def __init__(self) -> None:
        self._repeats = Repeats()
        self.has_come = False

    def install(self) -> None:
        """Handle signals, also those that a destructor swallows."""
        for number in SIGNALS:
            signal.signal(number, self)
        signal.signal(signal.SIGALRM, self._retry)
        report = sys.unraisablehook

        def retry_or_report(swallowed: sys.UnraisableHookArgs) -> None:
            if issubclass(swallowed.exc_type, KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
            else:
                report(swallowed)

        sys.unraisablehook = retry_or_report

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT or SIGTERM."""
        if self._repeats.is_first():
            self.has_come = True
            self._retry(number, frame)
        elif self._repeats.is_later():
            end_at_once(number, frame)

    def _retry(self, _number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        else:
            raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
