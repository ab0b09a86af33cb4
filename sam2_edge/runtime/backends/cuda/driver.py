"""The few CUDA calls that the runtime needs, through NVIDIA's `cuda-bindings`.

Every call's status is checked here and becomes a BackendError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import BackendError


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Name, compute capability (major, minor) and memory in bytes of a GPU."""

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
        BackendError: With the name of the status and what was being done.
    """
    status, *values = result
    if int(status) != 0:
        name = getattr(status, "name", str(status))
        raise BackendError(f"{doing} failed with {name}; {_remedy(name)}")
    return values[0] if len(values) == 1 else tuple(values)


def device_info(device: int = 0) -> DeviceInfo:
    """Describe the GPU with that number.

    Raises:
        BackendError: If there is no driver or no GPU.
    """
    cuda = bindings()
    count = checked(cuda.cudaGetDeviceCount(), "looking for a GPU")
    if device >= count:
        raise BackendError(f"GPU {device} does not exist: this machine has {count} GPUs")
    found = checked(cuda.cudaGetDeviceProperties(device), "reading the GPU's properties")
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
