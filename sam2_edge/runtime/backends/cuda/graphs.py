"""CUDA graphs: runs that repeat with the same shapes and addresses become single launches."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.driver import bindings, checked

WARM_RUNS = 2
"""Runs at the same addresses before a capture, since the first run of a shape may compile kernels
or allocate memory."""

MAX_GRAPHS = 16
"""Graphs kept per engine."""

MAX_FAILURES = 3
"""Failed captures after which no more are attempted."""

_log = logging.getLogger(__name__)


class CudaGraphs:
    """CUDA graphs of one engine on one stream, for its latest shapes.

    An execution context only holds the state for its latest shapes, so a change of shapes drops
    all graphs.
    """

    def __init__(self, stream: int, what: str) -> None:
        self._cuda = bindings()
        self._stream, self._what = stream, what
        self._shapes: Hashable = None
        self._runs: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, Any] = {}
        self._failures = 0
        end = weakref.finalize(self, _destroy, self._cuda, stream, self._graphs)
        end.atexit = False  # the process frees everything at exit

    def run(self, shapes: Hashable, addresses: Hashable, enqueue: Callable[[], None]) -> None:
        """Call `enqueue`, or launch its graph if one has been captured.

        A run is captured once it has repeated with the same shapes and addresses.
        """
        if shapes != self._shapes:
            self._shapes = shapes
            self._runs.clear()
            if self._graphs:
                _destroy(self._cuda, self._stream, self._graphs)
        graph = self._graphs.get(addresses)
        if graph is not None:
            checked(self._cuda.cudaGraphLaunch(graph, self._stream), f"running {self._what}")
            return
        enqueue()
        if len(self._runs) > 4 * MAX_GRAPHS:
            self._runs.clear()  # outdated addresses
        self._runs[addresses] = self._runs.get(addresses, 0) + 1
        repeated = self._runs[addresses] > WARM_RUNS and len(self._graphs) < MAX_GRAPHS
        if repeated and self._failures < MAX_FAILURES:
            self._capture(addresses, enqueue)

    def _capture(self, addresses: Hashable, enqueue: Callable[[], None]) -> None:
        """Capture one run; must directly follow a regular run with the same shapes."""
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            checked(cuda.cudaStreamBeginCapture(self._stream, mode), "starting a capture")
            try:
                enqueue()
            finally:
                captured = cuda.cudaStreamEndCapture(self._stream)
            graph = checked(captured, "ending a capture")
            executable = checked(cuda.cudaGraphInstantiate(graph, 0), "creating a CUDA graph")
            checked(cuda.cudaGraphDestroy(graph), "freeing a CUDA graph")
            self._graphs[addresses] = executable
        except BackendError as error:
            self._failures += 1
            if self._failures == MAX_FAILURES:
                _log.warning("%s runs without a CUDA graph: %s", self._what, error)


def _destroy(cuda: Any, stream: int, graphs: dict[Hashable, Any]) -> None:
    """Free graphs once they have finished, ignoring errors."""
    cuda.cudaStreamSynchronize(stream)
    for graph in graphs.values():
        cuda.cudaGraphExecDestroy(graph)
    graphs.clear()
