"""Telling systemd that the loop is ready and alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field


def notify(state: str) -> None:
    """Send a state such as "READY=1"; without a service manager nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    # A service manager that does not listen is no reason to stop.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


@dataclass(slots=True)
class Watchdog:
    """Says that the loop is alive, at half the interval after which systemd would restart it."""

    interval_s: float = field(
        default_factory=lambda: int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    )
    _last_s: float = 0.0

    def alive(self) -> None:
        """To be called often, such as once in a frame."""
        now = time.monotonic()
        if self.interval_s and now - self._last_s >= self.interval_s:
            notify("WATCHDOG=1")
            self._last_s = now
