"""Every GPU backend on the late device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pytest

from sam2_edge import Bundle, VideoTracker
from tests.helpers.engines import as_engines
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.onnxruntime import CudaProvider
from tests.helpers.late_device.tensorrt import Module

LateName = Literal["tensorrt", "tensorrt-rtx", "cuda"]

LATE_NAMES: tuple[LateName, ...] = get_args(LateName)


@dataclass(frozen=True)
class LateBackend:
    """A backend's engines are stand-ins; its memory, streams and graphs are our own code's.

    Attributes:
        name: The backend.
        device: What it runs on.
        bundle: Turns a bundle of ONNX graphs into one for this backend.
    """

    name: LateName
    device: LateDevice
    bundle: Callable[[Bundle], Bundle]

    def tracker(self, bundle: Bundle, **options: Any) -> VideoTracker:
        """Open a tracker for a bundle of ONNX graphs."""
        return VideoTracker(self.bundle(bundle), backend=self.name, **options)


def late_backend(
    name: LateName, device: LateDevice, monkeypatch: pytest.MonkeyPatch, *, objects: int = 1
) -> LateBackend:
    """Put stand-ins in the place of an engine's package for the rest of a test.

    The engines of TensorRT take 8 objects, and memory attention as many as `objects`, and
    mask bits 4.
    """
    if name == "cuda":
        CudaProvider(device).install(monkeypatch)
        return LateBackend(name, device, lambda bundle: bundle)
    Module(device, rtx=name == "tensorrt-rtx").install(monkeypatch)
    return LateBackend(
        name, device, lambda bundle: as_engines(bundle, name, attention=objects, packed=4)
    )
