"""The extras that bring an engine and OpenCV, and the errors that name them.

The base installation has neither: which ones fit depends on the machine, and some exclude others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sam2_edge.errors import BackendError

INSTALL_ENGINE = (
    "install one engine: pip install 'sam2_edge[cpu]', or [cuda], [tensorrt] or [tensorrt-rtx] for "
    "an NVIDIA GPU, or [jetson] in a virtual environment with --system-site-packages"
)

INSTALL_GPU_ENGINE = (
    "install its engine: pip install 'sam2_edge[tensorrt-rtx]', [tensorrt] or, instead of [cpu], "
    "[cuda]"
)

_MISSING = {
    "cv2": f"OpenCV is not installed, because no engine is; {INSTALL_ENGINE}",
    "onnxruntime": (
        "ONNX Runtime is not installed, and only engines of TensorRT run without it; install it "
        "for the CPU: pip install 'sam2_edge[cpu]', or for an NVIDIA GPU: pip install "
        "'sam2_edge[cuda]'"
    ),
}


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Translate the ImportError of an engine or of OpenCV, and an AttributeError of a damaged one.

    Raises:
        BackendError: If one of them is missing or damaged; the message says what to install.
    """
    try:
        yield
    except AttributeError as error:
        # Uninstalling another package over this one takes the files that both have.
        name = getattr(error.obj, "__name__", None)
        if name not in _MISSING or hasattr(error.obj, "__version__"):
            raise
        raise BackendError(f"{name} is damaged; see sam2-edge doctor") from error
    except ImportError as error:
        explanation = explain(error)
        if explanation is None:
            raise
        raise BackendError(explanation) from error


def explain(error: ImportError) -> str | None:
    """Say what to install for an ImportError; None if it is not about an engine or OpenCV."""
    if "multiarray failed to import" in str(error):
        # NumPy's own words to modules of its version 1, such as the OpenCV of JetPack 6 and Ubuntu.
        return "OpenCV was built for NumPy 1; install that: pip install 'numpy<2'"
    name = error.name or ""
    package = name.partition(".")[0]
    if package not in _MISSING:
        return None
    if name == package and isinstance(error, ModuleNotFoundError):
        return _MISSING[package]
    return f"{package} is installed but cannot be imported ({error}); see sam2-edge doctor"


def reinstall(packages: list[str], chosen: str) -> str:
    """Say how to replace packages that share files by one of them.

    All of them have to go first: uninstalling only one takes files of the others with it, which
    pip does not notice.
    """
    return f"pip uninstall -y {' '.join(packages)}, then pip install '{chosen}'"
