"""Datagrams contain the records of JSON Lines, and need no receiver."""

from __future__ import annotations

import errno
import json
import socket

import numpy as np
import pytest

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.sinks.udp import UdpJson, parse_address
from sam2_edge.runtime.streaming.writer import ResultWriter
from tests.helpers.results import tracked_frame


def test_datagrams_contain_the_records_of_json_lines() -> None:
    noise = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    frame, _ = tracked_frame(4)
    large = FrameResult(4, (ObjectResult(1, noise, 0.9, 3.0, (512, 512)),), (512, 512), 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        sink = UdpJson("127.0.0.1", receiver.getsockname()[1])
        sink.write(*tracked_frame(3, unix_s=12.5))
        sink.write(frame, large)
        found, absent, too_large = (json.loads(receiver.recv(70_000)) for _ in range(3))
        sink.close()
    assert (found["frame"], found["object"], found["time"]) == (3, 1, 12.5)
    assert found["rle"]["size"] == [48, 64]
    assert (absent["object"], absent["present"]) == (2, False)
    assert (too_large["frame"], too_large["rle"]) == (4, None)


def test_a_missing_receiver_is_ignored() -> None:
    sink = UdpJson("127.0.0.1", 9)
    for index in range(5):
        sink.write(*tracked_frame(index))
    sink.close()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("no.such.host.invalid", 5, "no.such.host.invalid:5 cannot be used: .*; give the HOST"),
        ("a" * 64 + ".example", 5, "it is not a host name; give the HOST"),
        ("a..example", 5, "it is not a host name"),
        ("caf\udce9", 5, "it is not a host name"),
        ("a\0b", 5, "cannot be used"),
        ("a" * 300, 5, "has 300 characters; give a name or an address of 1 to 253"),
        ("", 5, "has 0 characters"),
        ("127.0.0.1", 0, "port 0 does not exist; give one from 1 to 65535"),
        ("127.0.0.1", 65536, "port 65536 does not exist"),
        ("127.0.0.1", -1, "port -1 does not exist"),
    ],
)
def test_an_address_that_cannot_be_used_is_an_error(host: str, port: int, message: str) -> None:
    with pytest.raises(SinkError, match=message):
        UdpJson(host, port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5005", ("127.0.0.1", 5005)),
        ("robot.example:1", ("robot.example", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:9", ("fe80::1%eth0", 9)),
        *(
            (text, None)
            for text in ("", "host", ":9", "host:", "::1:9", "[::1:9", "::1]:9", "[]:9")
        ),
        *((f"host:{port}", None) for port in ("0", "65536", "-1", "+9", " 9", "9 ", "1.5", "٣")),
        ("host:" + "9" * 5000, None),
        ("a b:9", None),
        ("host:9\n", None),
    ],
)
def test_addresses_are_host_and_port(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_address(text) == expected


def test_lost_datagrams_are_counted_and_sending_continues(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        sink = UdpJson("127.0.0.1", receiver.getsockname()[1])
        network = Unreachable(sink._socket)
        monkeypatch.setattr(sink, "_socket", network)
        writer = ResultWriter([sink], wait=True)
        writer.start()
        for index in range(6):
            writer.put(*tracked_frame(index))
        writer.close()
        found = [json.loads(receiver.recv(70_000)) for _ in range(6)]
    assert [(r["frame"], r["object"]) for r in found] == [(i, o) for i in (0, 1, 5) for o in (1, 2)]
    assert (writer.skipped, writer.failures) == (3, 0)
    (told,) = caplog.messages
    assert "are lost: Network is unreachable; sending continues" in told


class Unreachable:
    """A socket whose network is down for its fifth to tenth datagram."""

    def __init__(self, real: socket.socket) -> None:
        self.close = real.close
        self._real, self._sent = real, 0

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self._sent += 1
        if 5 <= self._sent <= 10:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        self._real.sendto(data, address)
