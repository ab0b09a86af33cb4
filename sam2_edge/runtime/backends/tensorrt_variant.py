"""Which TensorRT is used: the classic one, or TensorRT-RTX, whose Python API is nearly the same.

What a flavour can do is found out by looking for it, never by comparing versions.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

from sam2_edge.errors import BackendError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_REMEDIES: dict[Flavour, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (make the virtual environment with "
    "--system-site-packages), elsewhere: pip install tensorrt 'sam2_edge[tensorrt]'",
    "tensorrt-rtx": "pip install 'sam2_edge[tensorrt-rtx]'",
}


def import_tensorrt(flavour: Flavour) -> ModuleType:
    """The Python module of one flavour.

    Raises BackendError when it is not there or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except (ImportError, OSError) as error:
        raise BackendError(
            f"{flavour} cannot be imported ({error}); {_REMEDIES[flavour]}"
        ) from error


def rtx_targets(trt: ModuleType) -> list[str]:
    """Compute capabilities that TensorRT-RTX builds for, such as SM86."""
    return [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
