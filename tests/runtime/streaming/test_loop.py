"""The camera loop: commands between frames, pausing and termination."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_edge import LoopError, Prompt, PromptError, VideoTracker
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.runtime.preprocess import PreparedFrame
from sam2_edge.runtime.streaming.commands import MAX_CREDIT_S, MAX_WAITING_COMMANDS
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.synthetic import SyntheticClip, center_click, clip
from tests.helpers.cameras import ScriptedCamera, opener, picture
from tests.helpers.clips import write_video
from tests.helpers.clock import wait_until
from tests.helpers.results import MemorySink


@pytest.fixture
def tracker() -> VideoTracker:
    return VideoTracker("nano", threads=1, remember_absent=False)


@pytest.fixture(scope="module")
def scene() -> SyntheticClip:
    return clip(3, frames=150, size=256, objects=2, split="heldout", photographs=False)


def file_of(scene: SyntheticClip, frames: int = 60) -> Callable[[], ScriptedCamera]:
    """Return a function that opens the scene as a file."""
    return opener(ScriptedCamera(scene.frames[:frames], ends=True))


def add(loop: CameraLoop, scene: SyntheticClip, object_id: int, frame: int) -> Future[Any]:
    return loop.prompt(object_id, points=[center_click(scene.mask(frame, object_id))])


def test_objects_are_added_refined_and_removed_while_it_runs(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    sink = MemorySink()
    loop = CameraLoop(file_of(scene), tracker, every_frame=True, sinks=[sink])
    added = add(loop, scene, 1, 0)  # waits for the first frame
    seen: list[LoopResult] = []
    futures = {}
    for tracked in loop:
        seen.append(tracked)
        index = tracked.frame.index
        if index == 9:
            futures["add"] = add(loop, scene, 2, 10)
        if index == 19:
            futures["refine"] = add(loop, scene, 1, 20)
        if index == 29:
            futures["remove"] = loop.remove(2)
        if index == 39:
            futures["unknown"] = loop.remove(7)
        if index == 49:
            futures["reset"] = loop.reset()
            futures["again"] = add(loop, scene, 1, 50)
    assert added.result(0).object_id == 1
    objects = [tuple(o.object_id for o in tracked.result.objects) for tracked in seen]
    assert objects[:10] == [(1,)] * 10
    assert objects[10:30] == [(1, 2)] * 20
    assert objects[30:] == [(1,)] * 30
    with pytest.raises(PromptError, match="object 7 is not tracked"):
        futures["unknown"].result(0)
    assert futures["again"].result(0).object_id == 1
    assert sink.frames == list(range(60))
    assert sink.closed == 1
    assert all(0 <= t.waited_s <= t.latency_s for t in seen)
    quality = [region_similarity(t.result[1].mask, scene.mask(t.frame.index, 1)) for t in seen[:6]]
    assert np.mean(quality) > 0.5


def test_no_more_objects_are_added_than_allowed(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    loop = CameraLoop(file_of(scene, 8), tracker, every_frame=True, max_objects=1)
    futures = [add(loop, scene, 1, 0), add(loop, scene, 2, 0)]
    for tracked in loop:
        if tracked.frame.index == 3:
            futures += [add(loop, scene, 1, 4), loop.remove(1), add(loop, scene, 2, 4)]
    with pytest.raises(PromptError, match="1 of at most 1 objects are tracked"):
        futures[1].result(0)
    assert [futures[n].result(0).object_id for n in (0, 2, 4)] == [1, 1, 2]


def test_commands_that_the_loop_does_not_run_are_refused(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    loop = CameraLoop(file_of(scene), tracker, every_frame=True)
    for _ in loop:
        waiting = loop.remove(5)
        loop.close()
    with pytest.raises(LoopError, match="the loop ended before this command"):
        waiting.result(0)
    with pytest.raises(LoopError, match="accepts no more commands"):
        loop.reset()
    with pytest.raises(LoopError, match="create another"):
        next(iter(loop))


def test_a_paused_loop_runs_commands_on_its_frame(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    loop = CameraLoop(file_of(scene), tracker, every_frame=True)
    results = iter(loop)
    first = next(results)
    loop.pause()
    add(loop, scene, 1, first.frame.index)
    second = next(results)
    assert second.updated
    assert second.frame.index == first.frame.index
    assert [o.object_id for o in second.result.objects] == [1]
    loop.rename(1, "cup")
    assert next(results).result.names == {1: "cup"}
    loop.resume()
    third = next(results)
    assert third.frame.index == first.frame.index + 1
    assert third.result.names == loop.names == {1: "cup"}
    loop.close()
    assert list(results) == []


def test_a_command_that_ends_the_loop_is_answered_first(
    scene: SyntheticClip, tracker: VideoTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(tracker, "prompt", broken)
    loop = CameraLoop(file_of(scene), tracker, every_frame=True)
    asked, later = loop.prompt(1, points=[(5, 5)]), loop.remove(1)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        list(loop)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        asked.result(0)
    with pytest.raises(LoopError, match="ended before this command"):
        later.result(0)


def test_heartbeat_is_called_while_there_is_no_frame(tracker: VideoTracker) -> None:
    beats: list[None] = []

    def wait_for_beats() -> None:
        before = len(beats)
        wait_until(lambda: len(beats) >= before + 5)

    camera = ScriptedCamera([picture(1), wait_for_beats], ends=True)
    loop = CameraLoop(opener(camera), tracker, heartbeat=lambda: beats.append(None))
    assert [tracked.frame.index for tracked in loop] == [0]


def test_a_slow_model_always_gets_the_latest_frame(scene: SyntheticClip) -> None:
    newest: list[int] = []

    class SlowTracker(VideoTracker):
        """Takes as long as three frames of the camera."""

        def track(self, *arguments: Any) -> Any:
            before = loop.counts.captured
            wait_until(lambda: loop.counts.captured >= before + 3)
            result = super().track(*arguments)
            newest.append(loop.counts.captured - 1)
            return result

    def endless() -> Iterator[Any]:
        for frame in itertools.cycle(scene.frames):
            time.sleep(0.002)
            yield frame

    loop = CameraLoop(opener(ScriptedCamera(endless())), SlowTracker("nano", threads=1))
    tracked = []
    for result in loop:
        tracked.append(result.frame.index)
        if len(tracked) == 8:
            loop.close()
    assert all(index >= seen for index, seen in zip(tracked[1:], newest, strict=False))
    assert loop.counts.dropped >= 2 * len(tracked)


def test_the_memory_of_an_absent_object_is_kept(tracker: VideoTracker) -> None:
    scene = clip(3, frames=150, size=256, objects=1, split="heldout", photographs=False)
    empty = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    tracker.track(scene.frames[0])
    tracker.prompt(1, points=[center_click(scene.mask(0, 1))])
    for frame in scene.frames[1:6]:
        assert tracker.track(frame)[1].present
    assert [tracker.track(empty)[1].present for _ in range(12)] == [False] * 12
    (batch,) = tracker._bank.read(tracker.frame_index, [1], span=16)
    assert sorted(batch.memory_age[:, 0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_video_file_is_tracked_to_its_end(tmp_path: Path, tracker: VideoTracker) -> None:
    path = write_video(tmp_path / "clip.avi", [picture(i) for i in range(12)], fps=200)
    assert [t.frame.index for t in CameraLoop(str(path), tracker)] == list(range(12))


def test_prompts_apply_to_the_first_frame_and_an_invalid_one_ends_the_loop(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    good = Prompt(1, points=[center_click(scene.mask(0, 1))])
    loop = CameraLoop(file_of(scene, 2), tracker, every_frame=True, prompts=[good])
    assert [[o.object_id for o in tracked.result.objects] for tracked in loop] == [[1], [1]]
    bad = Prompt(1, points=[(-5, 5)])
    loop = CameraLoop(file_of(scene, 2), VideoTracker("nano", threads=1), prompts=[bad])
    with pytest.raises(PromptError, match="outside the frame"):
        list(loop)


def test_a_frame_is_tracked_between_slow_commands(
    scene: SyntheticClip, tracker: VideoTracker
) -> None:
    loop = CameraLoop(file_of(scene, 8), tracker, every_frame=True)
    order: list[str] = []

    def slow_remove(_: int) -> None:
        time.sleep(2 * MAX_CREDIT_S)
        order.append("command")

    tracker.remove = slow_remove  # type: ignore[method-assign]
    for tracked in loop:
        order.append("frame")
        if tracked.frame.index == 0:
            futures = [loop.remove(9) for _ in range(MAX_WAITING_COMMANDS)]
    assert order.count("frame") == 8
    assert "command command" not in " ".join(order)
    with pytest.raises(LoopError, match="ended before this command"):
        futures[-1].result(0)


def test_a_failing_heartbeat_is_logged_once_and_does_not_end_the_loop(
    tracker: VideoTracker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    camera = ScriptedCamera([picture(1), picture(2)], ends=True)
    loop = CameraLoop(opener(camera), tracker, every_frame=True, heartbeat=fail)
    assert [tracked.frame.index for tracked in loop] == [0, 1]
    assert [r.message for r in caplog.records] == ["the heartbeat failed; the loop continues"]


@pytest.mark.parametrize(
    ("every_frame", "on_device", "reader_prepares"),
    [(True, False, True), (True, True, True), (False, True, True), (False, False, False)],
)
def test_frames_are_prepared_while_reading_unless_the_cpu_could_do_so_in_vain(
    scene: SyntheticClip, every_frame: bool, on_device: bool, reader_prepares: bool
) -> None:
    inputs: list[Any] = []

    class Recording(VideoTracker):
        """A tracker whose model may seem to run on a GPU."""

        on_device = False

        def track(self, frame: Any, *arguments: Any) -> Any:
            inputs.append(frame)
            return super().track(frame, *arguments)

    Recording.on_device = on_device  # type: ignore[method-assign]
    tracker, plain = Recording("nano", threads=1), VideoTracker("nano", threads=1)
    # Of the latest frames only the first has time to be prepared for sure.
    loop = CameraLoop(file_of(scene, 3 if every_frame else 1), tracker, every_frame=every_frame)
    for tracked in loop:
        np.testing.assert_array_equal(tracked.frame.picture, scene.frames[tracked.frame.index])
        ready = inputs[-1]
        assert isinstance(ready, PreparedFrame) == reader_prepares
        if reader_prepares:
            expected = plain.prepare(tracked.frame.picture)
            np.testing.assert_array_equal(ready.pixels, expected.pixels)
            assert ready.size == expected.size
    assert inputs
