"""The web application: the page, its WebSocket, masks to download, metrics."""

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
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.messages import MAX_BYTES, parse
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
"""Every file that is served, read at the start: no path of a request reaches the file system."""

_KEEP_ALIVE_S = 5.0
_GONE_S = 20.0
_POLICY, _TOO_MANY = 1008, 1013
"""WebSocket close codes (RFC 6455)."""

_log = logging.getLogger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Site:
    """What the handlers share."""

    hub: Hub
    access: Access
    metrics: LoopMetrics


def make_app(hub: Hub, access: Access, metrics: LoopMetrics) -> Starlette:
    """The application for one loop."""
    site = _Site(hub, access, metrics)
    folder = files("sam2_edge.serve") / "assets"
    routes: list[Route | WebSocketRoute] = [
        Route(path, _guarded(site, _asset((folder / name).read_bytes(), kind)))
        for path, (name, kind) in _ASSETS.items()
    ]
    routes += [
        Route("/masks.png", _guarded(site, lambda _: _masks(site))),
        Route("/metrics", _guarded(site, lambda _: _metrics(site))),
        Route("/healthz", _healthz),
        Route("/{rest:path}", _nowhere),
        WebSocketRoute("/ws", lambda socket: _talk(site, socket)),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.attach()
        yield

    return Starlette(routes=routes, lifespan=lifespan)


def _guarded(site: _Site, handler: _Handler) -> _Handler:
    """A handler behind the access rules; a token in the address becomes a cookie."""

    async def handle(request: Request) -> Response:
        if not site.access.is_authorized(request):
            response: Response = PlainTextResponse(
                "401: open the address that sam2-edge serve printed, with its token", 401
            )
        elif "token" in request.query_params:
            response = RedirectResponse(request.url.path, 303)
            response.set_cookie(
                COOKIE,
                request.query_params["token"],
                httponly=True,
                samesite="strict",
                secure=site.access.is_encrypted(request),
            )
        else:
            response = await handler(request)
        response.headers.update(HEADERS)
        return response

    return handle


def _asset(content: bytes, kind: str) -> _Handler:
    async def handle(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return handle


async def _masks(site: _Site) -> Response:
    """The masks of the latest frame as a PNG of object ids."""
    latest = site.hub.latest
    if latest is None:
        return PlainTextResponse("404: there is no frame yet", 404)
    indexed = await run_in_threadpool(latest.result.index_mask)
    name = f"masks-{latest.frame.index:08d}.png"
    return Response(
        cv2.imencode(".png", indexed)[1].tobytes(),
        media_type="image/png",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


async def _metrics(site: _Site) -> Response:
    return Response(site.metrics.text(), media_type="text/plain; version=0.0.4")


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok", headers=HEADERS)


async def _nowhere(_: Request) -> Response:
    return PlainTextResponse("404: there is no such page", 404, headers=HEADERS)


async def _talk(site: _Site, socket: WebSocket) -> None:
    """One viewer, from its coming to its going."""
    if not (site.access.is_authorized(socket) and site.access.is_own_page(socket)):
        await socket.close(_POLICY)
        return
    await socket.accept()
    if site.hub.viewers >= MAX_VIEWERS:
        await socket.close(_TOO_MANY)
        return
    site.hub.viewers += 1
    tasks = [asyncio.create_task(work(site, socket)) for work in (_show, _listen)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        site.hub.viewers -= 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(site: _Site, socket: WebSocket) -> None:
    """Send results, each once the one before has gone out; now and then a sign of life."""
    seen = None
    try:
        while True:
            latest = await site.hub.next_message(seen, _KEEP_ALIVE_S)
            if latest is None:
                await socket.send_text(json.dumps({"type": "alive", "ended": site.hub.ended}))
                continue
            seen = latest
            data = await site.hub.encoded(latest)
            # A viewer that takes nothing for so long has gone without a word.
            await asyncio.wait_for(socket.send_bytes(data), _GONE_S)
    except (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
        return


async def _listen(site: _Site, socket: WebSocket) -> None:
    """Obey messages until the viewer goes, or asks for too much."""
    allowance, answering = TokenBucket(), set[asyncio.Task[None]]()
    while True:
        try:
            text = await socket.receive_text()
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes, which are no message of ours
            return
        if len(text) > MAX_BYTES or not allowance.take():
            await socket.close(_POLICY)
            return
        task = asyncio.create_task(_answer(site, socket, text))
        answering.add(task)
        task.add_done_callback(answering.discard)


async def _answer(site: _Site, socket: WebSocket, text: str) -> None:
    """Obey one message and say how it went."""
    answer: dict[str, Any] = {"type": "done"}
    try:
        command = parse(text)
        answer["id"] = command.id
        waiting = site.hub.obey(command)
        if waiting is not None:
            await asyncio.wrap_future(waiting)
    except Sam2EdgeError as error:
        answer |= {"type": "error", "message": str(error)}
    try:
        await socket.send_text(json.dumps(answer))
    except (WebSocketDisconnect, RuntimeError):
        _log.info("a viewer left before it was answered")
