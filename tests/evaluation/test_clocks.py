"""How a benchmark times graphs, with a stand-in for CUDA."""

from __future__ import annotations

from typing import Any

import pytest

from sam2_edge.evaluation.bench import targets


class Cuda:
    """CUDA events on a clock controlled by the test."""

    def __init__(self) -> None:
        self.time_ms, self.alive = 0.0, 0
        self._recorded: dict[int, float] = {}

    def cudaEventCreate(self) -> tuple[int, int]:
        self.alive += 1
        return 0, len(self._recorded)

    def cudaEventRecord(self, event: int, _stream: int) -> tuple[int]:
        self._recorded[event] = self.time_ms
        return (0,)

    def cudaEventSynchronize(self, _event: int) -> tuple[int]:
        return (0,)

    def cudaEventElapsedTime(self, first: int, last: int) -> tuple[int, float]:
        return 0, self._recorded[last] - self._recorded[first]

    def cudaEventDestroy(self, _event: int) -> None:
        self.alive -= 1


def test_a_gpu_is_timed_by_events_that_are_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda: Any = Cuda()
    monkeypatch.setattr(targets, "bindings", lambda: cuda)
    clock = targets.CudaClock(stream=7)

    first = clock.now()
    cuda.time_ms += 2.5
    last = clock.now()
    cuda.time_ms += 9.0

    assert clock.milliseconds(first, last) == 2.5
    assert cuda.alive == 0


def test_a_cpu_is_timed_by_the_host() -> None:
    assert targets.HostClock().milliseconds(1.5, 1.75) == 250.0
