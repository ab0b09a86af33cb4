"""Readiness and watchdog notifications for systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
import weakref
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state such as "READY=1"; does nothing without a service manager."""
    with suppress(OSError), _open_socket() as sender:
        _send(sender, state)


class Watchdog:
    """Pings systemd's watchdog at half the interval set by WATCHDOG_USEC.

    It keeps its socket open: a process that has run out of file descriptors is still alive.
    """

    def __init__(self) -> None:
        interval = os.environ.get("WATCHDOG_USEC", "")
        self._interval_s = int(interval) / 2e6 if interval.isdecimal() else 0.0
        self._last_s = 0.0
        if self._interval_s:
            self._socket = _open_socket()
            weakref.finalize(self, self._socket.close)

    def ping(self) -> None:
        """Report that the loop is alive; call it often, for example once per frame."""
        now = time.monotonic()
        if self._interval_s and now - self._last_s >= self._interval_s:
            _send(self._socket, "WATCHDOG=1")
            self._last_s = now


def _open_socket() -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.settimeout(0)  # a service manager that does not listen must not stop the loop
    return sender


def _send(sender: socket.socket, state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    with suppress(OSError):
        sender.sendto(state.encode(), address)
