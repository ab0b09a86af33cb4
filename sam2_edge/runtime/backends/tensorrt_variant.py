"""The two variants of TensorRT: the classic one and TensorRT-RTX, whose Python APIs mostly agree.

Features are detected by attribute, never by version.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

from sam2_edge.errors import BackendError

TensorRtVariant = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[TensorRtVariant, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_REMEDIES: dict[TensorRtVariant, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (create the virtual environment with "
    "--system-site-packages), elsewhere: pip install tensorrt 'sam2_edge[tensorrt]'",
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
