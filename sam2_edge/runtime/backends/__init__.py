"""Backends, and the one function that opens one for a bundle."""

from __future__ import annotations

from sam2_edge.bundle import Bundle
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.backends.onnxruntime import OnnxRuntimeCpu

__all__ = ["Backend", "Tensor", "open_backend"]


def open_backend(bundle: Bundle, *, threads: int | None = None) -> Backend:
    """Open the backend that a bundle's graphs are made for.

    threads: CPU threads within an operator; None lets the backend choose.

    Raises BackendError when it cannot be opened.
    """
    return OnnxRuntimeCpu(bundle, threads=threads)
