"""Detects the hardware and software on this machine that backends need.

Works without an engine and without OpenCV, to say that they are missing.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import av

from sam2_edge.errors import BackendError
from sam2_edge.extras import INSTALL_ENGINE, INSTALL_GPU_ENGINE, explain
from sam2_edge.runtime.backends.cuda.driver import device_info, driver_version
from sam2_edge.runtime.backends.tensorrt_variant import (
    MODULES,
    TensorRtVariant,
    import_tensorrt,
    rtx_targets,
)
from sam2_edge.runtime.installed import conflict

JETPACK_FILE = Path("/etc/nv_tegra_release")
"""On a Jetson, this file names the L4T release."""

CUDA_PROVIDER = "CUDAExecutionProvider"


def _imported(name: str) -> ModuleType | ImportError:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return error


# Before a command runs: then a signal ends the process without an exception, which these imports
# might swallow.
_ONNX_RUNTIME, _OPENCV = _imported("onnxruntime"), _imported("cv2")


@dataclass(frozen=True, slots=True)
class Finding:
    """One component of the machine.

    Attributes:
        name: The component.
        value: Its version or description; None if it is missing.
        remedy: How to install it if it is missing and useful here.
    """

    name: str
    value: str | None
    remedy: str | None = None


def findings() -> list[Finding]:
    """Return every component that determines which backends can run."""
    return [
        Finding("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        Finding("Python", platform.python_version()),
        Finding("JetPack", _jetpack()),
        _probe("GPU", _gpu),
        _probe("CUDA driver", _driver),
        *(_probe(variant, partial(_tensorrt, variant)) for variant in MODULES),
        _package("onnxruntime", _ONNX_RUNTIME),
        Finding("onnxruntime providers", ", ".join(_providers()) or None),
        _package("OpenCV", _OPENCV),
        Finding("PyAV", f"{av.__version__}, FFmpeg {av.ffmpeg_version_info}"),
        _gstreamer(),
        _temporary_folder(),
    ]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do on a machine.

    Attributes:
        backend: The fastest backend that can run; None if none can.
        reason: It and the bundle it needs, or what to install, in words.
        next_step: The command that makes such a bundle; None if an engine must be installed first.
    """

    backend: str | None
    reason: str
    next_step: str | None


def advice(components: Sequence[Finding]) -> Advice:
    """Choose the fastest backend that these components can run."""
    available = {finding.name for finding in components if finding.value is not None}
    if "OpenCV" in available:
        if "GPU" in available:
            for variant in MODULES:
                if variant in available:
                    return _advice(variant, f"{variant}, with a bundle of its engines", variant)
            if CUDA_PROVIDER in _providers():
                return _advice("cuda", "cuda, with a bundle of ONNX graphs", "cuda")
        if "onnxruntime" in available:
            unused = f"; nothing uses the GPU yet: {INSTALL_GPU_ENGINE}"
            reason = f"cpu, with a bundle of ONNX graphs{unused if 'GPU' in available else ''}"
            return _advice("cpu", reason)
    return Advice(None, f"nothing yet; {INSTALL_ENGINE}", None)


def _advice(backend: str, reason: str, target: str | None = None) -> Advice:
    option = f" --target {target}" if target else ""
    return Advice(backend, reason, f"sam2-edge export sam2.1-hiera-tiny{option} --output tiny")


def conflicts() -> list[str]:
    """Say which packages conflict or are damaged, and how to repair that."""
    found = (
        conflict("onnxruntime", "onnxruntime", damaged=_is_damaged(_ONNX_RUNTIME)),
        conflict("cv2", "opencv", damaged=_is_damaged(_OPENCV)),
    )
    return [text for text in found if text]


def _is_damaged(module: ModuleType | ImportError) -> bool:
    """Whether files are gone: uninstalling one of two packages takes those that they share."""
    if isinstance(module, ImportError):
        return isinstance(module, ModuleNotFoundError)
    return not hasattr(module, "__version__")


def _package(name: str, module: ModuleType | ImportError) -> Finding:
    if isinstance(module, ModuleNotFoundError):
        return Finding(name, None)
    if isinstance(module, ImportError):
        return Finding(name, None, explain(module) or str(module))
    return Finding(name, getattr(module, "__version__", None))


def _providers() -> list[str]:
    if isinstance(_ONNX_RUNTIME, ImportError) or _is_damaged(_ONNX_RUNTIME):
        return []
    return list(_ONNX_RUNTIME.get_available_providers())


def _probe(name: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(name, probe())
    except BackendError as error:
        return Finding(name, None, str(error))


def _gpu() -> str:
    gpu = device_info()
    major, minor = gpu.compute_capability
    return f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory_bytes / 2**30:.1f} GiB"


def _driver() -> str:
    version = driver_version()
    return f"{version // 1000}.{version % 1000 // 10}"


def _tensorrt(variant: TensorRtVariant) -> str:
    trt = import_tensorrt(variant)
    if variant == "tensorrt-rtx":
        try:
            here = "SM{}{}".format(*device_info().compute_capability)
        except BackendError:  # without a GPU, engines can still be built for other machines
            return str(trt.__version__)
        if here not in rtx_targets(trt):
            raise BackendError(
                f"{trt.__version__} is installed, but cannot build for this GPU ({here}, not among "
                f"{', '.join(rtx_targets(trt))}); use tensorrt or cuda"
            )
    return str(trt.__version__)


def _jetpack() -> str | None:
    if not JETPACK_FILE.is_file():
        return None
    match = re.search(r"R(\d+) .*?REVISION: ([\d.]+)", JETPACK_FILE.read_text(encoding="utf-8"))
    return f"L4T {match[1]}.{match[2]}" if match else "unknown release"


def _gstreamer() -> Finding:
    if isinstance(_OPENCV, ImportError) or _is_damaged(_OPENCV):
        return Finding("GStreamer in OpenCV", None)

    from sam2_edge.runtime.sources.camera import has_gstreamer

    if not has_gstreamer():
        remedy = "CSI cameras on a Jetson need it; JetPack's own OpenCV includes it"
        return Finding("GStreamer in OpenCV", None, remedy)
    line = re.search(r"GStreamer:\s+(.*)", _OPENCV.getBuildInformation())
    return Finding("GStreamer in OpenCV", line[1] if line else "yes")


def _temporary_folder() -> Finding:
    name, chosen = "temporary folder", os.environ.get("TMPDIR")
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:
        remedy = "export, eval and bench need one; set TMPDIR to a writable folder with room"
        return Finding(name, None, remedy)
    free = f"{place}, {shutil.disk_usage(place).free / 2**30:.1f} GiB free"
    if chosen and Path(chosen).absolute() != Path(place):
        return Finding(
            name, free, f"TMPDIR is {chosen}, which cannot be written; set it to another"
        )
    return Finding(name, free)
