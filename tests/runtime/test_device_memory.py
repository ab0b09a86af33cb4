"""Device memory on a GPU that runs late: reuse, poison, copies in blocks, limits, and the end."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from sam2_edge import BackendError
from sam2_edge.runtime.backends.cuda import memory as memory_module
from sam2_edge.runtime.backends.cuda.driver import driver
from sam2_edge.runtime.backends.cuda.memory import MERGED_GAP, DeviceMemory, DeviceTensor
from sam2_edge.runtime.backends.cuda.pool import ALIGNMENT, KEPT_TURNS, size_class
from tests.helpers.late_device import LateDevice


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.fixture(params=[False, True], ids=["at once", "whole frames"])
def memory(late_device: LateDevice, request: pytest.FixtureRequest) -> DeviceMemory:
    assert late_device.counts.streams == 0
    return DeviceMemory(whole_frames=request.param)


def test_what_is_uploaded_comes_back(memory: DeviceMemory) -> None:
    array = numbers(3, 5)
    tensor = memory.upload(array)
    array[:] = -1  # it may be modified at once
    np.testing.assert_array_equal(memory.download(tensor), numbers(3, 5))
    scalar = np.float32(7)[None]
    assert memory.download(memory.upload(scalar)[0]).shape == ()
    transposed = numbers(4, 6).T
    np.testing.assert_array_equal(memory.download(memory.upload(transposed)), transposed)


def test_new_memory_and_memory_that_is_used_again_are_unlike_zero(memory: DeviceMemory) -> None:
    assert np.isnan(memory.download(memory.empty((10,)))).all()


def test_a_loop_finds_its_tensors_at_the_same_addresses(
    memory: DeviceMemory, late_device: LateDevice
) -> None:
    seen = set()
    for turn in range(20):
        tensors = [memory.empty((10,)) for _ in range(3)]
        seen.add(tuple(t.address for t in tensors))
        while tensors:  # freed in another order each time
            del tensors[turn % len(tensors)]
        if turn == 0:
            seen.clear()  # new memory comes in any order
    assert len(seen) == 1
    assert late_device.counts.device_blocks == 3


def test_views_keep_their_memory_and_may_start_anywhere(memory: DeviceMemory) -> None:
    array = numbers(6, 5)
    tensor = memory.upload(array)
    rows, row, none = tensor[2:5], tensor[1:][3], tensor[6:6]
    del tensor
    memory.upload(np.zeros((6, 5), np.float32))
    np.testing.assert_array_equal(memory.download(rows), array[2:5])
    np.testing.assert_array_equal(memory.download(row), array[4])
    assert memory.download(none).shape == (0, 5)
    for wrong in (slice(3, 2), slice(0, 4), slice(-1, 2), slice(0, 2, 2), 3, -1):
        with pytest.raises(IndexError):
            rows[wrong]


def test_memory_is_reused_in_the_order_of_the_stream(memory: DeviceMemory) -> None:
    kept = memory.empty((8,))
    first = memory.upload(numbers(8, seed=1))
    memory.copy(first, kept)
    address = first.address
    del first
    second = memory.upload(numbers(8, seed=2))
    assert second.address == address
    got = memory.download_block({"first": kept, "second": second})
    np.testing.assert_array_equal(got["first"], numbers(8, seed=1))
    np.testing.assert_array_equal(got["second"], numbers(8, seed=2))


def test_tensors_of_a_block_travel_in_one_copy_with_one_wait(
    memory: DeviceMemory, late_device: LateDevice
) -> None:
    arrays = {
        "ages": numbers(3, dtype="int32"),
        "none": numbers(0, 4),
        "flag": numbers(1, dtype="uint8"),
        "half": numbers(5, 7, dtype="float16"),
    }
    with late_device.counting() as counted:
        tensors = memory.upload_block(arrays)
        results = memory.download_block({name: tensors[name] for name in reversed(arrays)})
    assert [counted[name] for name in ("uploads", "downloads", "waits")] == [1, 1, 1]
    assert list(results) == list(reversed(arrays))
    for name, array in arrays.items():
        assert tensors[name].address % ALIGNMENT == 0
        assert results[name].dtype == array.dtype
        np.testing.assert_array_equal(results[name], array)


def test_tensors_of_several_blocks_come_with_one_wait(
    memory: DeviceMemory, late_device: LateDevice
) -> None:
    block = memory.empty_block(
        {"a": ((4,), "float32"), "unasked": ((MERGED_GAP,), "uint8"), "b": ((2,), "int32")}
    )
    single = memory.upload(numbers(9, dtype="uint8"))
    memory.copy(memory.upload(numbers(4)), block["a"])
    memory.copy(memory.upload(numbers(2, dtype="int32")), block["b"])
    with late_device.counting() as counted:
        asked = {"single": single[3:], "b": block["b"], "a": block["a"], "a again": block["a"][1:2]}
        results = memory.download_block(asked)
    assert (counted["downloads"], counted["waits"]) == (3, 1)
    np.testing.assert_array_equal(results["single"], numbers(9, dtype="uint8")[3:])
    np.testing.assert_array_equal(results["a"], numbers(4))
    np.testing.assert_array_equal(results["a again"], numbers(4)[1:2])
    np.testing.assert_array_equal(results["b"], numbers(2, dtype="int32"))


def test_what_is_empty_needs_no_copy(memory: DeviceMemory, late_device: LateDevice) -> None:
    tensor = memory.upload(numbers(0, 3))
    memory.copy(tensor, memory.empty((0, 3)))
    assert memory.download(tensor).shape == (0, 3)
    assert memory.upload_block({}) == memory.download_block({}) == {}
    assert late_device.counts.uploads == late_device.counts.downloads == 0


def test_a_copy_between_other_shapes_is_refused(memory: DeviceMemory) -> None:
    with pytest.raises(ValueError, match=r"\(3,\) float32 to \(4,\) float32"):
        memory.copy(memory.empty((3,)), memory.empty((4,)))


def test_sizes_of_blocks_waste_less_than_a_quarter() -> None:
    for size in [*range(3000), 10**6, 2**20, 2**20 + 1, 2**31 - 1]:
        block = size_class(size)
        assert block >= max(size, 1)
        assert block % ALIGNMENT == 0
        assert block < size + max(ALIGNMENT, size / 4) + 1
    assert len({size_class(size) for size in range(2**20, 2**21)}) == 5


def test_idle_memory_is_freed_if_memory_is_short(
    memory: DeviceMemory, late_device: LateDevice
) -> None:
    late_device.settings.memory_bytes = 2**20
    in_use = memory.upload(numbers(500))
    for size in range(300_000, 900_000, 50_000):
        memory.empty((size,), np.uint8)  # idle at once
    assert late_device.counts.device_bytes <= 2**20
    np.testing.assert_array_equal(memory.download(in_use), numbers(500))
    with pytest.raises(BackendError, match="OUT_OF_MEMORY; the GPU has too little free memory"):
        memory.empty((2**20,), np.uint8)


def test_trim_gives_back_what_is_idle(memory: DeviceMemory, late_device: LateDevice) -> None:
    tensors = [memory.upload(numbers(1000)) for _ in range(3)]
    del tensors[1:]
    memory.trim()
    counts = late_device.counts
    assert (counts.device_blocks, counts.host_blocks) == (1, 0)
    np.testing.assert_array_equal(memory.download(tensors[0]), numbers(1000))


def test_idle_memory_has_a_limit_but_a_loop_keeps_its_blocks(
    memory: DeviceMemory, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._device, "_limit", 10_000)

    def frame(*sizes: int) -> set[int]:
        tensors = [memory.empty((size,), np.uint8) for size in sizes]
        addresses = {tensor.address for tensor in tensors}
        tensors.clear()
        memory.synchronize()
        return addresses

    before = frame(9_000, 30_000)
    assert all(frame(9_000, 30_000) == before for _ in range(10))
    for turn in range(20):  # objects come and go
        frame(1_000 + 1_000 * turn)
    for _ in range(KEPT_TURNS + 1):
        frame(500)
    assert late_device.counts.device_bytes <= 10_000 + 500


def test_pending_uploads_are_bounded(
    memory: DeviceMemory, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "PINNED_LIMIT", 10_000)
    monkeypatch.setattr(memory._pinned, "_limit", 10_000)
    tensors = [memory.upload(numbers(1_000, seed=n)) for n in range(20)]
    assert late_device.counts.host_bytes <= 10_000 + 4_096
    for seed, tensor in enumerate(tensors):
        np.testing.assert_array_equal(memory.download(tensor), numbers(1_000, seed=seed))


def test_another_thread_may_drop_tensors_and_use_the_memory(memory: DeviceMemory) -> None:
    tensors = [memory.upload(numbers(100))]
    results = []

    def work() -> None:
        results.append(memory.download(tensors.pop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], numbers(100))


def test_close_frees_everything_the_stream_last(
    memory: DeviceMemory, late_device: LateDevice
) -> None:
    tensor = memory.upload(numbers(10))
    stream = memory.stream
    freed: list[bool] = []
    free = driver().free
    memory._device._release = lambda address: (
        freed.append(late_device.stream_exists(stream)),
        free(address),
    )[-1]
    memory.close()
    memory.close()
    counts = late_device.counts
    assert (counts.device_blocks, counts.host_blocks, counts.streams) == (0, 0, 0)
    assert freed == [True]
    for late in (lambda: memory.empty((1,)), lambda: memory.download(tensor)):
        with pytest.raises(BackendError, match="this backend is closed"):
            late()


def test_close_succeeds_on_a_gpu_that_failed(memory: DeviceMemory, late_device: LateDevice) -> None:
    memory.upload(numbers(10))
    for function in ("cuStreamSynchronize", "cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2"):
        late_device.fail(function, status=700, times=5)
    with pytest.raises(BackendError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        memory.synchronize()
    memory.close()


def test_memory_that_is_dropped_closes_itself(late_device: LateDevice) -> None:
    memory = DeviceMemory()
    tensor: DeviceTensor | None = memory.empty((3,))
    gc.disable()  # no cycle may keep it
    try:
        del memory
        assert late_device.counts.device_blocks == late_device.counts.streams == 0
    finally:
        gc.enable()
    assert tensor is not None
