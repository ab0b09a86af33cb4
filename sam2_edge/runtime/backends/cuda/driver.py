"""CUDA through NVIDIA's `cuda-bindings`, with errors as BackendError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import BackendError


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A GPU; `compute_capability` is (major, minor)."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def bindings() -> Any:
    """Import `cuda.bindings.runtime`.

    Raises:
        BackendError: If cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendError(
            f"cuda-bindings cannot be imported ({error}); install it with: pip install "
            "cuda-bindings, for a driver of CUDA 12 such as JetPack 6's: 'cuda-bindings<13'"
        ) from error
    return runtime


def checked(result: tuple[Any, ...], doing: str) -> Any:
    """Return the values of a call to the bindings, without its status.

    Raises:
        BackendError: If the status is an error; the message names it and `doing`.
    """
    status, *values = result
    if int(status) != 0:
        name = getattr(status, "name", str(status))
        raise BackendError(f"{doing} failed with {name}; {_remedy(name)}")
    return values[0] if len(values) == 1 else tuple(values)


def device_info(device: int = 0) -> DeviceInfo:
    """Describe the GPU with this index.

    Raises:
        BackendError: If there is no driver or no GPU.
    """
    cuda = bindings()
    count = checked(cuda.cudaGetDeviceCount(), "looking for a GPU")
    if device >= count:
        raise BackendError(f"GPU {device} does not exist: this machine has {count} GPUs")
    properties = checked(cuda.cudaGetDeviceProperties(device), "reading the GPU's properties")
    name = properties.name
    name = name.decode() if isinstance(name, bytes) else str(name)
    capability = (properties.major, properties.minor)
    return DeviceInfo(name.strip("\0"), capability, int(properties.totalGlobalMem))


def _remedy(status: str) -> str:
    if "InsufficientDriver" in status:
        return (
            "the NVIDIA driver is missing or too old for this cuda-bindings: install a newer one, "
            "or for a driver of CUDA 12, such as JetPack 6's: pip install 'cuda-bindings<13'"
        )
    if "NoDevice" in status:
        return "no NVIDIA GPU is visible: check nvidia-smi, or use the CPU with --backend cpu"
    if "MemoryAllocation" in status:
        return "the GPU has too little free memory: free some, or export with a smaller image size"
    return "check the driver with nvidia-smi"
