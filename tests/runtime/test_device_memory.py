"""Device memory and CUDA graphs, with a stand-in for CUDA that only tracks addresses."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sam2_edge import BackendError
from sam2_edge.runtime.backends.cuda import graphs
from sam2_edge.runtime.backends.cuda import memory as device_memory
from sam2_edge.runtime.backends.cuda.graphs import MAX_FAILURES, MAX_GRAPHS, WARM_RUNS, CudaGraphs
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory


class Status(int):
    """A CUDA status; 0 is success."""

    @property
    def name(self) -> str:
        return {0: "cudaSuccess", 2: "cudaErrorMemoryAllocation"}.get(self, "cudaErrorUnknown")


class StandIn:
    """Counts allocations and frees; captures succeed unless `capture_fails`."""

    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, memory: int = 10_000) -> None:
        self.memory, self.taken = memory, {}
        self.streams = self.launches = self.captures = self.graphs = 0
        self.capture_fails = False

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if sum(self.taken.values()) + size > self.memory:
            return Status(2), 0
        address = 1000 + 1000 * len(self.taken)
        while address in self.taken:
            address += 1000
        self.taken[address] = size
        return Status(0), address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.taken[address]
        return (Status(0),)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.streams += 1
        return Status(0), 7

    def cudaStreamDestroy(self, _stream: int) -> tuple[Any, ...]:
        self.streams -= 1
        return (Status(0),)

    def cudaStreamSynchronize(self, _stream: int) -> tuple[Any, ...]:
        return (Status(0),)

    def cudaStreamBeginCapture(self, _stream: int, _mode: int) -> tuple[Any, ...]:
        return (Status(0),)

    def cudaStreamEndCapture(self, _stream: int) -> tuple[Any, ...]:
        return Status(1 if self.capture_fails else 0), "graph"

    def cudaGraphInstantiate(self, _graph: Any, _flags: int) -> tuple[Any, ...]:
        self.captures += 1
        self.graphs += 1
        return Status(0), f"graph {self.captures}"

    def cudaGraphDestroy(self, _graph: Any) -> tuple[Any, ...]:
        return (Status(0),)

    def cudaGraphExecDestroy(self, _graph: Any) -> tuple[Any, ...]:
        self.graphs -= 1
        return (Status(0),)

    def cudaGraphLaunch(self, _graph: Any, _stream: int) -> tuple[Any, ...]:
        self.launches += 1
        return (Status(0),)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    for module in (device_memory, graphs):
        monkeypatch.setattr(module, "bindings", lambda: stand_in)
    return stand_in


def test_a_loop_finds_its_tensors_at_the_same_addresses(cuda: StandIn) -> None:
    memory = DeviceMemory()
    seen = set()
    for turn in range(20):
        tensors = [memory.empty((10,)) for _ in range(3)]
        seen.add(tuple(t.address for t in tensors))
        while tensors:  # freed in another order each time
            del tensors[turn % len(tensors)]
    assert len(seen) == 1
    assert len(cuda.taken) == 3


@pytest.mark.usefixtures("cuda")
def test_a_view_keeps_its_memory() -> None:
    memory = DeviceMemory()
    view = memory.empty((3, 5))[1]
    assert memory.empty((3, 5)).address != view.address - 20
    assert view.shape == (5,)


def test_idle_memory_of_other_sizes_is_freed_if_memory_is_short(cuda: StandIn) -> None:
    memory = DeviceMemory()
    in_use = memory.empty((500,))
    for size in range(1200, 1900, 100):
        memory.empty((size,))  # 4 bytes each: 4,800 to 7,200, idle at once
    assert sum(cuda.taken.values()) <= cuda.memory
    assert in_use.address in cuda.taken
    with pytest.raises(BackendError, match="MemoryAllocation; the GPU has too little free memory"):
        memory.empty((2400,))


def test_all_memory_is_freed_with_the_last_tensor(cuda: StandIn) -> None:
    memory = DeviceMemory()
    tensor = memory.empty((8,), np.uint8)
    memory.empty((9,))
    del memory
    gc.collect()
    assert len(cuda.taken) == 2  # one tensor is left
    del tensor
    gc.collect()
    assert cuda.taken == {}
    assert cuda.streams == 0


def test_a_graph_is_captured_once_shapes_and_addresses_repeat(cuda: StandIn) -> None:
    graphs, plain = CudaGraphs(7, "x"), []
    for _ in range(10):
        graphs.run((1, 2), (1000, 2000), lambda: plain.append(1))
    assert cuda.captures == 1
    assert len(plain) == WARM_RUNS + 2  # the last one is recorded
    assert cuda.launches == 10 - WARM_RUNS - 1
    del graphs
    gc.collect()
    assert cuda.graphs == 0


def test_nothing_is_captured_while_shapes_change_and_old_graphs_are_freed(cuda: StandIn) -> None:
    graphs = CudaGraphs(7, "x")
    for index in range(40):
        graphs.run(index % 2, (1000,), lambda: None)
    assert cuda.captures == 0
    for _ in range(5):
        graphs.run("steady", (1000,), lambda: None)
    assert cuda.graphs == 1
    graphs.run("other", (1000,), lambda: None)
    assert cuda.graphs == 0


def test_graphs_are_limited_and_failures_are_logged_once(
    cuda: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = CudaGraphs(7, "x")
    for turn in range(4 * 3 * MAX_GRAPHS):
        graphs.run(1, (turn % (3 * MAX_GRAPHS),), lambda: None)
    assert cuda.captures <= MAX_GRAPHS
    cuda.capture_fails = True
    failing, plain = CudaGraphs(7, "decoder"), []
    for _ in range(20):
        failing.run(1, 1, lambda: plain.append(1))
    assert len(plain) == 20 + MAX_FAILURES
    assert [r.message for r in caplog.records if "decoder" in r.message] == [
        "decoder runs without a CUDA graph: ending a capture failed with cudaErrorUnknown; "
        "check the driver with nvidia-smi"
    ]


def test_the_remedy_for_an_old_driver_fits_jetpack_6() -> None:
    from sam2_edge.runtime.backends.cuda.driver import _remedy

    assert "pip install 'cuda-bindings<13'" in _remedy("cudaErrorInsufficientDriver")
