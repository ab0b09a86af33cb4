"""A server beside a loop, and its viewers."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.app import make_app
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from sam2_edge.synthetic.camera import SyntheticCamera
from tests.helpers.clock import wait_until

TOKEN = "a-token-of-some-length"  # noqa: S105
TIMEOUT_S = 30.0


class Site:
    """A loop on the synthetic camera, and its server."""

    def __init__(self, access: Access, **loop_options: Any) -> None:
        self.camera = SyntheticCamera(3, size=256, objects=2, paced=True)
        tracker = VideoTracker("nano", threads=1, remember_absent=False)
        self.loop = CameraLoop(lambda: self.camera, tracker, **loop_options)
        stats = LoopStats(self.loop)
        self.hub, self.metrics = Hub(self.loop, stats), LoopMetrics(stats)
        self.port = 0
        self._app = make_app([self.hub], access, self.metrics)
        self._server = ExitStack()
        self._thread = threading.Thread(target=self._run)
        self._stats = stats

    def _run(self) -> None:
        for tracked in self.loop:
            self._stats.observe(tracked)
            self.metrics.observe(tracked)
            self.hub.publish(tracked)

    def __enter__(self) -> Site:
        self.start_server()
        self._thread.start()
        wait_until(lambda: self.hub.latest is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_loop()
        self.stop_server()

    def start_server(self) -> None:
        """Listen on a free port, or on the same one as before."""
        self.port = self._server.enter_context(run_server(self._app, "127.0.0.1", self.port))

    def stop_server(self) -> None:
        self._server.close()

    def end_loop(self) -> None:
        self.loop.close()
        self._thread.join()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def socket(self, **options: Any) -> AbstractContextManager[ClientConnection]:
        address = f"ws://127.0.0.1:{self.port}/ws"
        return connect(address, max_size=None, compression=None, close_timeout=0.5, **options)


def frame_of(data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.uint8]]:
    """Decode the header, mask and image of a message."""
    (size,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + size])
    end = 4 + size + 4 * header["runs"]
    packed = np.frombuffer(data[4 + size : end], "<u4")
    flat = np.repeat((packed >> 24).astype(np.uint8), packed & 0xFFFFFF)
    picture = cv2.imdecode(np.frombuffer(data[end:], np.uint8), cv2.IMREAD_COLOR)
    return header, flat.reshape(header["height"], header["width"]), picture


def messages(socket: ClientConnection) -> Iterator[str | bytes]:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        yield socket.recv(timeout=TIMEOUT_S)


def next_frame(
    socket: ClientConnection, until: Callable[[dict[str, Any]], bool] = lambda _: True
) -> tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.uint8]]:
    """The next frame whose header satisfies a condition."""
    for data in messages(socket):
        if isinstance(data, bytes):
            found = frame_of(data)
            if until(found[0]):
                return found
    raise AssertionError("no such frame came")


def ask(socket: ClientConnection, **message: Any) -> dict[str, Any]:
    """Send a message and wait for its answer."""
    socket.send(json.dumps({"id": 7, **message}))
    for data in messages(socket):
        if isinstance(data, str) and json.loads(data)["type"] != "alive":
            return json.loads(data)
    raise AssertionError("no answer came")
