"""The little of CUDA that the runtime needs, through NVIDIA's own `cuda-bindings`.

Every call's status is checked here; elsewhere a CUDA error is a BackendError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import BackendError


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The GPU that is used: compute capability (major, minor), memory in bytes."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def bindings() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises BackendError when cuda-bindings is not installed.
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
    """The value of a call to the bindings, without its status.

    Raises BackendError with the name of the status and what was being done.
    """
    status, *values = result
    if int(status) != 0:
        name = getattr(status, "name", str(status))
        raise BackendError(f"{doing} failed with {name}; {_remedy(name)}")
    return values[0] if len(values) == 1 else tuple(values)


def device_info(device: int = 0) -> DeviceInfo:
    """The GPU with that number.

    Raises BackendError when there is no driver or no GPU.
    """
    cuda = bindings()
    count = checked(cuda.cudaGetDeviceCount(), "looking for a GPU")
    if device >= count:
        raise BackendError(f"GPU {device} was asked for, this machine has {count}")
    found = checked(cuda.cudaGetDeviceProperties(device), "reading what the GPU is")
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return DeviceInfo(
        name=name.strip("\0"),
        compute_capability=(found.major, found.minor),
        memory_bytes=int(found.totalGlobalMem),
    )


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
