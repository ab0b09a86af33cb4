"""Tasks in processes: what is lost when a process dies, and how they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sam2_edge.batch.processes import Processes


@dataclass(frozen=True)
class Squares:
    """Squares numbers. Those in `fatal` kill their process, once or always."""

    folder: Path
    fatal: tuple[int, ...] = ()
    always: bool = False

    def open(
        self, _threads: int | None, _stopped: Callable[[], bool], advance: Callable[[], None]
    ) -> Callable[[int], int]:
        def square(number: int) -> int:
            marker = self.folder / str(number)
            if number in self.fatal and (self.always or not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if number < 0:
                raise ValueError(f"{number} is negative")
            advance()
            return number**2

        return square

    def lost(self, task: int, reason: str) -> int:
        assert "killed" in reason
        return -task


def test_every_task_has_a_result(tmp_path: Path) -> None:
    frames: list[int] = []
    pool = Processes(Squares(tmp_path), 2)
    assert sorted(pool.run(range(7), frames.append)) == [0, 1, 4, 9, 16, 25, 36]
    assert frames == sorted(frames)
    assert frames[-1] == 7


def test_a_process_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    pool = Processes(Squares(tmp_path, fatal=(3,)), 2)
    assert sorted(pool.run(range(6))) == [0, 1, 4, 9, 16, 25]


def test_a_task_that_always_kills_its_process_is_lost_alone(tmp_path: Path) -> None:
    pool = Processes(Squares(tmp_path, fatal=(2, 4), always=True), 2)
    assert sorted(pool.run(range(6))) == [-4, -2, 0, 1, 9, 25]


def test_an_error_in_a_worker_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        list(Processes(Squares(tmp_path), 2).run([1, -1]))
