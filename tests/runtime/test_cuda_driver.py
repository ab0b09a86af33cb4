"""The driver's library through ctypes, on a stand-in with the same ABI that runs late."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from sam2_edge import BackendError
from sam2_edge.runtime import doctor
from sam2_edge.runtime.backends.cuda import driver as cuda
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info, driver, driver_version
from tests.helpers.late_device import LateDevice

OUT_OF_MEMORY, PRIMARY_CONTEXT_ACTIVE, DRIVER_MISMATCH = 2, 708, 803
CTX_SCHED_BLOCKING_SYNC = 4


def test_it_describes_the_gpu(late_device: LateDevice) -> None:
    assert driver().device_count() == 1
    assert driver_version() == driver().version() == 13000
    assert device_info() == DeviceInfo("Late Device", (8, 6), late_device.settings.memory_bytes)
    assert driver().memory_info() == (2 * (late_device.settings.memory_bytes,))
    with pytest.raises(BackendError, match="GPU 1 does not exist: this machine has 1 GPUs"):
        device_info(1)


@pytest.mark.usefixtures("late_device")
def test_there_is_one_driver_per_process() -> None:
    assert driver() is driver()


def test_without_a_driver_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-missing.so.1")
    remedy = "install it, in a container give it the GPU .*, or use the CPU with --backend cpu"
    for call in (driver, driver_version, device_info):
        with pytest.raises(BackendError, match=f"cannot be loaded .*missing.*; {remedy}"):
            call()


def test_an_old_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, library = tmp_path / "old.c", tmp_path / "libcuda.so.1"
    names = [name for name in cuda._FUNCTIONS if name != "cuGraphInstantiateWithFlags"]
    source.write_text("\n".join(f"int {name}(void) {{ return 0; }}" for name in names))
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(cuda, "LIBRARY", str(library))
    with pytest.raises(BackendError, match=r"no cuGraphInstantiateWithFlags; CUDA 11\.4 or newer"):
        driver()


def test_without_a_gpu_the_version_is_known(late_device: LateDevice) -> None:
    late_device.settings.devices = 0
    with pytest.raises(BackendError, match="CUDA_ERROR_NO_DEVICE; no NVIDIA GPU is visible"):
        driver()
    assert doctor._driver() == "13.0"
    late_device.settings.devices = 1
    assert driver().device_count() == 1  # a failure is not remembered


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY; the GPU has too little free memory"),
        (DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH; .* restart after an update"),
        (4242, "CUDA error 4242; check the driver with nvidia-smi"),
    ],
)
def test_errors_have_cudas_name_and_a_remedy(
    late_device: LateDevice, status: int, message: str
) -> None:
    late_device.fail("cuMemAlloc_v2", status=status)
    doing = "allocating 1000 bytes of GPU memory failed with "
    with pytest.raises(BackendError, match=doing + message):
        driver().alloc(1000)


def test_every_thread_may_use_it(late_device: LateDevice) -> None:
    cu = driver()
    stream, errors = cu.create_stream(), []

    def work() -> None:
        try:
            cu.free(cu.alloc(8))
            cu.synchronize(stream)
        except BackendError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cu.destroy_stream(stream)
    assert errors == []
    assert late_device.counts.device_blocks == 0


def test_copies_and_events_keep_the_order_of_the_stream(late_device: LateDevice) -> None:
    cu = driver()
    stream = cu.create_stream()
    first, second, host = cu.alloc(8), cu.alloc(8), cu.alloc_host(16)
    ctypes.memmove(host, b"sam2edge", 8)
    before, after = cu.create_event(), cu.create_event()
    cu.record_event(before, stream)
    cu.copy_to_device(first, host, 8, stream)
    cu.copy_on_device(second, first, 8, stream)
    cu.copy_to_host(host + 8, second, 8, stream)
    cu.record_event(after, stream)
    assert ctypes.string_at(host + 8, 8) != b"sam2edge"
    assert cu.event_milliseconds(before, after) >= 0
    assert ctypes.string_at(host + 8, 8) == b"sam2edge"
    for event in (before, after):
        cu.destroy_event(event)
    cu.free(first)
    cu.free(second)
    cu.free_host(host)
    cu.destroy_stream(stream)
    counts = late_device.counts
    assert (counts.device_blocks, counts.host_blocks, counts.streams, counts.events) == (0,) * 4


@pytest.mark.parametrize(("integrated", "flags"), [(1, CTX_SCHED_BLOCKING_SYNC), (0, 0)])
def test_only_a_jetson_waits_without_spinning(
    late_device: LateDevice, integrated: int, flags: int
) -> None:
    late_device.settings.integrated = integrated
    driver().memory_info()
    chosen, active = ctypes.c_uint(), ctypes.c_int()
    library = ctypes.CDLL(str(late_device.path))
    library.cuDevicePrimaryCtxGetState(0, ctypes.byref(chosen), ctypes.byref(active))
    assert (chosen.value, active.value) == (flags, 1)


def test_a_context_that_others_opened_keeps_its_flags(late_device: LateDevice) -> None:
    late_device.settings.integrated = 1
    late_device.fail("cuDevicePrimaryCtxSetFlags_v2", status=PRIMARY_CONTEXT_ACTIVE)
    driver().memory_info()
