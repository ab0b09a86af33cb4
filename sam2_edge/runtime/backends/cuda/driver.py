"""The CUDA driver's own library, called through ctypes, with errors as BackendError.

Desktop, server and Jetson all have it as `libcuda.so.1` with a stable ABI, whatever version of the
CUDA toolkit is installed. ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong
from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import BackendError

LIBRARY = "libcuda.so.1"

# Handles and addresses: all have 64 bits on every machine with a supported GPU.
_HANDLE = c_size_t
_OUT = POINTER(_HANDLE)

# The newest of these is cuGraphInstantiateWithFlags, of CUDA 11.4 and driver 470 (JetPack 6: 12.6).
# The suffixes are those that cuda.h appends to the plain names in every version since then.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxSetFlags_v2": (c_int, c_uint),
    "cuDevicePrimaryCtxRetain": (_OUT, c_int),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (_OUT, c_size_t),
    "cuMemFree_v2": (_HANDLE,),
    "cuMemHostAlloc": (_OUT, c_size_t, c_uint),
    "cuMemFreeHost": (_HANDLE,),
    "cuMemcpyHtoDAsync_v2": (_HANDLE, _HANDLE, c_size_t, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (_HANDLE, _HANDLE, c_size_t, _HANDLE),
    "cuMemcpyDtoDAsync_v2": (_HANDLE, _HANDLE, c_size_t, _HANDLE),
    "cuStreamCreate": (_OUT, c_uint),
    "cuStreamDestroy_v2": (_HANDLE,),
    "cuStreamSynchronize": (_HANDLE,),
    "cuStreamBeginCapture_v2": (_HANDLE, c_int),
    "cuStreamEndCapture": (_HANDLE, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, _HANDLE, c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphDestroy": (_HANDLE,),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuEventCreate": (_OUT, c_uint),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuEventSynchronize": (_HANDLE,),
    "cuEventElapsedTime": (POINTER(c_float), _HANDLE, _HANDLE),
    "cuEventDestroy_v2": (_HANDLE,),
}

_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
_BLOCKING_SYNC = 0x04  # CU_CTX_SCHED_BLOCKING_SYNC
_NON_BLOCKING = 0x01  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A GPU; `compute_capability` is (major, minor)."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def driver() -> Driver:
    """Return the process's driver.

    Raises:
        BackendError: If the library, the driver or a GPU is missing.
    """
    with _opening:
        return _opened(LIBRARY)


def driver_version() -> int:
    """Return the newest CUDA version that the driver supports, as 1000 * major + 10 * minor.

    It needs no GPU.

    Raises:
        BackendError: If the library is missing.
    """
    return Driver(LIBRARY).version()


def device_info(device: int = 0) -> DeviceInfo:
    """Describe the GPU with this index.

    Raises:
        BackendError: If there is no driver or no such GPU.
    """
    return driver().device_info(device)


class Driver:
    """The driver's functions, on the first GPU; handles and addresses are ints.

    All methods raise BackendError if the driver reports an error. Asynchronous work may report it
    in a later call.

    The GPU's primary context, which TensorRT, ONNX Runtime and PyTorch use as well, is retained at
    the first call that needs it, and stays for the process.
    """

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise BackendError(
                f"the NVIDIA driver cannot be loaded ({error}); install it, in a container give it "
                "the GPU (docker run --gpus all), or use the CPU with --backend cpu"
            ) from error
        self._context: int | None = None
        self._retaining = threading.Lock()
        self._threads = threading.local()
        for name, arguments in _FUNCTIONS.items():
            self._bind(name, arguments)

    def _bind(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise BackendError(
                f"this NVIDIA driver has no {name}; CUDA 11.4 or newer is needed: update the driver"
            ) from error
        function.argtypes, function.restype = arguments, c_int

    def start(self) -> None:
        """Initialize the driver and look for a GPU."""
        self._check(self._library.cuInit(0), "starting the CUDA driver")
        if self.device_count() == 0:
            raise BackendError("there is no GPU; " + _remedy("CUDA_ERROR_NO_DEVICE"))

    def version(self) -> int:
        """Return the newest CUDA version that the driver supports, as 1000 * major + 10 * minor."""
        version = c_int()
        self._check(self._library.cuDriverGetVersion(byref(version)), "reading the driver version")
        return version.value

    def device_count(self) -> int:
        """Return the number of GPUs."""
        count = c_int()
        self._check(self._library.cuDeviceGetCount(byref(count)), "looking for a GPU")
        return count.value

    def device_info(self, device: int = 0) -> DeviceInfo:
        """Describe the GPU with this index."""
        count = self.device_count()
        if not 0 <= device < count:
            raise BackendError(f"GPU {device} does not exist: this machine has {count} GPUs")
        handle, size, name = c_int(), c_size_t(), ctypes.create_string_buffer(256)
        doing = "reading the GPU's properties"
        self._check(self._library.cuDeviceGet(byref(handle), device), doing)
        self._check(self._library.cuDeviceGetName(name, len(name), handle), doing)
        self._check(self._library.cuDeviceTotalMem_v2(byref(size), handle), doing)
        major, minor = (self._attribute(a, handle) for a in _COMPUTE_CAPABILITY)
        return DeviceInfo(name.value.decode(errors="replace"), (major, minor), size.value)

    def memory_info(self) -> tuple[int, int]:
        """Return the free and the total bytes of GPU memory."""
        free, total = c_size_t(), c_size_t()
        self._use_context()
        status = self._library.cuMemGetInfo_v2(byref(free), byref(total))
        self._check(status, "reading free GPU memory")
        return free.value, total.value

    def alloc(self, size: int) -> int:
        """Allocate GPU memory; its address is a multiple of 256."""
        return self._create("cuMemAlloc_v2", size, doing=f"allocating {size} bytes of GPU memory")

    def free(self, address: int) -> None:
        """Free GPU memory that no enqueued work uses."""
        self._call("cuMemFree_v2", address, doing="freeing GPU memory")

    def alloc_host(self, size: int) -> int:
        """Allocate page-locked host memory, which asynchronous copies require."""
        doing = f"allocating {size} bytes of page-locked memory"
        return self._create("cuMemHostAlloc", size, 0, doing=doing)

    def free_host(self, address: int) -> None:
        """Free page-locked memory that no enqueued work uses."""
        self._call("cuMemFreeHost", address, doing="freeing page-locked memory")

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default stream.

        While a stream that does is captured, every use of the default stream fails, by any thread
        and library of the process.
        """
        return self._create("cuStreamCreate", _NON_BLOCKING, doing="creating a CUDA stream")

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream after everything that uses it."""
        self._call("cuStreamDestroy_v2", stream, doing="destroying a CUDA stream")

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream."""
        self._call("cuStreamSynchronize", stream, doing="waiting for the GPU")

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy from page-locked host memory, which must not change until it is done."""
        doing = f"copying {size} bytes to the GPU"
        self._call("cuMemcpyHtoDAsync_v2", target, source, size, stream, doing=doing)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy to page-locked host memory."""
        doing = f"copying {size} bytes to the host"
        self._call("cuMemcpyDtoHAsync_v2", target, source, size, stream, doing=doing)

    def copy_on_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy within GPU memory."""
        doing = f"copying {size} bytes on the GPU"
        self._call("cuMemcpyDtoDAsync_v2", target, source, size, stream, doing=doing)

    def begin_capture(self, stream: int) -> None:
        """Record the work of a stream from here on instead of running it.

        Until `end_capture`, calls of this thread that the recording cannot hold, such as
        allocations, fail; those of other threads do not.
        """
        doing = "starting a capture"
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL, doing=doing)

    def end_capture(self, stream: int) -> int:
        """End the recording and return it as a graph."""
        graph = _HANDLE()
        self._use_context()
        status = self._library.cuStreamEndCapture(stream, byref(graph))
        if status and graph.value:
            self._library.cuGraphDestroy(graph)
        self._check(status, "ending a capture")
        return graph.value

    def instantiate(self, graph: int) -> int:
        """Make a graph executable; the graph itself may be destroyed afterwards."""
        doing = "creating a CUDA graph"
        return self._create("cuGraphInstantiateWithFlags", graph, 0, doing=doing)

    def launch(self, executable: int, stream: int) -> None:
        """Enqueue all work of a graph."""
        self._call("cuGraphLaunch", executable, stream, doing="launching a CUDA graph")

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphDestroy", graph, doing="freeing a CUDA graph")

    def destroy_exec(self, executable: int) -> None:
        """Destroy an executable graph that is not running."""
        self._call("cuGraphExecDestroy", executable, doing="freeing a CUDA graph")

    def create_event(self) -> int:
        """Create an event that records its time."""
        return self._create("cuEventCreate", 0, doing="creating a CUDA event")

    def record_event(self, event: int, stream: int) -> None:
        """Record an event after all work enqueued so far."""
        self._call("cuEventRecord", event, stream, doing="recording a CUDA event")

    def event_milliseconds(self, first: int, last: int) -> float:
        """Return the time between two events; waits for the last one."""
        elapsed = c_float()
        self._call("cuEventSynchronize", last, doing="waiting for the GPU")
        self._call("cuEventElapsedTime", byref(elapsed), first, last, doing="reading CUDA events")
        return elapsed.value

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cuEventDestroy_v2", event, doing="destroying a CUDA event")

    def _attribute(self, attribute: int, device: c_int) -> int:
        value = c_int()
        status = self._library.cuDeviceGetAttribute(byref(value), attribute, device)
        self._check(status, "reading the GPU's properties")
        return value.value

    def _use_context(self) -> None:
        """Make the context current on this thread, at the first call of each thread."""
        if getattr(self._threads, "ready", False):
            return
        with self._retaining:
            if self._context is None:
                self._context = self._retain()
        self._check(self._library.cuCtxSetCurrent(self._context), "using the GPU")
        self._threads.ready = True

    def _retain(self) -> int:
        device, context = c_int(), _HANDLE()
        self._check(self._library.cuDeviceGet(byref(device), 0), "using the GPU")
        if self._attribute(_INTEGRATED, device):
            # Waiting by spinning would take a core from a Jetson. It may fail if another library
            # already uses the context, whose choice then stands.
            self._library.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)
        status = self._library.cuDevicePrimaryCtxRetain(byref(context), device)
        self._check(status, "using the GPU")
        return context.value

    def _create(self, name: str, *arguments: int, doing: str) -> int:
        """Call a function whose first argument receives the result."""
        created = _HANDLE()
        self._call(name, byref(created), *arguments, doing=doing)
        return created.value

    def _call(self, name: str, *arguments: Any, doing: str) -> None:
        self._use_context()
        status = getattr(self._library, name)(*arguments)
        if status:
            self._check(status, doing)

    def _check(self, status: int, doing: str) -> None:
        if status == 0:
            return
        name = c_char_p()
        self._library.cuGetErrorName(status, byref(name))
        known = name.value.decode() if name.value else f"CUDA error {status}"
        raise BackendError(f"{doing} failed with {known}; {_remedy(known)}")


_opening = threading.Lock()


@functools.cache
def _opened(library: str) -> Driver:
    opened = Driver(library)
    opened.start()
    return opened


def _remedy(error: str) -> str:
    if error in ("CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE"):
        return "no NVIDIA GPU is visible: check nvidia-smi, or use the CPU with --backend cpu"
    if error == "CUDA_ERROR_OUT_OF_MEMORY":
        return "the GPU has too little free memory: free some, or export with a smaller image size"
    if error == "CUDA_ERROR_STUB_LIBRARY":
        return f"{LIBRARY} is the CUDA toolkit's stub: put the driver's own before it"
    if "MISMATCH" in error or "COMPAT" in error:
        return "the NVIDIA driver and its libraries differ in version: restart after an update"
    return "check the driver with nvidia-smi"
