"""A reverse proxy that shows a server under a path prefix."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

PREFIX = "/robots/7/"


@contextmanager
def prefix_proxy(port: int) -> Iterator[str]:
    """Show the server on a port under `PREFIX`, which is removed; yield the URL.

    One request per connection, as the server wants it, makes a proxy of bytes sufficient.
    """

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            method, path, rest = self.rfile.readline().decode().split(" ", 2)
            if not path.startswith(PREFIX):
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                server.sendall(f"{method} /{path.removeprefix(PREFIX)} {rest}".encode())
                back = threading.Thread(target=_copy, args=(server, self.connection))
                back.start()
                while data := self.rfile.read1(65536):
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
                back.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads, proxy.block_on_close = True, False
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}{PREFIX}"
        proxy.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
