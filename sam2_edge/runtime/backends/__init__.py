"""Inference backends, and `open_backend`, which opens one for a bundle."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, get_args

from sam2_edge.errors import BackendError
from sam2_edge.extras import naming_the_extra
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.choices import BackendName

if TYPE_CHECKING:  # bundles need packages that `doctor` does without
    from sam2_edge.bundle import Bundle

__all__ = ["Backend", "BackendName", "OpenedName", "Tensor", "choose_backend", "open_backend"]

OpenedName = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]

_log = logging.getLogger(__name__)


def open_backend(
    bundle: Bundle, name: BackendName = "auto", *, threads: int | None = None
) -> Backend:
    """Open a backend for a bundle.

    Args:
        bundle: Bundle to run.
        name: Backend to use; there is no silent fallback to another one.
        threads: CPU threads per operator; None lets the backend choose.

    Raises:
        BackendError: If the backend cannot be opened or cannot run this bundle, or if an engine
            computes wrongly.
    """
    if name not in get_args(BackendName):
        known = ", ".join(get_args(BackendName))
        raise BackendError(f"there is no backend {name!r}; choose one of {known}")
    chosen: OpenedName = choose_backend(bundle) if name == "auto" else name
    # Each backend imports packages that the others do without.
    if chosen == "cpu":
        with naming_the_extra():
            from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
        return OnnxRuntimeCpu(bundle, threads=threads)
    if chosen == "cuda":
        with naming_the_extra():
            from sam2_edge.runtime.backends.ort_cuda import OnnxRuntimeCuda
        return OnnxRuntimeCuda(bundle)
    from sam2_edge.runtime.backends.engine_check import check_once
    from sam2_edge.runtime.backends.tensorrt import TensorRt

    backend = TensorRt(bundle, chosen)
    try:
        check_once(bundle, backend, device_info().name)
    except BaseException:
        backend.close()
        raise
    return backend


def choose_backend(bundle: Bundle) -> OpenedName:
    """Return the backend that `auto` selects for a bundle on this machine."""
    for entry in bundle.manifest.graphs.values():
        if entry.engine:
            return entry.engine.variant
    return "cuda" if _gpu_for_onnxruntime() else "cpu"


def _gpu_for_onnxruntime() -> bool:
    with naming_the_extra():
        import onnxruntime as ort

        # A package that was uninstalled over another leaves folders that import as nothing.
        from onnxruntime.capi import onnxruntime_pybind11_state  # noqa: F401
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    try:
        device_info()
    except BackendError as error:
        _log.warning("using the CPU although ONNX Runtime's GPU build is installed: %s", error)
        return False
    return True
