"""A GPU that runs late: a stand-in for NVIDIA's driver library, compiled here.

Its memory is the host's, overwritten with 0xFF when it is taken and given back. Copies,
events, graph launches and engine runs are queued per stream and carried out when the host waits for
them, so that memory that is reused too early, a missing wait or an outdated graph shows.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

SOURCES = ("device.c", "queue.c", "stream.c")

RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
DONE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

UNKNOWN_ERROR = 999


class Counts(ctypes.Structure):
    """What the device has done, and what exists on it; see late.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("uploads", "downloads", "device_copies"),
            *("upload_bytes", "download_bytes", "device_copy_bytes"),
            *("runs", "enqueues", "launches", "waits", "captures", "unpinned"),
            *("device_blocks", "device_bytes", "most_device_bytes"),
            *("host_blocks", "host_bytes"),
            *("streams", "events", "graphs", "executables"),
        )
    ]

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name, _ in self._fields_}


class Settings(ctypes.Structure):
    """What the device claims to be; see late.h."""

    _fields_ = [
        ("memory_bytes", ctypes.c_uint64),
        ("devices", ctypes.c_int32),
        ("init_status", ctypes.c_int32),
        ("driver_version", ctypes.c_int32),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("integrated", ctypes.c_int32),
        ("name", ctypes.c_char * 64),
    ]


@cache
def _compiled() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Compile the library once per process; its folder is removed at the end."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler for the late device")
    here = Path(__file__).parent
    folder = tempfile.TemporaryDirectory(prefix="late-device-")
    library = Path(folder.name) / "libcuda.so.1"
    options = [
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-D_GNU_SOURCE",
        "-shared",
        "-fPIC",
        "-Wl,-Bsymbolic",
    ]
    sources = [str(here / name) for name in SOURCES]
    subprocess.run([compiler, *options, "-o", str(library), *sources], check=True)
    return library, folder


class LateDevice:
    """One device with a state of its own, in a copy of the library.

    Attributes:
        path: The library, which takes the place of libcuda.so.1.
        settings: What it claims to be; changes take effect at once.
        errors: What engine runs raised; the device then reports CUDA_ERROR_LAUNCH_FAILED for good.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(shutil.copy(_compiled()[0], folder))
        self._library = library = ctypes.CDLL(str(self.path))
        library.late_counts.restype = ctypes.POINTER(Counts)
        library.late_settings.restype = ctypes.POINTER(Settings)
        library.late_misuses.restype = ctypes.c_char_p
        library.late_enqueue.argtypes = [ctypes.c_void_p, RUN, DONE, ctypes.c_void_p]
        library.late_place.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        library.late_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        for name in ("late_pending", "late_stream_exists", "late_is_capturing"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        self.settings: Settings = library.late_settings().contents
        self.errors: list[BaseException] = []
        self._runs: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._run, self._done = RUN(self._carry_out), DONE(self._forget)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of the driver library for the rest of a test."""
        from sam2_edge.runtime.backends.cuda import driver

        monkeypatch.setattr(driver, "LIBRARY", str(self.path))

    @property
    def counts(self) -> Counts:
        """A copy of the counters."""
        return Counts.from_buffer_copy(self._library.late_counts().contents)

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """Yield a dictionary that holds what was counted inside the block after its end."""
        counted: dict[str, int] = {}
        before = self.counts.as_dict()
        yield counted
        counted.update({name: n - before[name] for name, n in self.counts.as_dict().items()})

    @property
    def misuses(self) -> list[str]:
        """What was done that a real device need not survive or report."""
        return self._library.late_misuses().decode().splitlines()

    def misuse(self, message: str) -> None:
        self._library.late_misuse(message.encode())

    def fail(
        self, function: str, *, times: int = 1, after: int = 0, status: int = UNKNOWN_ERROR
    ) -> None:
        """Let calls of a function of the driver, such as cuMemAlloc_v2, fail with a status.

        Args:
            function: Its name in the library.
            times: How many calls fail.
            after: How many calls succeed before.
            status: The CUresult.
        """
        self._library.late_fail(function.encode(), after, times, status)

    def enqueue(self, stream: int, run: Callable[[], None]) -> bool:
        """Queue a run, or record it into the graph that is captured; False if CUDA refuses."""
        self._number += 1
        self._runs[self._number] = run
        return self._library.late_enqueue(stream, self._run, self._done, self._number) == 0

    def synchronize(self, stream: int) -> None:
        """Wait for a stream, as a library would that shares it."""
        self._library.cuStreamSynchronize(ctypes.c_void_p(stream))

    def pending(self, stream: int) -> int:
        """Number of entries in a stream's queue."""
        return int(self._library.late_pending(stream))

    def stream_exists(self, stream: int) -> bool:
        return bool(self._library.late_stream_exists(stream))

    def is_capturing(self, stream: int) -> bool:
        return bool(self._library.late_is_capturing(stream))

    def is_in_use(self, address: int, size: int) -> bool:
        """Whether an address range lies within one block of device memory that is in use."""
        return bool(self._library.late_place(address, size) == 1)

    def _carry_out(self, number: int) -> int:
        try:
            self._runs[number]()
        except BaseException as error:  # noqa: BLE001 # must not reach C
            self.errors.append(error)
            return 1
        return 0

    def _forget(self, number: int) -> None:
        del self._runs[number]

    def forgive(self) -> tuple[list[BaseException], list[str]]:
        """Return and forget the errors and misuses so far, which a test meant to cause."""
        errors, misuses = self.errors, self.misuses
        self.errors = []
        self._library.late_forgive()
        return errors, misuses

    def check(self) -> None:
        """Raise AssertionError if a run failed or the device was misused."""
        assert self.errors == []
        assert self.misuses == []
