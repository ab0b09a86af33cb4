"""Reading a camera that stalls, vanishes, hangs or sends garbage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.preprocess import PreparedFrame, TrackerInput, prepare_frame
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.streaming import capture as capture_module
from sam2_edge.runtime.streaming.capture import (
    MAX_HUNG_READERS,
    MAX_WAITING_FRAMES,
    OPENING_S,
    STALL_S,
    Capture,
)
from tests.helpers.cameras import Hang, ScriptedCamera, opener, picture
from tests.helpers.clock import WAIT_S, FakeTime, wait_until

BLACK = np.zeros((48, 64, 3), np.uint8)
STEADY = [picture(2)] * 500

Make = Callable[..., Capture]


def next_frame(capture: Capture, timeout_s: float) -> tuple[SourceFrame, TrackerInput] | None:
    return capture.take() if capture.wait(timeout_s) else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock of the capture: nothing stalls until a test advances it."""
    fake = FakeTime()
    monkeypatch.setattr(capture_module, "time", fake)
    monkeypatch.setattr(capture_module, "FIRST_BACKOFF_S", 0.01)
    return fake


@pytest.fixture
def start(clock: FakeTime) -> Iterator[Make]:  # noqa: ARG001
    """Starts captures, which keep every frame by default, and closes them."""
    captures: list[Capture] = []

    def make(*cameras: ScriptedCamera | SourceError, every_frame: bool = True) -> Capture:
        captures.append(Capture(opener(*cameras), every_frame=every_frame))
        captures[-1].start()
        return captures[-1]

    yield make
    for capture in captures:
        capture.close()


def take(capture: Capture, count: int) -> list[int]:
    """Return the first pixels of the next frames; fewer if the source ends."""
    found: list[int] = []

    def enough() -> bool:
        taken = next_frame(capture, 0.02)
        if taken is not None:
            found.append(int(taken[0].picture[0, 0, 0]))
        return len(found) == count or capture.ended

    wait_until(enough)
    return found


def test_a_file_yields_every_frame_in_order_to_a_slow_consumer(start: Make) -> None:
    file = ScriptedCamera([picture(i) for i in range(20)], ends=True)
    capture = start(file)
    wait_until(lambda: capture.counts.captured == MAX_WAITING_FRAMES)
    assert take(capture, 99) == list(range(20))
    assert capture.ended
    assert file.closed.wait(WAIT_S)
    assert capture.counts.dropped == 0


def test_a_slow_consumer_gets_the_latest_frame_and_dropped_ones_are_counted(start: Make) -> None:
    hang = Hang()
    capture = start(ScriptedCamera([*(picture(i) for i in range(10)), hang]), every_frame=False)
    assert hang.entered.wait(WAIT_S)
    assert take(capture, 1) == [9]
    assert capture.counts.dropped == 9
    hang.released.set()


def test_an_unplugged_camera_is_reopened_until_it_is_back(start: Make) -> None:
    gone = SourceError("gone")
    capture = start(ScriptedCamera([picture(1)]), gone, gone, ScriptedCamera(STEADY))
    assert take(capture, 2) == [1, 2]
    assert capture.counts.reconnects == 1


def test_every_change_of_an_unplugged_camera_is_one_line(
    start: Make, caplog: pytest.LogCaptureFixture
) -> None:
    away = SourceError("0 cannot be opened")
    cameras = (ScriptedCamera(STEADY[:2]), away, away, away, ScriptedCamera(STEADY[:3]))
    take(start(*cameras, ScriptedCamera(STEADY)), 8)
    lost, back = "the camera delivers no frames; reopening it", "frames arrive again"
    assert caplog.messages == [lost, "0 cannot be opened; reopening it", back, lost, back]


@pytest.mark.usefixtures("clock")
def test_each_failed_opening_doubles_the_wait_until_a_frame_comes() -> None:
    waits: list[float] = []
    scripts = ([], [], [], [picture(1)], [])

    def open_next() -> ScriptedCamera:
        waits.append(capture._backoff_s)
        return ScriptedCamera(scripts[min(len(waits), len(scripts)) - 1])

    capture = Capture(open_next)
    capture.start()
    wait_until(lambda: len(waits) >= 5)
    capture.close()
    # After the frame the first wait was used again, and it doubles from there.
    assert waits[:5] == [0.01, 0.02, 0.04, 0.08, 0.02]


def test_a_camera_that_hangs_is_abandoned_and_reopened(start: Make, clock: FakeTime) -> None:
    hang = Hang(picture(99))
    hanging = ScriptedCamera([picture(1), hang])
    capture = start(hanging, ScriptedCamera(STEADY))
    assert take(capture, 1) == [1]
    assert hang.entered.wait(WAIT_S)
    assert next_frame(capture, 0) is None
    assert capture.counts.stalls == 0
    clock.now += STALL_S
    assert take(capture, 1) == [2]
    assert capture.counts.stalls == 1
    hang.released.set()
    assert hanging.closed.wait(WAIT_S)
    assert 99 not in take(capture, 20)


def test_the_number_of_hung_readers_is_limited(start: Make, clock: FakeTime) -> None:
    hangs = [Hang() for _ in range(MAX_HUNG_READERS + 2)]
    capture = start(*(ScriptedCamera([hang]) for hang in hangs))
    for hang in hangs[: MAX_HUNG_READERS + 1]:
        assert hang.entered.wait(WAIT_S)
        clock.now += STALL_S
        next_frame(capture, 0)
    assert capture.counts.stalls == MAX_HUNG_READERS
    assert capture.counts.reconnects == MAX_HUNG_READERS
    for hang in hangs:
        hang.released.set()


def test_blank_corrupt_and_unsupported_frames_are_skipped_and_counted(start: Make) -> None:
    deep, empty = np.zeros((48, 64), np.uint16), np.zeros((0, 0, 3), np.uint8)
    capture = start(ScriptedCamera([picture(1), BLACK, deep, empty, picture(2)]))
    assert take(capture, 2) == [1, 2]
    counts = capture.counts
    assert (counts.blank, counts.corrupt, counts.unsupported) == (1, 1, 1)


def test_gray_frames_are_tracked_and_changes_of_size_counted(start: Make) -> None:
    gray = picture(7)[..., 0]
    thermal = np.arange(24 * 32, dtype=np.uint32).reshape(24, 32).astype(np.uint8)
    capture = start(ScriptedCamera([gray, gray[..., None], thermal]))
    assert take(capture, 3) == [7, 7, 0]
    assert capture.counts.size_changes == 1


def test_a_kind_of_frame_is_named_once_in_the_log(
    start: Make, caplog: pytest.LogCaptureFixture
) -> None:
    deep = np.zeros((48, 64), np.uint16)
    capture = start(ScriptedCamera([picture(1), *[deep] * 50, picture(2)]))
    assert take(capture, 2) == [1, 2]
    (told,) = [r.message for r in caplog.records if "uint16" in r.message]
    assert told.startswith("frames are skipped: a frame is [H, W] uint16; convert it to")


def test_a_camera_of_unsupported_frames_is_an_error(start: Make, clock: FakeTime) -> None:
    def later() -> np.ndarray:
        clock.now += STALL_S + 1
        return np.zeros((48, 64), np.uint16)

    with pytest.raises(SourceError, match=r"no usable frame: a frame is \[H, W\] uint16; convert"):
        take(start(ScriptedCamera([later] * 9)), 1)


def test_a_camera_under_a_lens_cap_is_reopened_ever_more_rarely(clock: FakeTime) -> None:
    began_s, reopened_s = clock.now, []

    def black() -> np.ndarray:
        clock.now += 1
        return BLACK

    class Capped(ScriptedCamera):
        """Black until it has been opened often enough, then light again, then black."""

        def __init__(self) -> None:
            reopened_s.append(clock.now - began_s)
            often = len(reopened_s) == 8
            super().__init__([picture(1), *[black] * 7] if often else [black] * 9999)

    capture = Capture(Capped, every_frame=True)
    capture.start()
    wait_until(lambda: len(reopened_s) >= 10)
    capture.close()
    waits = np.diff(reopened_s)
    assert waits[:7].tolist() == [STALL_S * 2**n + 1 for n in range(7)]
    assert waits[7:9].max() <= 2 * STALL_S + 1  # a good frame resets the wait
    assert capture.counts.captured == 1


def test_a_camera_that_cannot_be_closed_is_still_reopened(start: Make) -> None:
    class Stuck(ScriptedCamera):
        def close(self) -> None:
            raise OSError("the device is stuck")

    assert take(start(Stuck([picture(1)]), ScriptedCamera(STEADY)), 2) == [1, 2]


def test_opening_a_camera_may_take_longer_than_reading_a_frame(clock: FakeTime) -> None:
    opening = Hang()

    def open_slowly() -> ScriptedCamera:
        opening()
        return ScriptedCamera(STEADY)

    capture = Capture(open_slowly, every_frame=True)
    capture.start()
    assert opening.entered.wait(WAIT_S)
    clock.now += OPENING_S - 1
    assert next_frame(capture, 0) is None
    opening.released.set()
    assert take(capture, 3) == [2, 2, 2]
    capture.close()
    assert (capture.counts.stalls, capture.counts.reconnects) == (0, 0)


def test_a_file_that_is_slow_to_read_is_not_reopened(start: Make, clock: FakeTime) -> None:
    slow = Hang(picture(1))
    capture = start(ScriptedCamera([picture(0), slow, picture(2)], ends=True))
    assert take(capture, 1) == [0]
    assert slow.entered.wait(WAIT_S)
    clock.now += 10 * STALL_S
    assert next_frame(capture, 0) is None
    slow.released.set()
    assert take(capture, 9) == [1, 2]
    assert capture.counts.stalls == 0


@pytest.mark.parametrize("error", [OSError("no device"), RuntimeError("driver")])
def test_a_camera_that_raises_is_reopened_but_a_file_or_a_first_opening_is_an_error(
    start: Make, error: Exception
) -> None:
    def fail() -> None:
        raise error

    def never() -> ScriptedCamera:
        raise error

    reopened = start(ScriptedCamera([picture(1), fail]), ScriptedCamera(STEADY))
    assert take(reopened, 2) == [1, 2]
    with pytest.raises(SourceError, match="the camera failed with"):
        take(start(ScriptedCamera([fail], ends=True)), 1)
    refused = Capture(never)
    refused.start()
    with pytest.raises(SourceError, match="the camera failed with"):
        take(refused, 1)
    refused.close()


def test_a_camera_that_cannot_be_opened_at_first_is_an_error(start: Make) -> None:
    with pytest.raises(SourceError, match="no such camera"):
        take(start(SourceError("no such camera")), 1)


def test_frames_are_prepared_by_the_reader_and_come_with_their_picture() -> None:
    threads = set[str]()

    def prepare(frame: np.ndarray) -> PreparedFrame:
        threads.add(threading.current_thread().name)
        return prepare_frame(frame, 32)

    file = ScriptedCamera([picture(1), picture(2)[..., 0], picture(3)], ends=True)
    capture = Capture(opener(file), every_frame=True, prepare=prepare)
    capture.start()
    for index in range(3):
        taken = next_frame(capture, WAIT_S)
        assert taken is not None
        frame, ready = taken
        assert frame.index == index
        assert isinstance(ready, PreparedFrame)
        np.testing.assert_array_equal(ready.pixels, prepare_frame(frame.picture, 32).pixels)
    capture.close()
    assert threads == {"sam2_edge reader"}


def test_frames_that_cannot_be_tracked_are_not_prepared_and_a_failure_reopens(
    clock: FakeTime,  # noqa: ARG001
) -> None:
    seen: list[int] = []

    def prepare(frame: np.ndarray) -> PreparedFrame:
        seen.append(int(frame[0, 0, 0]))
        if len(seen) == 2:
            raise MemoryError
        return prepare_frame(frame, 32)

    first = ScriptedCamera([picture(1), BLACK, picture(2), picture(3)])
    capture = Capture(
        opener(first, ScriptedCamera([picture(4)])), every_frame=True, prepare=prepare
    )
    capture.start()
    assert take(capture, 2) == [1, 4]
    capture.close()
    assert seen[:3] == [1, 2, 4]
    assert capture.counts.reconnects >= 1
