"""The camera loop under what cameras do: stall, vanish, change, hang, send rubbish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_edge import LoopError, PromptError, SinkError, SourceError, VideoTracker
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Pace, open_camera
from sam2_edge.runtime.streaming import writer as writer_module
from sam2_edge.runtime.streaming.capture import MAX_HUNG_READERS, Capture
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SCENE_FRAMES, SyntheticCamera

WAIT_S = 20.0
"""Longest that anything here may take; a test that is well takes a fraction of it."""


def picture(value: int = 0, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A picture that shows something; its first pixel is `value`."""
    made = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    made[0, 0] = value
    return made


class Scripted:
    """A camera that does what a list says: a picture is given, a function is called."""

    def __init__(self, script: list[object], *, ends: bool = False, pause_s: float = 0.0) -> None:
        self.ends = ends
        self._script = iter(script)
        self._pause_s = pause_s
        self.closed = threading.Event()

    def read(self) -> NDArray[np.uint8] | None:
        time.sleep(self._pause_s)
        step = next(self._script, None)
        return step() if callable(step) else step  # type: ignore[return-value]

    def close(self) -> None:
        self.closed.set()


def opener(*cameras: Scripted | SourceError) -> Callable[[], Scripted]:
    """Opens one camera after the other, and then the last again and again."""
    left = list(cameras)

    def open_next() -> Scripted:
        camera = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(camera, SourceError):
            raise camera
        return camera

    return open_next


@pytest.fixture
def capture() -> Iterator[Callable[..., Capture]]:
    """Makes and starts a Capture, and closes it in the end."""
    made: list[Capture] = []

    def make(*cameras: Scripted | SourceError, **options: object) -> Capture:
        made.append(Capture(opener(*cameras), first_backoff_s=0.01, **options))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def taken(capture: Capture, count: int) -> list[int]:
    """First pixels of the next frames."""
    found: list[int] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < count and not capture.ended and time.monotonic() < deadline:
        frame = capture.next(0.02)
        if frame is not None:
            found.append(int(frame.picture[0, 0, 0]))
    return found


def test_every_frame_of_a_file_comes_in_order_however_slow_the_taker(capture) -> None:
    file = Scripted([picture(i) for i in range(20)], ends=True)
    reading = capture(file, every_frame=True)
    time.sleep(0.05)
    assert taken(reading, 99) == list(range(20))
    assert reading.ended
    assert file.closed.wait(WAIT_S)
    assert reading.counts.dropped == 0


def test_a_slow_taker_gets_the_latest_frame_and_the_others_are_counted(capture) -> None:
    gate = threading.Event()
    live = Scripted([picture(i) for i in range(10)] + [lambda: gate.wait(WAIT_S) and None])
    reading = capture(live)
    while reading.counts.captured < 10:
        time.sleep(0.005)
    assert taken(reading, 1) == [9]
    assert reading.counts.dropped == 9
    gate.set()


def test_a_camera_that_is_unplugged_is_opened_again_until_it_is_back(capture) -> None:
    reading = capture(
        Scripted([picture(1)], pause_s=0.01),
        SourceError("gone"),
        SourceError("gone"),
        Scripted([picture(2)] * 50, pause_s=0.01),
    )
    assert taken(reading, 2) == [1, 2]
    assert reading.counts.reconnects == 1


def test_each_opening_in_vain_doubles_the_wait_and_a_frame_ends_that() -> None:
    waits: list[float] = []
    cameras = [Scripted([]), Scripted([]), Scripted([]), Scripted([picture(1)]), Scripted([])]

    def open_next() -> Scripted:
        waits.append(reading._backoff_s)
        return cameras[min(len(waits), len(cameras)) - 1]

    reading = Capture(open_next, first_backoff_s=0.01)
    reading.start()
    while len(waits) < 5:
        time.sleep(0.005)
    reading.close()
    # After the frame the first wait was taken again, and it doubles from there.
    assert waits[:5] == [0.01, 0.02, 0.04, 0.08, 0.02]


def test_a_camera_that_hangs_is_left_behind_and_opened_again(capture) -> None:
    released = threading.Event()
    hanging = Scripted([picture(1), lambda: released.wait(WAIT_S) and picture(99)])
    reading = capture(hanging, Scripted([picture(2)] * 500, pause_s=0.01), stall_s=0.1)
    assert taken(reading, 2) == [1, 2]
    assert reading.counts.stalls == 1
    released.set()
    assert hanging.closed.wait(WAIT_S)
    assert 99 not in taken(reading, 20)


def test_readers_that_hang_for_good_do_not_pile_up(capture) -> None:
    released = threading.Event()
    hanging = [Scripted([lambda: released.wait(WAIT_S) and None]) for _ in range(9)]
    reading = capture(*hanging, stall_s=0.02)
    before = threading.active_count()
    assert taken_none(reading, seconds=0.6)
    assert reading.counts.stalls == MAX_HUNG_READERS
    assert threading.active_count() <= before + MAX_HUNG_READERS
    released.set()


def taken_none(capture: Capture, *, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if capture.next(0.01) is not None:
            return False
    return True


def test_black_and_broken_frames_are_left_out_and_counted(capture) -> None:
    black, broken = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
    reading = capture(
        Scripted(
            [picture(1), black, broken, np.zeros((0, 0, 3), np.uint8), picture(2)] * 9, pause_s=0.01
        )
    )
    assert set(taken(reading, 4)) == {1, 2}
    assert reading.counts.blank >= 1
    assert reading.counts.corrupt >= 1


def test_a_camera_that_stays_black_is_opened_again(capture) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    reading = capture(
        Scripted([black] * 10_000, pause_s=0.005),
        Scripted([picture(2)] * 500, pause_s=0.01),
        stall_s=0.1,
    )
    assert taken(reading, 1) == [2]
    assert reading.counts.reconnects == 1


def test_a_camera_that_is_slow_to_open_is_waited_for() -> None:
    opened: list[float] = []

    def open_slowly() -> Scripted:
        opened.append(time.monotonic())
        time.sleep(0.3)
        return Scripted([picture(1)] * 100, pause_s=0.01)

    reading = Capture(open_slowly, stall_s=0.1)
    reading.start()
    assert taken(reading, 3) == [1, 1, 1]
    reading.close()
    assert len(opened) == 1


def test_a_file_that_is_read_slowly_is_not_begun_anew(capture) -> None:
    reading = capture(
        Scripted([picture(i) for i in range(4)], ends=True, pause_s=0.15), stall_s=0.05
    )
    assert taken(reading, 9) == [0, 1, 2, 3]
    assert reading.counts.stalls == 0


@pytest.mark.parametrize("error", [OSError("no device"), RuntimeError("driver")])
def test_whatever_a_camera_of_ones_own_raises_is_told_or_mended(capture, error) -> None:
    def fail() -> None:
        raise error

    mended = capture(
        Scripted([picture(1), fail], pause_s=0.01), Scripted([picture(2)] * 50, pause_s=0.01)
    )
    assert taken(mended, 2) == [1, 2]
    with pytest.raises(SourceError, match="the camera failed with"):
        taken(capture(Scripted([fail], ends=True)), 1)

    def never() -> Scripted:
        raise error

    refused = Capture(never)
    refused.start()
    with pytest.raises(SourceError, match="the camera failed with"):
        taken(refused, 1)
    refused.close()


def test_a_camera_that_cannot_be_opened_at_first_is_an_error(capture) -> None:
    reading = capture(SourceError("no such camera"))
    with pytest.raises(SourceError, match="no such camera"):
        taken(reading, 1)


def test_the_synthetic_camera_plays_to_and_fro() -> None:
    last = SCENE_FRAMES - 1
    shown = [SyntheticCamera.position(i) for i in range(2 * SCENE_FRAMES)]
    assert shown[: last + 2] == [*range(SCENE_FRAMES), last - 1]
    assert shown[2 * last - 1 : 2 * last + 2] == [1, 0, 1]


def test_a_pace_holds_back_but_does_not_make_up_for_what_is_late() -> None:
    start, pace = time.monotonic(), Pace(50)
    for _ in range(6):
        pace.wait()
    assert time.monotonic() - start > 0.095
    time.sleep(0.2)
    late = time.monotonic()
    pace.wait()
    pace.wait()
    assert time.monotonic() - late > 0.015


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("77", "77 cannot be opened as a camera; check that it is connected"),
        ("/dev/video77", "cannot be opened as a camera"),
        ("http://127.0.0.1:9/x", "cannot be opened as a camera"),
        ("nowhere.mp4", "nowhere.mp4 does not exist; give a video file or a folder"),
    ],
)
def test_what_cannot_be_opened_is_told(location: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_camera(location)


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="OpenCV has GStreamer here"
)
@pytest.mark.parametrize("location", ["csi", "csi:1", "videotestsrc ! videoconvert ! appsink"])
def test_pipelines_need_an_opencv_with_gstreamer(location: str) -> None:
    with pytest.raises(SourceError, match="needs GStreamer, which this OpenCV .* JetPack's own"):
        open_camera(location)


class Kept:
    """A sink that keeps numbers of frames, and fails from one of them on."""

    def __init__(self, *, fails_from: int | None = None) -> None:
        self.frames: list[int] = []
        self.closed = 0
        self._fails_from = fails_from

    def write(self, frame: SourceFrame, result: FrameResult) -> None:  # noqa: ARG002
        if self._fails_from is not None and frame.index >= self._fails_from:
            raise SinkError("the disk is full")
        self.frames.append(frame.index)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def tracker() -> VideoTracker:
    return VideoTracker("nano", threads=1, remember_absent=False)


@pytest.fixture(scope="module")
def scene() -> SyntheticCamera:
    return SyntheticCamera(3, size=256, objects=2, paced=False)


def scene_opener(scene: SyntheticCamera) -> Callable[[], Scripted]:
    """The scene as a file of 60 frames."""
    return opener(Scripted(list(scene.clip.frames[:60]), ends=True))


def add(loop: CameraLoop, scene: SyntheticCamera, object_id: int, frame: int):
    mask = scene.clip.mask(frame, object_id)
    return loop.prompt(object_id, points=[center_click(mask)])


def test_objects_are_added_refined_and_removed_while_it_runs(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    sink = Kept()
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True, sinks=[sink])
    added = add(loop, scene, 1, 0)  # before the first frame: it waits for it
    seen: list[LoopResult] = []
    futures = {}
    for tracked in loop:
        seen.append(tracked)
        index = tracked.frame.index
        if index == 9:
            futures["add"] = add(loop, scene, 2, 10)
        if index == 19:
            futures["refine"] = loop.prompt(1, points=[center_click(scene.clip.mask(20, 1))])
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
    quality = [
        region_similarity(t.result[1].mask, scene.clip.mask(t.frame.index, 1)) for t in seen[:6]
    ]
    assert np.mean(quality) > 0.5


def test_no_command_is_lost_when_the_loop_ends(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True)
    for _ in loop:
        waiting = loop.remove(5)
        loop.close()
    with pytest.raises(LoopError, match="the loop ended before this command"):
        waiting.result(0)
    with pytest.raises(LoopError, match="it takes no more commands"):
        loop.reset()
    with pytest.raises(LoopError, match="make another"):
        next(iter(loop))


def test_commands_are_obeyed_on_the_frame_at_which_it_is_paused(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True)
    results = iter(loop)
    first = next(results)
    loop.pause()
    threading.Timer(0.2, lambda: add(loop, scene, 1, first.frame.index)).start()
    second = next(results)
    assert second.frame.index == first.frame.index
    assert [o.object_id for o in second.result.objects] == [1]
    loop.resume()
    assert next(results).frame.index == first.frame.index + 1
    loop.close()
    assert list(results) == []


def test_a_sink_that_fails_is_told_of_and_the_others_go_on(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    good, bad = Kept(), Kept(fails_from=5)
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True, sinks=[bad, good])
    assert sum(1 for _ in loop) == 60
    assert bad.frames == list(range(5))
    assert good.frames == list(range(60))
    assert (bad.closed, good.closed) == (1, 1)
    assert (loop.output.failures, str(loop.output.first_failure)) == (1, "the disk is full")


def test_whatever_a_sink_raises_the_loop_ends_and_the_others_are_finished(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    class Broken(Kept):
        def write(self, frame: SourceFrame, result: FrameResult) -> None:  # noqa: ARG002
            raise OSError("the disk is gone")

    bad, good = Broken(), Kept()
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True, sinks=[bad, good])
    assert sum(1 for _ in loop) == 60
    assert good.frames == list(range(60))
    assert "OSError: the disk is gone" in str(loop.output.first_failure)


def test_an_output_that_begins_anew_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    class Recovering(Kept):
        begins_anew = True

        def write(self, frame: SourceFrame, result: FrameResult) -> None:
            if 5 <= frame.index < 8:
                raise SinkError("the disk is full")
            super().write(frame, result)

    monkeypatch.setattr(writer_module, "RETRY_S", 0.0)
    sink = Recovering()
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True, sinks=[sink])
    assert sum(1 for _ in loop) == 60
    assert sink.frames == [*range(5), *range(8, 60)]
    assert loop.output.failures == 3


def test_a_command_that_fails_badly_is_answered_before_the_loop_ends(
    scene: SyntheticCamera, tracker: VideoTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(tracker, "prompt", broken)
    loop = CameraLoop(scene_opener(scene), tracker, every_frame=True)
    asked, later = loop.prompt(1, points=[(5, 5)]), loop.remove(1)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        list(loop)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        asked.result(0)
    with pytest.raises(LoopError, match="ended before this command"):
        later.result(0)


def test_the_loop_says_that_it_is_alive_also_while_there_is_no_frame(
    tracker: VideoTracker,
) -> None:
    ticks: list[float] = []
    camera = Scripted([picture(1), lambda: time.sleep(0.4)], ends=True)
    for _ in CameraLoop(opener(camera), tracker, tick=lambda: ticks.append(time.monotonic())):
        pass
    assert len(ticks) >= 5


def test_a_slow_sink_does_not_hold_up_a_live_loop(
    scene: SyntheticCamera, tracker: VideoTracker
) -> None:
    gate = threading.Event()

    class Slow(Kept):
        def write(self, frame: SourceFrame, result: FrameResult) -> None:
            gate.wait(WAIT_S)
            super().write(frame, result)

    sink = Slow()
    loop = CameraLoop(scene_opener(scene), tracker, sinks=[sink])
    tracked = sum(1 for _ in _released_at_the_end(loop, gate))
    assert tracked == len(sink.frames) + loop.output.skipped


def test_results_stay_fresh_however_slow_the_model(scene: SyntheticCamera) -> None:
    """A camera of 30 frames per second and a model that manages 10."""

    class TenPerSecond(VideoTracker):
        def track(self, frame, prompts=()):
            time.sleep(0.1)
            return super().track(frame, prompts)

    camera = Scripted([*scene.clip.frames[:60]] * 3, pause_s=1 / 30)
    ages = []
    loop = CameraLoop(opener(camera), TenPerSecond("nano", threads=1))
    for tracked in loop:
        ages.append(tracked.latency_s)
        if len(ages) == 40:
            loop.close()
    assert loop.counts.dropped > len(ages)
    assert np.median(ages[-10:]) < 2 * np.median(ages[:10])


def _released_at_the_end(loop: CameraLoop, gate: threading.Event) -> Iterator[LoopResult]:
    for tracked in loop:
        if loop.tracked == 12:
            gate.set()
        yield tracked


def test_memory_waits_for_an_object_that_is_gone(tracker: VideoTracker) -> None:
    scene = SyntheticCamera(3, size=256, objects=1, paced=False).clip
    empty = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    tracker.track(scene.frames[0])
    tracker.prompt(1, points=[center_click(scene.mask(0, 1))])
    for frame in scene.frames[1:6]:
        assert tracker.track(frame)[1].present
    held = [tracker.track(empty)[1].present for _ in range(12)]
    assert held == [False] * 12
    batch = tracker._bank.read(tracker.frame_index, [1], span=16)[0]
    assert sorted(batch.memory_age[:, 0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_video_file_is_tracked_to_its_end(tmp_path: Path, tracker: VideoTracker) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 200, (64, 48))
    for index in range(12):
        writer.write(picture(index))
    writer.release()
    assert [t.frame.index for t in CameraLoop(str(path), tracker)] == list(range(12))
