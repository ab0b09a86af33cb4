"""The network side of the server: which connections it accepts, and for how long.

One process holds the server and the camera loop, so a flood must neither take the descriptors nor
the time of the loop. Connections are accepted at a bounded rate and up to a maximum, beyond which
the oldest one without a viewer is dropped, after a time of grace. Each carries one request, which
must be finished in time, or a WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import socket
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sam2_edge.serve.security import HEADERS, TokenBucket

MAX_CONNECTIONS = 256
"""Open connections, viewers included; fewer if the process may open fewer than four times as many
files."""

MAX_ACCEPTS_PER_S, ACCEPT_BURST = 400.0, 1000.0
"""Rate limit on new connections; more wait in the kernel."""

GRACE_S = 0.3
"""Time that a connection has for its request even if there are too many."""

REQUEST_S = 10.0
"""Time for a connection to send its request and read the answer."""

MAX_HEADER_BYTES, MAX_HEADERS = 8 * 1024, 100
"""Limits on a request without its body; the WebSocket library's own are higher."""

BACKLOG = 2048
"""Connections that wait in the kernel. A longer queue costs little, a full one seconds."""

_RETRY_S = 0.1

_log = logging.getLogger(__name__)

_BAD_REQUEST = "\r\n".join(
    [
        "HTTP/1.1 400 Bad Request",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 22",
        "Connection: close",
        "",
        "400: malformed request",
    ]
).encode()


@dataclass(frozen=True, slots=True)
class _Connection:
    socket: socket.socket
    transport: asyncio.Transport
    accepted_s: float

    @property
    def worth(self) -> int:
        """Rank: WebSockets that the server has closed, requests, then viewers."""
        protocol = self.transport.get_protocol()
        if getattr(protocol, "close_sent", False):  # uvicorn waits 10 s for the peer's consent
            return 0
        return 1 if isinstance(protocol, OneRequest) else 2


class Server(uvicorn.Server):
    """Serves connections from a listening socket."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._listening = listening
        self._open: list[_Connection] = []
        self._max_open = _max_connections()
        self._accepting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting connections."""
        await super().startup(sockets=sockets or [])
        self._accepting = asyncio.create_task(self._accept_all())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every connection."""
        if self._accepting is not None:
            self._accepting.cancel()
        self._listening.close()
        await super().shutdown(sockets)

    async def _accept_all(self) -> None:
        bucket = TokenBucket(MAX_ACCEPTS_PER_S, ACCEPT_BURST)
        while True:
            try:
                await self._accept()
            except OSError as error:  # perhaps the process is out of descriptors
                _log.warning("a connection was not accepted: %s", error)
                await self._drop_one()
                await asyncio.sleep(_RETRY_S)
            while not bucket.take():
                await asyncio.sleep(1 / MAX_ACCEPTS_PER_S)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        accepted, _ = await loop.sock_accept(self._listening)
        try:
            while self._count() >= self._max_open:
                await self._drop_one()
            transport, _ = await loop.connect_accepted_socket(self._make_protocol, accepted)
        except BaseException:
            accepted.close()
            raise
        self._open.append(_Connection(accepted, transport, loop.time()))

    def _count(self) -> int:
        self._open = [connection for connection in self._open if connection.socket.fileno() != -1]
        return len(self._open)

    async def _drop_one(self) -> None:
        """Drop the oldest of the connections that are worth least, or wait if it is new."""
        if not self._open:
            return
        dropped = min(self._open, key=lambda connection: connection.worth)
        age_s = asyncio.get_running_loop().time() - dropped.accepted_s
        if dropped.worth == 1 and age_s < GRACE_S:
            await asyncio.sleep(min(GRACE_S - age_s, _RETRY_S))
            return  # it may have become a viewer's
        dropped.transport.abort()
        await asyncio.sleep(0)  # the event loop closes the socket

    def _make_protocol(self) -> OneRequest:
        return OneRequest(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


class OneRequest(H11Protocol):
    """An HTTP connection with one request, or the upgrade to a WebSocket, in limited time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to the WebSocket protocol, which has its own time limits."""
        if not _is_websocket_handshake(event):
            self.send_400_response("malformed WebSocket handshake")
            return
        self._deadline.cancel()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, _msg: str) -> None:
        """Answer with the same headers as every other answer."""
        if self.cycle is None:  # nothing has been answered yet
            self.transport.write(_BAD_REQUEST)
        self.transport.close()


def one_answer(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that each answer ends its connection.

    Requests with both Content-Length and Transfer-Encoding are refused, because a proxy may
    disagree about where they end.
    """

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            refusal = PlainTextResponse("400: two lengths of one request", 400)
            await refusal(scope, receive, send_and_close)
            return
        await app(scope, receive, send_and_close)

    return call


def _is_websocket_handshake(event: h11.Request) -> bool:
    headers: dict[bytes, Any] = dict(event.headers)
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return False
    return (
        event.method == b"GET"
        and event.http_version == b"1.1"
        and len(event.headers) <= MAX_HEADERS
        and headers.get(b"sec-websocket-version") == b"13"
        and len(key) == 16
        and headers.get(b"content-length", b"0") == b"0"
        and b"transfer-encoding" not in headers
    )


def _max_connections() -> int:
    """Return the maximum that leaves three quarters of the process's descriptors to the loop."""
    try:
        import resource
    except ImportError:  # not a Unix system
        return MAX_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, limit // 4)
