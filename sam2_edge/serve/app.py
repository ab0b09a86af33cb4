"""The web application: the page, its WebSocket, mask downloads and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import cv2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.serve.commands import MAX_BYTES, parse_command
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import COOKIE, HEADERS, Access, TokenBucket

MAX_VIEWERS = 16

_ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All served files, which are read at startup so that no request path reaches the file system."""

_KEEP_ALIVE_S = 5.0
_SEND_TIMEOUT_S = 20.0
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013
"""WebSocket close codes (RFC 6455)."""

_log = logging.getLogger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]


def make_app(hub: Hub, access: Access, metrics: LoopMetrics) -> Starlette:
    """Create the application for one loop."""
    site = _Site(hub, access, metrics)
    folder = files("sam2_edge.serve") / "assets"
    routes: list[Route | WebSocketRoute] = [
        Route(path, site.guarded(_asset((folder / name).read_bytes(), kind)))
        for path, (name, kind) in _ASSETS.items()
    ]
    routes += [
        Route("/masks.png", site.guarded(site.masks)),
        Route("/metrics", site.guarded(site.prometheus)),
        Route("/healthz", _healthz),
        Route("/{rest:path}", _not_found),
        WebSocketRoute("/ws", site.viewer),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.attach()
        yield

    return Starlette(routes=routes, lifespan=lifespan)


@dataclass(frozen=True, slots=True)
class _Site:
    """The handlers and their shared state."""

    hub: Hub
    access: Access
    metrics: LoopMetrics

    def guarded(self, handler: _Handler) -> _Handler:
        """Wrap a handler in access control; a token in the URL becomes a cookie."""

        async def handle(request: Request) -> Response:
            if not self.access.is_authorized(request):
                response: Response = PlainTextResponse(
                    "401: open the URL that sam2-edge serve printed, with its token", 401
                )
            elif "token" in request.query_params:
                response = RedirectResponse(request.url.path, 303)
                response.set_cookie(
                    COOKIE,
                    request.query_params["token"],
                    httponly=True,
                    samesite="strict",
                    secure=self.access.is_encrypted(request),
                )
            else:
                response = await handler(request)
            response.headers.update(HEADERS)
            return response

        return handle

    async def masks(self, _: Request) -> Response:
        """Return the masks of the latest frame as a PNG of object ids."""
        latest = self.hub.latest
        if latest is None:
            return PlainTextResponse("404: there is no frame yet", 404)
        indexed = await run_in_threadpool(latest.result.index_mask)
        name = f"masks-{latest.frame.index:08d}.png"
        return Response(
            cv2.imencode(".png", indexed)[1].tobytes(),
            media_type="image/png",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def prometheus(self, _: Request) -> Response:
        """Return the metrics of the loop."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def viewer(self, socket: WebSocket) -> None:
        """Serve one viewer until either side closes the connection."""
        if not (self.access.is_authorized(socket) and self.access.is_same_origin(socket)):
            await socket.close(_POLICY_VIOLATION)
            return
        await socket.accept()
        if self.hub.viewers >= MAX_VIEWERS:
            await socket.close(_TRY_AGAIN_LATER)
            return
        self.hub.viewers += 1
        tasks = [asyncio.create_task(work(socket)) for work in (self._send, self._receive)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hub.viewers -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, socket: WebSocket) -> None:
        """Send the latest results one by one, and keep-alive messages if there is none."""
        last = None
        try:
            while True:
                latest = await self.hub.next_result(last, _KEEP_ALIVE_S)
                if latest is None:
                    await socket.send_text(json.dumps({"type": "alive", "ended": self.hub.ended}))
                    continue
                last = latest
                data = await self.hub.encoded(latest)
                # A viewer that reads nothing for this long has left without closing.
                await asyncio.wait_for(socket.send_bytes(data), _SEND_TIMEOUT_S)
        except (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            return

    async def _receive(self, socket: WebSocket) -> None:
        """Execute commands until the viewer leaves or exceeds a limit."""
        bucket, tasks = TokenBucket(), set[asyncio.Task[None]]()
        while True:
            try:
                text = await socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
                return
            if len(text) > MAX_BYTES or not bucket.take():
                await socket.close(_POLICY_VIOLATION)
                return
            task = asyncio.create_task(self._answer(socket, text))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer(self, socket: WebSocket, text: str) -> None:
        """Execute one command and report its outcome."""
        answer: dict[str, Any] = {"type": "done"}
        try:
            command = parse_command(text)
            answer["id"] = command.id
            future = self.hub.execute(command)
            if future is not None:
                await asyncio.wrap_future(future)
        except Sam2EdgeError as error:
            answer |= {"type": "error", "message": str(error)}
        try:
            await socket.send_text(json.dumps(answer))
        except (WebSocketDisconnect, RuntimeError):
            _log.info("a viewer left before its command was answered")


def _asset(content: bytes, kind: str) -> _Handler:
    async def handle(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return handle


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok", headers=HEADERS)


async def _not_found(_: Request) -> Response:
    return PlainTextResponse("404: no such page", 404, headers=HEADERS)
