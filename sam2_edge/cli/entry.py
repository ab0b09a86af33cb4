"""What `sam2-edge` starts: handles signals from the beginning, and ends the process.

It imports the command line only once signals are handled: those imports take a second or more.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading

INTERRUPTED = 128 + signal.SIGINT  # as shells say it


def main() -> None:
    """Run the command line; exits with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    run = importlib.import_module("sam2_edge.cli.main").main
    code = 0
    try:
        run()
    except SystemExit as done:
        code = int(done.code or 0)
    except KeyboardInterrupt:  # a second signal, while the first was being handled
        code = INTERRUPTED
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if any(thread.daemon for thread in threading.enumerate()):
        # A camera's driver hangs. Python would end its thread in the middle of native code, which
        # C++ takes for a reason to abort.
        _flush()
        os._exit(code)
    sys.exit(code)


def _end_at_once(_number: int, _frame: object) -> None:
    """End without an exception, which imports of native modules might swallow."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
