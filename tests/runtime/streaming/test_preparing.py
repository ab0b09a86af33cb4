"""When a camera's reading thread prepares frames for the model."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_edge.runtime.preprocess import Frame, PreparedFrame, prepare_frame
from sam2_edge.runtime.streaming import preparing as preparing_module
from sam2_edge.runtime.streaming.preparing import FramePreparer
from tests.helpers.cameras import picture
from tests.helpers.clock import FakeTime


class Preparation:
    """Prepares a frame in `cost_s` on a fake clock."""

    def __init__(self, clock: FakeTime, cost_s: float) -> None:
        self.clock, self.cost_s = clock, cost_s
        self.preparer = FramePreparer(self._prepare)

    def _prepare(self, frame: Frame) -> PreparedFrame:
        self.clock.now += self.cost_s
        return prepare_frame(frame, 32)

    def frames(self, count: int, interval_s: float, size: tuple[int, int] = (48, 64)) -> list[bool]:
        """Return for frames that arrive at an interval whether each was prepared."""
        prepared = []
        for number in range(count):
            frame = picture(number, size)
            self.clock.now += interval_s
            ready = self.preparer(frame)
            prepared.append(isinstance(ready, PreparedFrame))
            if isinstance(ready, PreparedFrame):
                np.testing.assert_array_equal(ready.pixels, prepare_frame(frame, 32).pixels)
            else:
                assert ready is frame
        return prepared


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(preparing_module, "time", fake)
    return fake


def test_every_frame_is_prepared_if_there_is_time(clock: FakeTime) -> None:
    assert all(Preparation(clock, 0.010).frames(50, 0.030))


def test_preparing_does_not_delay_the_reader_of_a_fast_camera(clock: FakeTime) -> None:
    prepared = Preparation(clock, 0.030).frames(100, 0.010)
    assert prepared[0]
    assert not any(prepared[1:5])
    assert 2 <= sum(prepared) <= 15  # it is tried again from time to time


def test_one_slow_frame_is_no_reason_to_stop_preparing(clock: FakeTime) -> None:
    slow = Preparation(clock, 0.2)
    slow.frames(1, 0.030)
    slow.cost_s = 0.005
    assert sum(slow.frames(60, 0.030)) > 30


def test_another_size_of_frames_is_tried_at_once(clock: FakeTime) -> None:
    large = Preparation(clock, 0.2)
    large.frames(2, 0.030)
    large.cost_s = 0.002
    assert large.frames(2, 0.030, size=(24, 32)) == [True, True]
