"""Runs the web server in a thread beside the loop."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.applications import Starlette

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.serve.commands import MAX_BYTES
from sam2_edge.serve.connections import (
    BACKLOG,
    MAX_HEADER_BYTES,
    OneRequest,
    Server,
    one_answer,
)
from sam2_edge.serve.log_limit import LogLimit
from sam2_edge.serve.security import HEADERS

_TIMEOUT_S = 10.0

NICENESS = 5
"""Added to the niceness of the server's threads, so that tracking comes first on a busy machine."""

_UNACKNOWLEDGED_MS = 30_000
"""How long the kernel keeps data that a peer does not take before it ends the connection."""

_SILENT_S = 5
"""How long about the kernel keeps a connection that sends nothing before it is accepted at all."""

_LOGGERS = ("uvicorn.error", "asyncio", "sam2_edge.serve.app", "sam2_edge.serve.connections")
"""Loggers to which strangers can make the server write."""


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
        one_answer(app),
        http=OneRequest,
        loop="asyncio",
        headers=list(HEADERS.items()),
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        log_config=None,
        log_level="warning",
        access_log=False,  # it would log the token of a URL
        ws_max_size=2 * MAX_BYTES,
        ws_max_queue=8,
        ws_per_message_deflate=False,  # JPEG and run lengths do not compress further
        timeout_graceful_shutdown=2,
        server_header=False,
        proxy_headers=False,
    )
    limit = LogLimit()
    server = Server(config, listening)
    thread = threading.Thread(target=_run, args=(server,), name="sam2_edge server")
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(limit)
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
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(limit)


def _run(server: Server) -> None:
    """Serve in this thread; the threads that it starts inherit its priority."""
    if sys.platform == "linux":  # elsewhere priorities are of processes
        with suppress(OSError):
            thread_id = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, thread_id) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread_id, nice)
    server.run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # connections inherit the options
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT_S)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.settimeout(0)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        remedy = "choose another --port"
        if isinstance(error, (UnicodeError, socket.gaierror)) or (
            error.errno == errno.EADDRNOTAVAIL
        ):
            remedy = "give --host an address of this machine, or 0.0.0.0 for all of them"
        raise Sam2EdgeError(f"cannot listen on {host}:{port}: {reason}; {remedy}") from error
    return listening
