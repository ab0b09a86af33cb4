"""The network side: idle, malformed and too many connections, and what the log says about them."""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from sam2_edge.serve import app, connections, log_limit
from sam2_edge.serve.connections import MAX_CONNECTIONS
from sam2_edge.serve.security import HEADERS
from tests.helpers.clock import wait_until
from tests.helpers.site import TOKEN, Site, next_frame

HANDSHAKE = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def connect(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=30)


def answer(site: Site, request: bytes) -> tuple[int, dict[str, str]]:
    """Send raw bytes; return the status and the headers of the only answer."""
    with connect(site) as client:
        client.sendall(request)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    status, *lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)


def is_healthy(site: Site) -> bool:
    return httpx.get(site.url("/healthz"), timeout=30).text == "ok"


@contextmanager
def server_limited(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> Iterator[None]:
    """Run the server with another limit."""
    site.stop_server()
    monkeypatch.setattr(connections, name, value)
    site.start_server()
    yield
    site.stop_server()
    monkeypatch.undo()
    site.start_server()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /no/such/page HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%ff/../etc HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000, 400),
        (
            b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"\r\n", 401),
        (b"GET /other HTTP/1.1\r\n" + HANDSHAKE + b"\r\n", 404),
        (b"POST /ws HTTP/1.1\r\n" + HANDSHAKE + b"\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"Content-Length: 9\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n" + HANDSHAKE.replace(b"AAAA==", b"") + b"\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n" + HANDSHAKE.replace(b"13", b"7") + b"\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"X: y\r\n" * 200 + b"\r\n", 400),
        (
            b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"Origin: http://evil.example\r\n"
            b"Authorization: bearer " + TOKEN.encode() + b"\r\n\r\n",
            403,
        ),
    ],
)
def test_every_answer_has_the_security_headers_and_ends_the_connection(
    guarded_site: Site, request_: bytes, status: int
) -> None:
    found, headers = answer(guarded_site, request_)
    assert found == status
    headers = {name.lower(): value for name, value in headers.items()}
    assert {name: headers.get(name.lower()) for name in HEADERS} == HEADERS
    assert headers["connection"] == "close"


def test_a_second_request_on_a_connection_is_not_answered(open_site: Site) -> None:
    with connect(open_site) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.count(b"HTTP/1.1") == 1


def test_idle_connections_take_no_place_from_others(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        server_limited(open_site, monkeypatch, "REQUEST_S", 1000),
        ExitStack() as stack,
        open_site.socket() as viewer,
    ):
        for _ in range(MAX_CONNECTIONS):  # silent ones are not even accepted
            stack.enter_context(connect(open_site))
        idle = [stack.enter_context(connect(open_site)) for _ in range(2 * MAX_CONNECTIONS)]
        for client in idle:
            client.sendall(b"GET / HTTP/1.1\r\n")
        assert is_healthy(open_site)
        next_frame(viewer)
        for client in idle[: MAX_CONNECTIONS // 2]:  # the oldest were dropped
            assert client.recv(1) == b""
    assert is_healthy(open_site)


def test_refused_viewers_that_stay_take_no_place_from_others(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay(site: Site) -> socket.socket:
        """Open a WebSocket and neither read nor close it."""
        client = connect(site)
        client.sendall(b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"\r\n")
        return client

    with server_limited(open_site, monkeypatch, "MAX_CONNECTIONS", 8), ExitStack() as stack:
        viewer = stack.enter_context(open_site.socket())
        next_frame(viewer)
        monkeypatch.setattr(app, "MAX_VIEWERS", 1)
        for _ in range(20):
            client = stack.enter_context(stay(open_site))
            assert client.recv(12) == b"HTTP/1.1 101"
        assert is_healthy(open_site)
        next_frame(viewer)


def test_a_request_that_never_ends_is_dropped(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        server_limited(open_site, monkeypatch, "REQUEST_S", 0.2),
        connect(open_site) as slow,
        open_site.socket() as viewer,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert slow.recv(1) == b""
        next_frame(viewer)  # viewers may stay


def test_connections_opened_and_dropped_leave_nothing_behind(open_site: Site) -> None:
    def usage() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    assert is_healthy(open_site)
    before = usage()
    for _ in range(300):
        connect(open_site).close()
    assert is_healthy(open_site)
    wait_until(lambda: usage() <= before)


def test_the_server_survives_a_lack_of_descriptors(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_healthy(open_site)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket() for _ in range(5)]
    spare = os.dup(0)
    warned = threading.Event()
    monkeypatch.setattr(connections._log, "warning", lambda *_: warned.set())
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    try:
        for client in waiting:
            client.connect(("127.0.0.1", open_site.port))
        assert warned.wait(30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(spare)
        for client in waiting:
            client.close()
    assert is_healthy(open_site)


@pytest.mark.parametrize(
    ("limit", "maximum"), [(4096, MAX_CONNECTIONS), (1024, 256), (256, 64), (64, 16)]
)
def test_most_descriptors_are_left_to_the_loop(
    monkeypatch: pytest.MonkeyPatch, limit: int, maximum: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connections._max_connections() == maximum


def test_an_attack_does_not_fill_the_log(open_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3 * int(log_limit.BURST)):
            assert answer(open_site, b"nonsense\r\n\r\n")[0] == 400
    assert 0 < len(caplog.records) <= log_limit.BURST + 2


def test_the_log_says_how_much_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, record = log_limit.LogLimit(), logging.makeLogRecord({"msg": "bad %s", "args": ("x",)})
    tokens = iter([True, False, False, True])
    monkeypatch.setattr(limit._bucket, "take", lambda: next(tokens))
    assert [limit.filter(record) for _ in range(4)] == [True, False, False, True]
    assert record.getMessage() == "bad x (2 messages left out before)"


def test_a_server_with_a_token_never_logs_it(
    guarded_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        httpx.get(guarded_site.url("/"), params={"token": TOKEN})
        with guarded_site.socket(additional_headers={"authorization": f"Bearer {TOKEN}"}) as viewer:
            next_frame(viewer)
    server = [r.getMessage() for r in caplog.records if r.name.startswith(("uvicorn", "sam2"))]
    assert not [text for text in server if TOKEN in text]
