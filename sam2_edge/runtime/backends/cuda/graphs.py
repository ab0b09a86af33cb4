"""Repeated runs on the same tensors at the same addresses, as one launch of a CUDA graph."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.driver import bindings, checked

WARM_RUNS = 2
"""Runs at the same addresses before a capture: the first one of a shape may compile or allocate."""

MAX_GRAPHS = 16
"""Graphs kept per engine."""

MAX_FAILURES = 3
"""Failed captures after which no more are tried."""

_log = logging.getLogger(__name__)


class CudaGraphs:
    """Captured launches of one engine on one stream, for its latest shapes.

    An execution context holds the state of its latest shapes, so graphs of other shapes are
    dropped: while shapes change from run to run, nothing is captured.
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
        """Run `enqueue`, or launch its captured graph.

        A launch depends on shapes and addresses alone; a run is captured once it has repeated with
        the same ones.
        """
        if shapes != self._shapes:
            self._forget()
            self._shapes = shapes
        graph = self._graphs.get(addresses)
        if graph is not None:
            checked(self._cuda.cudaGraphLaunch(graph, self._stream), f"running {self._what}")
            return
        enqueue()
        if len(self._runs) > 4 * MAX_GRAPHS:
            self._runs.clear()  # outdated addresses
        self._runs[addresses] = self._runs.get(addresses, 0) + 1
        wanted = self._runs[addresses] > WARM_RUNS and len(self._graphs) < MAX_GRAPHS
        if wanted and self._failures < MAX_FAILURES:
            self._capture(addresses, enqueue)

    def _forget(self) -> None:
        self._runs.clear()
        if self._graphs:
            _destroy(self._cuda, self._stream, self._graphs)

    def _capture(self, addresses: Hashable, enqueue: Callable[[], None]) -> None:
        """Record one run, right after a plain one of the same shapes."""
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            checked(cuda.cudaStreamBeginCapture(self._stream, mode), "starting a capture")
            try:
                enqueue()
            finally:
                captured = cuda.cudaStreamEndCapture(self._stream)
            graph = checked(captured, "ending a capture")
            made = checked(cuda.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
            checked(cuda.cudaGraphDestroy(graph), "freeing a CUDA graph")
            self._graphs[addresses] = made
        except BackendError as error:
            self._failures += 1
            if self._failures == MAX_FAILURES:
                _log.warning("%s runs without a CUDA graph: %s", self._what, error)


def _destroy(cuda: Any, stream: int, graphs: dict[Hashable, Any]) -> None:
    """Free graphs once they have run. Errors are ignored: nothing can be done about them."""
    cuda.cudaStreamSynchronize(stream)
    for graph in graphs.values():
        cuda.cudaGraphExecDestroy(graph)
    graphs.clear()
