"""How a benchmark measures times and memory, on a GPU that runs late."""

from __future__ import annotations

from sam2_edge.evaluation.bench import peak_memory, targets
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory
from tests.helpers.late_device import LateDevice


def test_a_gpu_is_timed_by_events_that_are_destroyed(late_device: LateDevice) -> None:
    memory = DeviceMemory(whole_frames=True)
    clock = targets.CudaClock(memory.commands)
    enqueued: list[bool] = []

    first = clock.now()
    memory.commands.submit("work", enqueued.append)
    last = clock.now()  # after the work, although whole frames are kept

    assert enqueued == [False]
    assert late_device.counts.waits == 0
    assert clock.milliseconds(first, last) > 0
    assert late_device.counts.waits == 1
    assert late_device.counts.events == 0


def test_memory_of_the_gpu_is_what_all_processes_use(late_device: LateDevice) -> None:
    assert peak_memory._device_bytes() == 0
    memory = DeviceMemory()
    tensor = memory.empty((256,))
    assert peak_memory._device_bytes() == tensor.nbytes
    memory.close()
    late_device.fail("cuMemGetInfo_v2")
    assert peak_memory._device_bytes() == 0


def test_a_cpu_is_timed_by_the_host() -> None:
    assert targets.HostClock().milliseconds(1.5, 1.75) == 250.0
