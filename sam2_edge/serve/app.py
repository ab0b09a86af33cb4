"""The web application: the page, its WebSocket, mask downloads and metrics."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import COOKIE, HEADERS, Access
from sam2_edge.serve.viewer import TRY_AGAIN_LATER, Viewer

MAX_VIEWERS = 32
"""Viewers of one stream; several share `MAX_ALL_VIEWERS`."""

MAX_ALL_VIEWERS, MIN_VIEWERS = 128, 4
"""Viewers of several streams together, and of each at least: a page takes one of each stream."""

_ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "connection", "input", "panel", "picture", "streams", "view")
    },
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All served files, which are read at startup so that no request path reaches the file system."""

_log = logging.getLogger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]


def make_app(hubs: Sequence[Hub], access: Access, metrics: LoopMetrics) -> Starlette:
    """Create the application for the hubs of one or several loops; the first is the default."""
    site = _Site(hubs, access, metrics)
    folder = files("sam2_edge.serve") / "assets"
    routes: list[Route | WebSocketRoute] = [
        Route(path, site.guarded(_asset((folder / name).read_bytes(), kind)))
        for path, (name, kind) in _ASSETS.items()
    ]
    routes += [
        Route("/masks.zip", site.guarded(site.masks)),
        Route("/metrics", site.guarded(site.prometheus)),
        Route("/healthz", _healthz),
        Route("/{rest:path}", _not_found),
        WebSocketRoute("/ws", site.viewer),
        WebSocketRoute("/{rest:path}", _no_socket),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for hub in hubs:
            hub.attach()
        yield

    return Starlette(routes=routes, lifespan=lifespan)


@dataclass(frozen=True, slots=True)
class _Site:
    """The handlers and their shared state."""

    hubs: Sequence[Hub]
    access: Access
    metrics: LoopMetrics

    def chosen(self, connection: HTTPConnection) -> Hub | None:
        """Return the hub that `?stream=NAME` names, or the first; None if there is none."""
        if "stream" not in connection.query_params:
            return self.hubs[0]
        name = connection.query_params["stream"]
        return next((hub for hub in self.hubs if hub.name == name), None)

    @property
    def max_viewers(self) -> int:
        """Viewers of each stream."""
        return min(MAX_VIEWERS, max(MIN_VIEWERS, MAX_ALL_VIEWERS // len(self.hubs)))

    def guarded(self, handler: _Handler) -> _Handler:
        """Wrap a handler in access control; a token in the URL becomes a cookie."""

        async def handle(request: Request) -> Response:
            if not self.access.is_authorized(request):
                return PlainTextResponse(
                    "401: open the URL that sam2-edge serve printed, with its token", 401
                )
            if self.access.token is None or "token" not in request.query_params:
                return await handler(request)
            # Relative, since a proxy may show the page under a path of its own; so is the cookie's
            # path, which is that of the page by default.
            page = request.scope["path"].rpartition("/")[2]
            response = RedirectResponse(f"./{page}", 303)
            if self.access.is_authorized_by_url(request):
                response.set_cookie(
                    COOKIE,
                    self.access.token,
                    path=None,
                    httponly=True,
                    samesite="strict",
                    secure=self.access.is_encrypted(request),
                )
            return response

        return handle

    async def masks(self, request: Request) -> Response:
        """Return the latest frame of a stream with its masks as a ZIP archive."""
        hub = self.chosen(request)
        if hub is None:
            return PlainTextResponse("404: no such stream", 404)
        if hub.latest is None:
            return PlainTextResponse("404: there is no frame yet", 404)
        shown, packed = await hub.masks.newest()
        stream = "" if hub.name is None else f"{hub.name}-"
        name = f"masks-{stream}{shown.frame.index:08d}.zip"
        return Response(
            packed,
            media_type="application/zip",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def prometheus(self, _: Request) -> Response:
        """Return the metrics of all loops."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def viewer(self, socket: WebSocket) -> None:
        """Serve one viewer until either side closes the connection."""
        if not self.access.is_authorized(socket):
            await _refuse(socket, "401: a WebSocket needs the token too", 401)
            return
        if not self.access.is_same_origin(socket):
            _log.warning(
                "a page of %.100r was refused; if it is yours, pass its address to --allow-origin",
                socket.headers["origin"],
            )
            await _refuse(socket, "403: a page of this origin may not connect", 403)
            return
        hub = self.chosen(socket)
        if hub is None:
            await _refuse(socket, "404: no such stream", 404)
            return
        await socket.accept()
        if hub.viewers >= self.max_viewers:
            await socket.close(TRY_AGAIN_LATER)
            return
        await Viewer(socket, hub).run()


def _asset(content: bytes, kind: str) -> _Handler:
    async def handle(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return handle


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _not_found(_: Request) -> Response:
    return PlainTextResponse("404: no such page", 404)


async def _no_socket(socket: WebSocket) -> None:
    await _refuse(socket, "404: no such page", 404)


async def _refuse(socket: WebSocket, text: str, status: int) -> None:
    await socket.send_denial_response(PlainTextResponse(text, status, headers=HEADERS))
