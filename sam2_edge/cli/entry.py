"""What `sam2-edge` starts: handles signals from the beginning, and ends the process.

It imports the command line only once signals are handled: those imports take a second or more.
"""

from __future__ import annotations

import importlib
import os
import sys

from sam2_edge.cli.signals import INTERRUPTED, Interruption, end_when_signaled, ignore_signals


def main() -> None:
    """Run the command line; exits with its code."""
    end_when_signaled()
    run = importlib.import_module("sam2_edge.cli.main").main
    code = 0
    try:
        try:
            run(Interruption().install)
        finally:
            ignore_signals()
    except SystemExit as done:
        code = int(done.code or 0)
    except KeyboardInterrupt:  # it came as the command line was ending
        code = INTERRUPTED
    except BaseException:  # noqa: BLE001 # a fault of the program
        sys.excepthook(*sys.exc_info())
        code = 1
    if any(thread.daemon for thread in importlib.import_module("threading").enumerate()):
        # A camera's driver hangs. Python would end its thread in the middle of native code, which
        # C++ takes for a reason to abort.
        _flush()
        os._exit(code)
    sys.exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
