"""The server in a thread of its own, beside the loop."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import uvicorn
from starlette.applications import Starlette

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.serve.messages import MAX_BYTES

_START_S = 10.0


@dataclass(slots=True)
class Server:
    """Serves an application from `with` to its end.

    Raises Sam2EdgeError when the address cannot be listened on.
    """

    app: Starlette
    host: str
    port: int
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None
    bound_port: int = 0

    def __enter__(self) -> Server:
        listening = _listen(self.host, self.port)
        self.bound_port = listening.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            ws_max_size=2 * MAX_BYTES,
            ws_max_queue=8,
            ws_per_message_deflate=False,  # JPEG and runs are small as they are
            timeout_graceful_shutdown=2,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="sam2_edge server"
        )
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(timeout=_START_S)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        raise Sam2EdgeError(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port"
        ) from error
    return made
