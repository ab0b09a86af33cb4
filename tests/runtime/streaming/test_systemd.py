"""Messages to systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sam2_edge.runtime.streaming import systemd
from sam2_edge.runtime.streaming.systemd import Watchdog, notify
from tests.helpers.clock import FakeTime
from tests.helpers.descriptors import no_descriptors


def test_systemd_is_notified_that_the_loop_is_ready_and_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(systemd, "time", clock)
    notify("READY=1")  # without a service manager nothing happens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        watchdog = Watchdog()
        notify("READY=1")
        watchdog.ping()
        watchdog.ping()  # too soon
        clock.now += 0.11
        with no_descriptors():  # a loop without descriptors is alive
            watchdog.ping()
        assert [manager.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        with pytest.raises(BlockingIOError):
            manager.recv(99)
    notify("STOPPING=1")  # nobody listens any more


@pytest.mark.parametrize("interval", ["", "soon", "-5", "0"])
def test_an_interval_that_is_none_means_no_watchdog(
    interval: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", interval)
    Watchdog().ping()
