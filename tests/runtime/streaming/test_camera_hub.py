"""Several camera loops on one backend: results, fair turns, and faults that stay where they are."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sam2_edge import (
    CameraHub,
    CameraLoop,
    LoopError,
    LoopResult,
    Prompt,
    PromptError,
    SourceError,
    VideoTracker,
)
from sam2_edge.runtime.streaming.turns import Turns
from sam2_edge.synthetic import SyntheticClip, center_click, clip
from tests.helpers.cameras import Hang, ScriptedCamera, opener, picture
from tests.helpers.clock import WAIT_S, wait_until
from tests.helpers.results import MemorySink

Opener = Callable[[], ScriptedCamera]


@pytest.fixture
def hub() -> CameraHub:
    return CameraHub("nano", threads=1)


@pytest.fixture(scope="module")
def scenes() -> list[SyntheticClip]:
    return [
        clip(seed, frames=12, size=size, objects=2, split="heldout", photographs=False)
        for seed, size in ((3, 256), (4, 200))
    ]


def file_of(frames: object) -> Opener:
    return opener(ScriptedCamera(frames, ends=True))  # type: ignore[arg-type]


def prompts_of(scene: SyntheticClip) -> list[Prompt]:
    return [Prompt(i, points=[center_click(scene.mask(0, i))]) for i in (1, 2)]


def endless(value: int) -> Opener:
    return opener(ScriptedCamera(itertools.repeat(picture(value))))


def test_streams_that_share_a_backend_give_the_results_of_separate_loops(
    hub: CameraHub, scenes: list[SyntheticClip]
) -> None:
    alone: dict[str, list[LoopResult]] = {}
    for name, scene in zip(("door", "yard"), scenes, strict=True):
        loop = CameraLoop(
            file_of(scene.frames),
            VideoTracker("nano", threads=1, remember_absent=False),
            prompts=prompts_of(scene),
            every_frame=True,
        )
        alone[name] = list(loop)
        hub.add(name, file_of(scene.frames), prompts=prompts_of(scene), every_frame=True)
    together: dict[str, list[LoopResult]] = {"door": [], "yard": []}
    for name, tracked in hub:
        assert tracked.frame.stream == name
        together[name].append(tracked)
    assert hub.failures == {}
    for name, results in alone.items():
        assert len(together[name]) == len(results) == 12
        for ours, expected in zip(together[name], results, strict=True):
            for a, b in zip(ours.result.objects, expected.result.objects, strict=True):
                assert (a.object_id, a.object_score, a.iou) == (b.object_id, b.object_score, b.iou)
                np.testing.assert_array_equal(a.logits, b.logits)


def test_streams_take_turns_at_the_backend(hub: CameraHub, monkeypatch: pytest.MonkeyPatch) -> None:
    run, at_work, crowds = hub.backend.run, list[str](), list[list[str]]()

    def watched(*arguments: Any, **options: Any) -> Any:
        at_work.append(threading.current_thread().name)
        crowds.append(list(at_work))
        try:
            return run(*arguments, **options)
        finally:
            at_work.pop()

    monkeypatch.setattr(hub.backend, "run", watched)
    for value, name in enumerate("abc"):
        hub.add(name, endless(value), prompts=[Prompt(1, points=[(30, 20)])])
    seen = Counter[str]()
    for name, _ in hub:
        seen[name] += 1
        if seen.total() == 30:
            break
    assert all(len(crowd) == 1 for crowd in crowds)
    assert max(seen.values()) - min(seen.values()) <= 3


def test_who_waits_longest_is_next() -> None:
    turns, order = Turns(), list[int]()

    def work(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    with turns:
        for count, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda count=count: len(turns._waiting) == count)  # type: ignore[misc]
    for thread in threads:
        thread.join(WAIT_S)
    with turns:  # it is free again
        assert order == [0, 1, 2, 3, 4]


def test_a_camera_that_hangs_delays_nobody(hub: CameraHub) -> None:
    hang = Hang()
    hub.add("hung", opener(ScriptedCamera([picture(0), hang])), stall_s=WAIT_S)
    hub.add("live", endless(1))
    seen = Counter[str]()
    for name, _ in hub:
        seen[name] += 1
        if seen["hung"] and seen["live"] == 1:
            assert hang.entered.wait(WAIT_S)
        if seen["live"] >= 30 and seen["hung"]:
            break
    assert seen["hung"] == 1
    hang.released.set()


def test_faults_of_one_stream_end_no_other(
    hub: CameraHub, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = MemorySink(), MemorySink(fails_on=range(2, 99))
    frames = [picture(n) for n in range(6)]
    hub.add("prompt", file_of(frames), prompts=[Prompt(1, points=[(999, 999)])])
    broken = hub.add("sink", file_of(frames), every_frame=True, sinks=[bad])
    hub.add("good", file_of(frames), every_frame=True, sinks=[good])
    with caplog.at_level(logging.WARNING, "sam2_edge"):
        seen = Counter(name for name, _ in hub)
    assert seen == {"sink": 6, "good": 6}
    assert good.frames == list(range(6))
    assert (good.closed, bad.closed, bad.frames) == (1, 1, [0, 1])
    assert broken.writer.failures == 1
    assert list(hub.failures) == ["prompt"]
    assert isinstance(hub.failures["prompt"], PromptError)
    told = {r.stream: r.getMessage() for r in caplog.records}  # type: ignore[attr-defined]
    assert told["prompt"].startswith("prompt: the stream has ended: ")
    assert told["sink"] == "sink: the disk is full"


def test_a_camera_that_cannot_be_opened_is_tried_again(
    hub: CameraHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_edge.runtime.streaming.capture.FIRST_BACKOFF_S", 0.01)
    late = opener(SourceError("no such device"), ScriptedCamera([picture(7)] * 3, ends=True))
    hub.add("late", late, every_frame=True)
    assert [name for name, _ in hub] == ["late"] * 3


def test_commands_reach_their_own_stream(hub: CameraHub, scenes: list[SyntheticClip]) -> None:
    for name, scene in zip(("door", "yard"), scenes, strict=True):
        hub.add(name, file_of(scene.frames), every_frame=True)
    added = hub["door"].prompt(5, points=[center_click(scenes[0].mask(0, 1))])
    objects = {name: tracked.result.objects for name, tracked in hub}
    assert added.result(0).object_id == 5
    assert [entry.object_id for entry in objects["door"]] == [5]
    assert objects["yard"] == ()
    with pytest.raises(LoopError, match="no stream 'roof'; the streams are: door, yard"):
        hub["roof"]


def test_a_stream_ends_by_itself_and_its_name_is_free_again(hub: CameraHub) -> None:
    hub.add("a", endless(1))
    hub.add("b", endless(2))
    with pytest.raises(LoopError, match="a stream 'a' is running"):
        hub.add("a", endless(3))
    again = 0
    first = hub["a"]
    for name, tracked in hub:
        if name == "a" and not again:
            first.close()
        if name == "b" and not again and first.tracked and hub._streams["a"].has_ended:
            hub.add("a", endless(9))
            again = 1
        if name == "a" and tracked.frame.picture[0, 0, 0] == 9:
            hub.close()
    assert again
    assert hub.names == ("a", "b")
    with pytest.raises(LoopError, match="this hub is closed"):
        hub.add("c", endless(1))
    with pytest.raises(LoopError, match="create another one"):
        next(iter(hub))


def test_leaving_the_iteration_ends_every_thread_and_closes_what_is_open(hub: CameraHub) -> None:
    before, sinks = threading.active_count(), [MemorySink(), MemorySink()]
    for number, sink in enumerate(sinks):
        hub.add(f"s{number}", endless(number), sinks=[sink])
    for _ in hub:
        break
    assert threading.active_count() == before
    assert [sink.closed for sink in sinks] == [1, 1]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "ends.", "x" * 65, "ä"])
def test_names_that_no_folder_should_have_are_refused(hub: CameraHub, name: str) -> None:
    with pytest.raises(LoopError, match="cannot be the name of a stream"):
        hub.add(name, endless(0))


def test_a_tracker_serves_one_stream(hub: CameraHub) -> None:
    tracker = VideoTracker(hub.bundle, backend=hub.backend)
    hub.add("a", endless(0), tracker=tracker)
    with pytest.raises(LoopError, match="belongs to another stream"):
        hub.add("b", endless(0), tracker=tracker)
