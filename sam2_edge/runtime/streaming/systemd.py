"""Readiness and watchdog notifications for systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state such as "READY=1"; does nothing without a service manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    # A service manager that does not listen must not stop the loop.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


class Watchdog:
    """Pings systemd's watchdog at half the interval set by WATCHDOG_USEC."""

    def __init__(self) -> None:
        self._interval_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
        self._last_s = 0.0

    def ping(self) -> None:
        """Report that the loop is alive; call it often, for example once per frame."""
        now = time.monotonic()
        if self._interval_s and now - self._last_s >= self._interval_s:
            notify("WATCHDOG=1")
            self._last_s = now
