"""Runs that repeat with the same tensors at the same addresses, as one launch of a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from sam2_edge.errors import BackendError
from sam2_edge.runtime.cuda import bindings, checked

WARM_RUNS = 2
"""Runs with a key before it is captured: the first one of a shape may still compile or allocate."""

LIMIT = 16
"""Graphs kept for one engine: shapes change when objects come and go."""

_log = logging.getLogger(__name__)


class CudaGraphs:
    """Captured launches of one engine on one stream, by what they read and write."""

    def __init__(self, stream: int, what: str) -> None:
        self._cuda = bindings()
        self._stream, self._what = stream, what
        self._runs: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, Any] = {}
        self._usable = True

    def run(self, key: Hashable, enqueue: Callable[[], None]) -> None:
        """Start what `enqueue` starts: by a captured graph if `key` has been seen often enough.

        key: everything that the launch depends on, addresses and shapes.
        """
        graph = self._graphs.get(key)
        if graph is not None:
            checked(self._cuda.cudaGraphLaunch(graph, self._stream), f"running {self._what}")
            return
        if len(self._runs) > 4 * LIMIT:
            self._runs.clear()  # shapes of the past
        self._runs[key] = self._runs.get(key, 0) + 1
        if self._usable and self._runs[key] > WARM_RUNS:
            self._forget_oldest()
            self._capture(key, enqueue)
            graph = self._graphs.get(key)
        if graph is None:
            enqueue()
        else:
            checked(self._cuda.cudaGraphLaunch(graph, self._stream), f"running {self._what}")

    def _forget_oldest(self) -> None:
        if len(self._graphs) == LIMIT:
            checked(self._cuda.cudaStreamSynchronize(self._stream), "waiting for the GPU")
            oldest = self._graphs.pop(next(iter(self._graphs)))
            checked(self._cuda.cudaGraphExecDestroy(oldest), "freeing a CUDA graph")

    def _capture(self, key: Hashable, enqueue: Callable[[], None]) -> None:
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            checked(cuda.cudaStreamBeginCapture(self._stream, mode), "beginning a capture")
            try:
                enqueue()
            finally:
                captured = cuda.cudaStreamEndCapture(self._stream)
            graph = checked(captured, "ending a capture")
            self._graphs[key] = checked(cuda.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
            checked(cuda.cudaGraphDestroy(graph), "freeing a CUDA graph")
        except BackendError as error:
            self._usable = False
            _log.warning("%s runs without a CUDA graph: %s", self._what, error)
