"""Files in the camera loop: the first frame of a paused one, and what follows the last one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_edge import VideoTracker
from sam2_edge.runtime.streaming.loop import CameraLoop
from sam2_edge.runtime.streaming.stats import LoopStats
from tests.helpers.cameras import ScriptedCamera, picture
from tests.helpers.clock import wait_until
from tests.helpers.results import MemorySink

FRAMES = [picture(value) for value in range(3)]


@pytest.fixture
def tracker() -> VideoTracker:
    return VideoTracker("nano", threads=1)


def open_file() -> ScriptedCamera:
    return ScriptedCamera(FRAMES, ends=True)


def first_pixel(frame: NDArray[np.uint8]) -> int:
    return int(frame[0, 0, 0])


@pytest.mark.parametrize("every_frame", [True, False])
def test_a_paused_file_shows_its_first_frame_and_loses_none(
    tracker: VideoTracker, every_frame: bool
) -> None:
    loop = CameraLoop(open_file, tracker, every_frame=every_frame)
    loop.pause()
    results = iter(loop)
    first = next(results)
    added = loop.prompt(1, box=[5, 5, 40, 40])
    assert next(results).updated
    assert added.done()
    stats = LoopStats(loop)
    stats.observe(first)
    assert stats.snapshot()["fps"] == 0
    loop.resume()
    shown = [first_pixel(tracked.frame.picture) for tracked in (first, *results)]
    assert shown[0] == 0
    assert shown[-1] == 2
    assert len(shown) == 3 or not every_frame


def test_a_finished_file_takes_commands_and_is_replayed_with_its_objects(
    tracker: VideoTracker,
) -> None:
    loop = CameraLoop(open_file, tracker, every_frame=True, at_end="wait")
    results = iter(loop)
    for _ in range(3):
        last = next(results)
    assert next(results).updated  # says that it has finished
    assert loop.finished
    loop.prompt(1, box=[5, 5, 40, 40])
    assert next(results).result.objects[0].object_id == 1
    loop.replay()
    tracked = next(result for result in results if not result.updated)
    assert tracked.frame.index == last.frame.index + 1
    assert first_pixel(tracked.frame.picture) == 0
    assert [entry.object_id for entry in tracked.result.objects] == [1]
    assert tracked.latency_s < 60
    loop.close()


def test_a_replay_before_the_end_does_nothing(tracker: VideoTracker) -> None:
    loop = CameraLoop(open_file, tracker, every_frame=True)
    results = iter(loop)
    next(results)
    loop.replay()
    assert len(list(results)) == 2


def test_a_file_that_loops_starts_over(tracker: VideoTracker) -> None:
    loop = CameraLoop(open_file, tracker, every_frame=True, at_end="loop")
    shown = []
    for tracked in loop:
        shown.append(first_pixel(tracked.frame.picture))
        if len(shown) == 7:
            loop.close()
    assert shown == [0, 1, 2, 0, 1, 2, 0]
    assert loop.counts.reconnects == 0


def test_files_are_complete_at_the_end_and_new_ones_begin_with_a_replay(
    tracker: VideoTracker,
) -> None:
    sink = MemorySink()
    sink.starts_new_file = True
    loop = CameraLoop(open_file, tracker, every_frame=True, at_end="wait", sinks=[sink])
    results = iter(loop)
    next(result for result in results if result.updated)
    wait_until(lambda: sink.closed == 1)
    assert sink.frames == [0, 1, 2]
    loop.replay()
    next(results)
    wait_until(lambda: 3 in sink.frames)
    loop.close()
    list(results)
    assert sink.closed == 2


def test_a_pause_does_not_count_for_rates_and_latency(tracker: VideoTracker) -> None:
    loop = CameraLoop(open_file, tracker, every_frame=True)
    stats = LoopStats(loop)
    results = iter(loop)
    for _ in range(2):
        stats.observe(next(results))
    assert stats.snapshot()["fps"] > 0
    loop.pause()
    assert stats.snapshot()["fps"] == 0
    resumed_s = time.monotonic()
    loop.resume()
    assert stats.snapshot()["fps"] == 0  # nothing has come since
    last = next(results)  # read before the pause
    assert last.waited_s <= last.latency_s <= time.monotonic() - resumed_s
    loop.close()
    assert list(results) == []
