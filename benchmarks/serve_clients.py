"""Clients that watch or attack `sam2-edge serve`, one phase of `serve_load.py` each.

    python benchmarks/serve_clients.py PHASE --port N --seconds S

Prints what happened as a JSON object of counts. All traffic goes to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

TOKEN = "token-of-this-benchmark"
NICENESS = 10
MAX_FILES = 8192

CONCURRENT = 32
"""Connections that an attacker has at a time, where the number is not the attack."""

PATHS = (
    *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/assets/../app.py"),
    *("/\\..\\windows", "/%00", "/app.js/../../hub.py", "/.git/config", "/%c0%ae%c0%ae/x"),
)
GET = b"GET / HTTP/1.1\r\n"
MALFORMED = (
    *(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"\0" * 64 + b"\r\n\r\n"),
    *(GET + b"\r\n", GET + b"Host: x\r\nA b: c\r\n\r\n", GET + b"X: " + b"x" * 10_000),
    GET + b"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


class Client:
    """The attacking side: one phase against the server on a port, and a count of what happened."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.end_s = port, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether the phase has ended."""
        return time.monotonic() >= self.end_s

    async def until_over(self, attack: Callable[[], Awaitable[None]], *, count: int) -> None:
        """Repeat an attack, `count` at a time, until the phase ends."""

        async def once() -> None:
            try:
                await asyncio.wait_for(attack(), 30)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.counts[type(error).__name__] += 1

        async def repeat() -> None:
            while not self.is_over:
                await once()

        await asyncio.gather(*(repeat() for _ in range(count)))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)

    async def request(self, data: bytes) -> None:
        """Send bytes on a new connection, read the answer, and count its status."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            answer = await reader.read()
        finally:
            writer.transport.abort()
        self.counts[(answer.split(b" ", 2)[1:2] or [b"closed"])[0].decode()] += 1

    async def get(self, path: str, *headers: str) -> None:
        """Request a path."""
        lines = "".join(f"{header}\r\n" for header in ("Host: localhost", *headers))
        await self.request(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())

    async def socket(
        self, *headers: str, token: str = TOKEN
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a WebSocket, and count the status of the answer."""
        reader, writer = await self.connect()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            *("Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
            *("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"),
            *(f"Authorization: Bearer {token}", *headers),
        ]
        writer.write(("GET /ws HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        self.counts[answer.split(b" ", 2)[1].decode()] += 1
        return reader, writer

    async def receive(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        """Receive one frame of a WebSocket: opcode and payload."""
        first, size = await reader.readexactly(2)
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        return first & 15, await reader.readexactly(size)

    async def watch(self, reader: asyncio.StreamReader) -> None:
        """Count the frames and answers of a WebSocket until it is closed or the phase ends."""
        while not self.is_over:
            try:
                code, data = await asyncio.wait_for(self.receive(reader), 1)
            except asyncio.TimeoutError:
                continue
            if code == 8:
                self.counts[f"close {int.from_bytes(data[:2], 'big')}"] += 1
                return
            kind = "frame" if code == 2 else json.loads(data)["type"] if code == 1 else "control"
            self.counts[f"{kind}s"] += 1

    async def viewer(self) -> None:
        """Watch like a browser, which waits before it connects again."""
        reader, writer = await self.socket()
        try:
            await self.watch(reader)
            await asyncio.sleep(min(2.0, max(0.0, self.end_s - time.monotonic())))
        finally:
            writer.transport.abort()

    async def slow_reader(self) -> None:
        """Connect and read nothing until the phase ends."""
        _, writer = await self.socket()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(max(0.0, self.end_s - time.monotonic()))
        writer.transport.abort()

    async def opened_and_dropped(self) -> None:
        """Open a connection and reset it."""
        if self.counts["opened"] >= 10_000:
            await asyncio.sleep(0.1)
            return
        _, writer = await self.connect()
        writer.transport.abort()
        self.counts["opened"] += 1

    async def idle(self) -> None:
        """Hold a connection that sends nothing, or one byte."""
        reader, writer = await self.connect()
        writer.write(b"G" * (self.counts["opened"] % 2))
        self.counts["opened"] += 1
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(), max(0.1, self.end_s - time.monotonic()))
            self.counts["dropped"] += 1
        writer.transport.abort()

    async def bad_messages(self) -> None:
        """Send what is too long, unmasked, not text, not JSON or not a command."""
        for message in (
            *(frame(b"x" * 17_000), frame(b"x" * 2**20), frame(b"{}")[:1] + b"\x02{}"),
            *(frame(b"\xff\xfe"), frame(b"{}", 2), frame(b"x" * 200, 9), b"\xff\xff\xff\xff"),
            frame(b"nonsense") + frame(b'{"type": "shell", "id": 1}') * 60,
        ):
            reader, writer = await self.socket()
            writer.write(message)
            with suppress(OSError, asyncio.IncompleteReadError):
                await asyncio.wait_for(self.watch(reader), 5)
            writer.transport.abort()

    async def commands(self, *texts: str) -> None:
        """Send commands at nearly the rate that a viewer may, and read the answers."""
        reader, writer = await self.socket()
        reading = asyncio.create_task(self.watch(reader))
        number = 0
        while not (self.is_over or reading.done()):
            writer.write(frame(texts[number % len(texts)].encode()))
            number += 1
            await asyncio.sleep(1 / 19)
        await reading
        writer.transport.abort()

    async def ask_health(self) -> None:
        """Request `/healthz`; raise OSError unless the answer is 200."""
        reader, writer = await self.connect()
        try:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if b" 200 " not in await reader.readline():
                raise OSError("no answer")
        finally:
            writer.transport.abort()

    async def check_health(self) -> None:
        """Ask whether the server is well, twice a second, and remember the longest wait."""
        while not self.is_over:
            began_s = time.monotonic()
            try:
                await asyncio.wait_for(self.ask_health(), 30)
                self.counts["healthy"] += 1
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                self.counts["unhealthy"] += 1
            waited_ms = round(1e3 * (time.monotonic() - began_s))
            self.counts["health_max_ms"] = max(self.counts["health_max_ms"], waited_ms)
            await asyncio.sleep(0.5)


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a masked frame of a WebSocket; the mask is zero."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def prompts() -> list[str]:
    """Return prompts of one object, since each more takes time of its own, and their undoing."""
    return [
        json.dumps({"id": n, "type": "prompt", "object": 1, "points": [[60 + 9 * n, 99]]})
        for n in range(16)
    ] + ['{"id": 1, "type": "reset"}', '{"id": 1, "type": "name", "object": 1, "name": "x"}']


PHASES: dict[str, tuple[int, Callable[[Client], Awaitable[None]], set[str]]] = {
    "viewers-1": (1, Client.viewer, {"101", "frames"}),
    "viewers-20": (20, Client.viewer, {"101", "frames"}),
    "viewers-200": (200, Client.viewer, {"101", "frames", "close 1013"}),
    "slow-readers": (16, Client.slow_reader, {"101"}),
    "opened-and-dropped": (CONCURRENT, Client.opened_and_dropped, {"opened"}),
    "idle": (1064, Client.idle, {"opened", "dropped"}),
    "bad-messages": (4, Client.bad_messages, {"101", "close 1008", "close 1009", "close 1002"}),
    "wrong-tokens": (CONCURRENT, lambda c: c.get(f"/?token=x{'y' * 20}"), {"401"}),
    "paths": (CONCURRENT, lambda c: c.get(PATHS[c.counts["404"] % len(PATHS)]), {"404"}),
    "other-origins": (
        CONCURRENT,
        lambda c: close(c.socket("Origin: http://evil.example")),
        {"403"},
    ),
    "malformed": (
        CONCURRENT,
        lambda c: c.request(MALFORMED[c.counts["400"] % len(MALFORMED)]),
        {"400"},
    ),
    "prompts": (16, lambda c: c.commands(*prompts()), {"101", "dones", "errors"}),
}
"""Clients at a time, what each does, and the outcomes that must occur."""

ALLOWED = {
    *("101", "frames", "alives", "dones", "errors", "controls", "opened", "dropped", "close 1013"),
    *("close 1002", "close 1003", "close 1007", "close 1008", "close 1009", "closed"),
    *("healthy", "health_max_ms", "ConnectionResetError", "IncompleteReadError"),
}
"""Outcomes that may occur in any phase; the others only where they must."""


async def close(opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    """Open a WebSocket and drop it."""
    _, writer = await opening
    writer.transport.abort()


def main() -> None:
    """Run one phase and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    os.nice(NICENESS)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_FILES), most))
    count, act, _ = PHASES[arguments.phase]

    async def run() -> Counter[str]:
        client = Client(arguments.port, arguments.seconds)
        await asyncio.gather(
            client.check_health(), client.until_over(lambda: act(client), count=count)
        )
        return client.counts

    print(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
