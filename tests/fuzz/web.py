"""Targets of the web server: commands, the application, and bytes on its port."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.errors import SourceError
from sam2_edge.runtime.prompts import Prompt, model_prompt
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.app import make_app
from sam2_edge.serve.commands import PromptCommand, parse_command
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import make_access
from sam2_edge.serve.server import run_server
from tests.fuzz import seeds
from tests.fuzz.target import Target

TOKEN = "a-token-of-some-length"  # noqa: S105
ANSWER_S = 10.0


def command(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """A viewer's message, down to the tracker's check of its prompt."""
    parsed = parse_command(data.decode("utf-8", "replace"))
    if isinstance(parsed, PromptCommand):
        prompt = Prompt(parsed.object, parsed.points, parsed.labels, parsed.box)
        model_prompt(prompt, (seeds.HEIGHT, seeds.WIDTH), 64)


def application(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """A request or a connection to the application, without the server."""
    try:
        request = json.loads(data)
        scope = _scope(request)
        messages = [str(text) for text in request.get("messages", ())]
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return  # not a request: the server cannot pass it on
    site = _site()
    site.loop.run_until_complete(asyncio.wait_for(_connect(site.app, scope, messages), ANSWER_S))


def server(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Bytes on the server's port: it answers or closes in time, and reports no fault."""
    port, faults = _server()
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as client:
        # Closed by a reset, so that ports are free again at once.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except (ConnectionError, BrokenPipeError):
            pass
    if faults:
        raise AssertionError(faults.pop())


WEB = {
    "command": Target(command, seeds.commands, is_json=True),
    "application": Target(application, lambda: seeds.requests(TOKEN), is_json=True),
    "server": Target(server, lambda: seeds.raw_requests(TOKEN), most=20_000),
}


class _Site:
    """The application beside a loop that has ended, so that no command is kept."""

    def __init__(self) -> None:
        def no_camera() -> Any:
            raise SourceError("no camera")

        loop = CameraLoop(no_camera, VideoTracker("nano", threads=1))
        loop.close()
        list(loop)
        stats = LoopStats(loop)
        self.app = make_app([Hub(loop, stats)], make_access("::", TOKEN, ()), LoopMetrics(stats))
        self.loop = asyncio.new_event_loop()


@cache
def _site() -> _Site:
    return _Site()


def _scope(request: Any) -> dict[str, Any]:
    path = str(request["path"]).encode("utf-8", "replace")
    scope = {
        "type": "websocket" if "messages" in request else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "path": path.decode(),
        "raw_path": path,
        "root_path": "",
        "query_string": str(request["query"]).encode("utf-8", "replace"),
        "headers": [
            (str(name).lower().encode("latin-1"), str(value).encode("latin-1"))
            for name, value in request["headers"]
        ],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8080),
    }
    if scope["type"] == "websocket":
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        return {**scope, "scheme": "ws", "subprotocols": [], "extensions": extensions}
    return {**scope, "scheme": "http", "method": str(request["method"])}


async def _connect(app: Starlette, scope: dict[str, Any], messages: list[str]) -> None:
    kind = scope["type"]
    if kind == "http":
        waiting = [{"type": "http.request", "body": b"", "more_body": False}]
    else:
        texts = ({"type": "websocket.receive", "text": text} for text in messages)
        waiting = [{"type": "websocket.connect"}, *texts]
    waiting.reverse()

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": f"{kind}.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] < 500

    await app(scope, receive, send)


running = ExitStack()
"""The server, until it is closed."""


@cache
def _server() -> tuple[int, list[str]]:
    """Start the server; returns its port and the list of the faults that it logs."""
    faults: list[str] = []

    class Faults(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                faults.append(logging.Formatter().format(record))

    port = running.enter_context(run_server(_site().app, "127.0.0.1", 0))
    running.callback(_server.cache_clear)
    for name in ("uvicorn.error", "asyncio", "websockets"):
        logger = logging.getLogger(name)
        logger.filters.clear()  # they limit the rate of messages
        logger.addHandler(handler := Faults(logging.ERROR))
        running.callback(logger.removeHandler, handler)
    return port, faults
