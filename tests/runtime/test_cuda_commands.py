"""Whole frames as CUDA graphs, on a GPU that runs late: an engine here adds arrays."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from sam2_edge import BackendError
from sam2_edge.runtime.backends.cuda import commands as commands_module
from sam2_edge.runtime.backends.cuda.commands import MAX_FAILURES, WARM_RUNS, Commands
from sam2_edge.runtime.backends.cuda.driver import driver
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor
from tests.helpers.late_device import LateDevice

SLOTS, MODULUS = 5, 1009


class Engine:
    """Computes target = sum(sources) % 1009 + 1 on the late device, by addresses as TensorRT."""

    def __init__(self, device: LateDevice, commands: Commands, name: str = "engine") -> None:
        self.device, self.commands, self.name = device, commands, name
        self.contexts: set[Hashable] = set()  # of captured graphs
        self.calls: list[bool] = []
        self.fails_at: int | None = None  # which call for a captured graph
        commands.on_drop(self.contexts.difference_update)

    def run(self, sources: list[DeviceTensor], target: DeviceTensor) -> None:
        addresses = (*(source.address for source in sources), target.address)
        key = (self.name, target.shape, addresses)
        count = target.nbytes // 4
        self.commands.submit(key, lambda captured: self.enqueue(key, count, captured))

    def enqueue(self, key: tuple[Any, ...], count: int, captured: bool) -> None:
        self.calls.append(captured)
        if captured:
            self.contexts.add(key)
            if self.calls.count(True) - 1 == self.fails_at:
                raise BackendError("no memory for another context")
        arrays = [np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(a)) for a in key[2]]

        def compute() -> None:
            arrays[-1][:] = np.sum(arrays[:-1], axis=0) % MODULUS + 1

        if not self.device.enqueue(self.commands.stream, compute):
            raise BackendError(f"{self.name} failed")


class Loop:
    """Frames as of a tracker: upload, an engine that reads a ring of memories, one that writes."""

    def __init__(self, device: LateDevice, *, whole_frames: bool = True) -> None:
        self.memory = DeviceMemory(whole_frames=whole_frames)
        self.commands = self.memory.commands
        self.attention = Engine(device, self.commands, "attention")
        self.encoder = Engine(device, self.commands, "encoder")
        self.ring = self.memory.upload(np.zeros((SLOTS, 64), np.int32))
        self.memory.synchronize()
        self.index = 0

    def frame(self) -> np.ndarray[Any, Any]:
        inputs = {"image": np.full(64, self.index, np.int32), "age": np.ones(3, np.int32)}
        uploaded = self.memory.upload_block(inputs)
        slots = [self.ring[slot] for slot in range(SLOTS)]
        outputs = self.memory.empty_block({"mask": ((64,), "int32"), "none": ((3,), "int32")})
        self.attention.run([uploaded["image"], *slots], outputs["mask"])
        del uploaded, slots  # their memory may be reused within the frame
        scratch = self.memory.empty((64,), np.int32)
        self.encoder.run([outputs["mask"]], scratch)
        self.memory.copy(scratch, self.ring[self.index % SLOTS])
        self.index += 1
        return self.memory.download_block({"mask": outputs["mask"]})["mask"]


def expected(frames: int) -> list[int]:
    ring, results = [0] * SLOTS, []
    for index in range(frames):
        results.append((index + sum(ring)) % MODULUS + 1)
        ring[index % SLOTS] = results[-1] % MODULUS + 1
    return results


STEADY = SLOTS * (WARM_RUNS + 2)
"""Frames until all are captured: the first one takes new memory, which is in no order."""


@pytest.fixture
def commands(late_device: LateDevice) -> Commands:
    assert late_device.counts.streams == 0
    return Commands(driver(), driver().create_stream(), whole_frames=True)


def frame(commands: Commands, *keys: Hashable) -> list[bool]:
    """Run a frame of these keys; return with which `captured` its parts were called."""
    calls: list[bool] = []
    for key in keys:
        commands.submit(key, calls.append)
    commands.flush()
    return calls


PLAIN, CAPTURED, LAUNCHED = [False], [True, True], list[bool]()


def test_work_is_enqueued_at_once_without_whole_frames(late_device: LateDevice) -> None:
    loop = Loop(late_device, whole_frames=False)
    results = [loop.frame()[0] for _ in range(3 * STEADY)]
    assert results == expected(len(results))
    assert late_device.counts.captures == 0
    assert not any(loop.attention.calls)


def test_captured_frames_equal_those_that_are_not(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    results = [loop.frame() for _ in range(60)]
    for result, value in zip(results, expected(60), strict=True):
        np.testing.assert_array_equal(result, np.full(64, value, np.int32))
    assert late_device.counts.captures == late_device.counts.executables == SLOTS
    assert late_device.counts.graphs == 0


def test_a_steady_frame_is_one_launch_and_one_wait(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    for _ in range(STEADY):
        loop.frame()
    with late_device.counting() as counted:
        for _ in range(SLOTS):
            loop.frame()
    names = ("launches", "waits", "enqueues", "uploads", "downloads", "device_copies", "runs")
    assert [counted[name] / SLOTS for name in names] == [1, 1, 0, 1, 1, 1, 2]
    assert counted["captures"] == counted["device_blocks"] == counted["host_blocks"] == 0


def test_work_is_kept_until_the_frame_ends(commands: Commands) -> None:
    calls: list[str] = []
    commands.submit("a", lambda _: calls.append("a"))
    commands.submit("b", lambda _: calls.append("b"))
    assert calls == []
    commands.flush()
    commands.flush()
    assert calls == ["a", "b"]


def test_a_frame_is_run_as_it_will_be_captured_and_then_recorded(commands: Commands) -> None:
    seen = [frame(commands, "a") for _ in range(WARM_RUNS + 2)]
    assert seen == [PLAIN] * WARM_RUNS + [CAPTURED, LAUNCHED]


def test_other_addresses_are_another_frame(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    values = [loop.frame()[0] for _ in range(STEADY)]
    taken = loop.memory.empty((64,), np.int32)  # the next frames get other memory
    before = late_device.counts.launches
    values += [loop.frame()[0] for _ in range(SLOTS * WARM_RUNS)]
    assert late_device.counts.launches == before
    del taken
    values += [loop.frame()[0] for _ in range(STEADY)]
    assert values == expected(len(values))
    assert late_device.counts.launches > before


def test_freed_memory_does_not_come_back_in_a_graph(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    values = [loop.frame()[0] for _ in range(STEADY + 2)]
    loop.memory.trim()
    taken = [loop.memory.empty((size,), np.int32) for size in (64, 70, 128)]
    values += [loop.frame()[0] for _ in range(2 * STEADY)]
    assert values == expected(len(values))
    assert len(taken) == 3


def test_graphs_share_the_contexts_of_equal_work_until_the_last_is_dropped(
    commands: Commands,
) -> None:
    dropped: list[set[Hashable]] = []
    commands.on_drop(dropped.append)
    for _ in range(WARM_RUNS + 1):
        frame(commands, "shared", "a")
        frame(commands, "shared", "b")
    commands._drop([("shared", "a")])
    assert dropped == [{"a"}]
    commands._drop([("shared", "b")])
    assert dropped == [{"a"}, {"shared", "b"}]


def test_drop_graphs_finishes_the_work_and_captures_anew(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    values = [loop.frame()[0] for _ in range(STEADY)]
    result = loop.memory.empty((64,), np.int32)
    loop.encoder.run([loop.ring[0]], result)
    loop.commands.drop_graphs()
    assert late_device.counts.executables == 0
    assert loop.attention.contexts == loop.encoder.contexts == set()
    assert loop.memory.download(result)[0] == values[-SLOTS] + 2
    del result
    values += [loop.frame()[0] for _ in range(2 * STEADY)]
    assert values == expected(len(values))
    assert late_device.counts.executables == SLOTS


@pytest.mark.parametrize(
    "function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_failed_capture_changes_nothing(
    late_device: LateDevice, function: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(late_device)
    late_device.fail(function, times=1000)
    with caplog.at_level(logging.WARNING):
        values = [loop.frame()[0] for _ in range(3 * STEADY)]
    assert values == expected(len(values))
    counts = late_device.counts
    assert (counts.graphs, counts.executables, counts.launches) == (0, 0, 0)
    assert loop.attention.contexts == loop.encoder.contexts == set()
    assert [r.message.split(":")[0] for r in caplog.records] == ["frames run without CUDA graphs"]
    assert loop.attention.calls.count(True) <= 2 * MAX_FAILURES


def test_after_one_failure_the_next_capture_succeeds(late_device: LateDevice) -> None:
    loop = Loop(late_device)
    late_device.fail("cuStreamEndCapture")
    values = [loop.frame()[0] for _ in range(3 * STEADY)]
    assert values == expected(len(values))
    assert late_device.counts.executables == SLOTS


@pytest.mark.parametrize("fails_at", [0, 1])
def test_an_engine_may_refuse_to_be_captured(late_device: LateDevice, fails_at: int) -> None:
    """The first call is to run, the second to be recorded."""
    loop = Loop(late_device)
    loop.encoder.fails_at = fails_at
    values = [loop.frame()[0] for _ in range(3 * STEADY)]
    assert values == expected(len(values))
    assert late_device.counts.executables == SLOTS
    assert late_device.counts.graphs == 0


def test_what_ran_before_a_refusal_does_not_run_again(commands: Commands) -> None:
    calls: list[tuple[str, bool]] = []

    def refuse(captured: bool) -> None:
        calls.append(("second", captured))
        if captured:
            raise BackendError("no memory for another context")

    for _ in range(WARM_RUNS + 1):
        calls.clear()
        commands.submit("first", lambda captured: calls.append(("first", captured)))
        commands.submit("second", refuse)
        commands.submit("third", lambda captured: calls.append(("third", captured)))
        commands.flush()
    assert calls == [("first", True), ("second", True), ("second", False), ("third", False)]


def test_contexts_are_dropped_when_nothing_runs(
    commands: Commands, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "MAX_GRAPHS", 1)
    monkeypatch.setattr(commands_module, "PATIENCE", 1)
    engine = Engine(late_device, commands)
    memory = DeviceMemory()
    tensors = [memory.empty((4,), np.int32) for _ in range(4)]
    memory.synchronize()
    pending: list[int] = []
    commands.on_drop(lambda _: pending.append(late_device.pending(commands.stream)))
    for target in tensors[1:3]:  # the second one takes the place of the first
        for _ in range(WARM_RUNS + 2):
            engine.run(tensors[:1], target)
            commands.flush()
    assert pending == [0]
    late_device.fail("cuStreamEndCapture")
    for _ in range(WARM_RUNS + 2):
        engine.run(tensors[:1], tensors[3])
        commands.flush()
    engine.run(tensors[:1], tensors[1])
    calls = len(engine.calls)
    commands.drop_graphs()
    assert len(engine.calls) == calls + 1
    assert pending == [0] * len(pending)
    assert len(pending) == 4
    assert engine.contexts == set()


def test_an_allocation_within_a_capture_only_fails_the_capture(commands: Commands) -> None:
    def enqueue(_captured: bool) -> None:
        address = driver().alloc(8)
        driver().free(address)

    for _ in range(WARM_RUNS + MAX_FAILURES + 1):
        commands.submit("allocates", enqueue)
        commands.synchronize()
    assert commands._graphs == {}


def test_a_capture_leaves_other_threads_alone(commands: Commands) -> None:
    errors: list[BackendError] = []

    def allocate() -> None:
        try:
            driver().free(driver().alloc(8))
        except BackendError as error:
            errors.append(error)

    def enqueue(_captured: bool) -> None:
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()

    for _ in range(WARM_RUNS + 1):
        commands.submit("work", enqueue)
        commands.flush()
    assert errors == []
    assert len(commands._graphs) == 1


def test_an_interrupt_ends_the_capture(commands: Commands, late_device: LateDevice) -> None:
    calls: list[bool] = []

    def enqueue(captured: bool) -> None:
        calls.append(captured)
        if calls.count(True) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in range(WARM_RUNS + 1):
            commands.submit("work", enqueue)
            commands.flush()
    assert not late_device.is_capturing(commands.stream)
    assert late_device.counts.graphs == 0
    commands.synchronize()


def test_graphs_are_bounded_and_a_long_cycle_is_not_captured_again_and_again(
    commands: Commands, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "MAX_GRAPHS", 4)
    monkeypatch.setattr(commands_module, "PATIENCE", 16)
    for turn in range(60):
        frame(commands, turn % 6)
    assert late_device.counts.captures == late_device.counts.executables == 4
    for turn in range(100):  # a new scene takes the place of the old one
        frame(commands, "new", turn % 4)
    assert late_device.counts.captures == 8
    assert late_device.counts.executables == 4
    assert frame(commands, "new", 0) == LAUNCHED
    for turn in range(1000):
        frame(commands, "never the same", turn)
    assert len(commands._runs) <= 16


def test_a_failure_drops_the_rest_of_its_frame_only(commands: Commands) -> None:
    calls: list[bool] = []

    def fail(_captured: bool) -> None:
        raise BackendError("decoder failed on the GPU")

    commands.submit("fails", fail)
    commands.submit("rest", calls.append)
    with pytest.raises(BackendError, match="decoder failed"):
        commands.synchronize()
    commands.synchronize()
    assert calls == []
    assert frame(commands, "next") == PLAIN


def test_close_frees_the_graphs_and_refuses_work(
    late_device: LateDevice,
) -> None:
    loop = Loop(late_device)
    for _ in range(STEADY):
        loop.frame()
    loop.memory.close()
    counts = late_device.counts
    assert (counts.executables, counts.device_blocks, counts.host_blocks, counts.streams) == (
        *(0, 0, 0, 0),
    )
    with pytest.raises(BackendError, match="closed; open another one"):
        loop.commands.submit("work", lambda _: None)
