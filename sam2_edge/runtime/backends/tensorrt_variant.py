"""The two variants of TensorRT: the classic one and TensorRT-RTX, whose Python APIs mostly agree.

Features are detected by attribute, never by version.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from types import ModuleType
from typing import Any, Literal

from sam2_edge.errors import BackendError

_log = logging.getLogger(__name__)

TensorRtVariant = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[TensorRtVariant, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_REMEDIES: dict[TensorRtVariant, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (create the virtual environment with "
    "--system-site-packages), elsewhere: pip install 'sam2_edge[tensorrt]'",
    "tensorrt-rtx": "pip install 'sam2_edge[tensorrt-rtx]'",
}


def import_tensorrt(variant: TensorRtVariant) -> ModuleType:
    """Import a variant's Python module.

    Raises:
        BackendError: If it is not installed or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module(MODULES[variant])
    except (ImportError, OSError) as error:
        raise BackendError(
            f"{variant} cannot be imported ({error}); {_REMEDIES[variant]}"
        ) from error


def rtx_targets(trt: ModuleType) -> list[str]:
    """Return the compute capabilities that TensorRT-RTX builds for, such as SM86."""
    return [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


@cache
def logger(trt: ModuleType) -> Any:
    """Return the logger of this process, which forwards TensorRT's messages to Python's logging.

    TensorRT keeps a pointer to the first one that it is given (NVIDIA/TensorRT #1475).
    """

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined] # a module as a value
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            serious = severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
            _log.log(logging.ERROR if serious else logging.DEBUG, "%s", message)

    return Logger()
