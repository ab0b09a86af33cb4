"""Runs the web server in a thread beside the loop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.serve.commands import MAX_BYTES

_TIMEOUT_S = 10.0


@contextmanager
def run_server(app: Starlette, host: str, port: int) -> Iterator[int]:
    """Serve an application in a thread until the block ends.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.

    Yields:
        The port in use.

    Raises:
        Sam2EdgeError: If the address is unavailable or the server does not start.
    """
    listening = _listen(host, port)
    bound_port = listening.getsockname()[1]
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=2 * MAX_BYTES,
        ws_max_queue=8,
        ws_per_message_deflate=False,  # JPEG and run lengths do not compress further
        timeout_graceful_shutdown=2,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="sam2_edge server"
    )
    thread.start()
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise Sam2EdgeError(f"the server on {host}:{bound_port} did not start; see the log")
            time.sleep(0.01)
        yield bound_port
    finally:
        server.should_exit = True
        thread.join(timeout=_TIMEOUT_S)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise Sam2EdgeError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    return listening
