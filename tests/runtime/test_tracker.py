"""Behavior of `VideoTracker` other than parity with PyTorch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sam2_edge import (
    Bundle,
    FrameResult,
    Prompt,
    PromptError,
    Sam2EdgeError,
    SourceError,
    VideoTracker,
)
from tests.helpers.clips import Clip, moving_shapes

CLICK = Prompt(1, points=[(34, 38)])


OTHER = Prompt(2, box=(70, 70, 120, 120))


@pytest.fixture
def tracker(small_bundle: Bundle) -> VideoTracker:
    return VideoTracker(small_bundle)


def same(first: FrameResult, second: FrameResult, object_id: int) -> bool:
    return bool(np.allclose(first[object_id].logits, second[object_id].logits, atol=1e-4))


def test_frames_without_objects_give_empty_results(tracker: VideoTracker, clip: Clip) -> None:
    result = tracker.track(clip.frames[0])
    assert (result.index, result.objects) == (0, ())
    assert result.index_mask().sum() == 0
    assert tracker.object_ids == ()


def test_results_have_the_size_of_their_frame(tracker: VideoTracker) -> None:
    for index, size in enumerate([(90, 160), (90, 160), (240, 64), (500, 700)]):
        frame = moving_shapes(1, size).frames[0]
        result = tracker.track(frame, [Prompt(1, points=[(30, 30)])] if index == 0 else [])
        assert result[1].mask.shape == size
        assert result[1].logits.shape == (32, 32)
        assert result.milliseconds > 0


def test_prompts_are_in_the_pixels_of_the_frame(small_bundle: Bundle, clip: Clip) -> None:
    enlarged = np.repeat(np.repeat(clip.frames[0], 2, axis=0), 2, axis=1)
    small = VideoTracker(small_bundle).track(clip.frames[0], [CLICK])
    large = VideoTracker(small_bundle).track(enlarged, [Prompt(1, points=[(68, 76)])])
    assert same(small, large, 1)
    assert large[1].mask.shape == (256, 256)


def test_objects_are_independent(full_bundle: Bundle, clip: Clip) -> None:
    alone, together = VideoTracker(full_bundle), VideoTracker(full_bundle)
    for index, frame in enumerate(clip.frames):
        one = alone.track(frame, [CLICK] if index == 0 else [])
        prompts = {0: [CLICK], 3: [OTHER], 9: [Prompt(5, points=[(92, 75)])]}.get(index, [])
        many = together.track(frame, prompts)
        if index == 6:
            together.remove(2)
        if index == 12:
            together.prompt(5, points=[(40, 75)])
        assert same(one, many, 1)
    assert together.object_ids == (1, 5)


def test_a_removed_object_can_be_added_again(small_bundle: Bundle, clip: Clip) -> None:
    tracker, fresh = VideoTracker(small_bundle), VideoTracker(small_bundle)
    tracker.track(clip.frames[0], [CLICK])
    tracker.track(clip.frames[1])
    tracker.remove(1)
    for index in (2, 3):
        prompts = [CLICK] if index == 2 else []
        again, first = (t.track(clip.frames[index], prompts) for t in (tracker, fresh))
        assert same(again, first, 1)


def test_an_object_can_be_removed_and_prompted_again_on_one_frame(
    small_bundle: Bundle, clip: Clip
) -> None:
    tracker, fresh = VideoTracker(small_bundle), VideoTracker(small_bundle)
    tracker.track(clip.frames[0], [CLICK])
    tracker.track(clip.frames[1])
    fresh.track(clip.frames[1])
    tracker.remove(1)
    again, first = (t.prompt(1, points=CLICK.points) for t in (tracker, fresh))
    np.testing.assert_allclose(again.logits, first.logits, atol=1e-5)
    assert same(tracker.track(clip.frames[2]), fresh.track(clip.frames[2]), 1)


def test_a_prompt_with_a_frame_restarts_a_tracked_object(small_bundle: Bundle, clip: Clip) -> None:
    tracker, fresh = VideoTracker(small_bundle), VideoTracker(small_bundle)
    for index in range(3):
        tracker.track(clip.frames[index], [OTHER] if index == 0 else [])
    moved = Prompt(2, points=[(34, 38)])
    assert same(tracker.track(clip.frames[3], [moved]), fresh.track(clip.frames[3], [moved]), 2)


def test_a_removed_object_is_gone_from_the_next_result(tracker: VideoTracker, clip: Clip) -> None:
    tracker.track(clip.frames[0], [CLICK, OTHER])
    tracker.remove(1)
    assert tracker.object_ids == (2,)
    assert [o.object_id for o in tracker.track(clip.frames[1]).objects] == [2]


def test_names_are_in_the_results_until_their_object_is_dropped(
    tracker: VideoTracker, clip: Clip
) -> None:
    named = Prompt(1, points=[(34, 38)], name=" cup ")
    assert tracker.track(clip.frames[0], [named, OTHER]).names == {1: "cup"}
    assert tracker.track(clip.frames[1], [CLICK]).names == {1: "cup"}  # no name keeps it
    tracker.rename(2, "jar")
    assert tracker.result().names == {1: "cup", 2: "jar"}
    tracker.rename(2, "")
    tracker.remove(1)
    assert tracker.track(clip.frames[2]).names == {}
    tracker.prompt(1, points=[(34, 38)])
    assert tracker.result().names == {}


@pytest.mark.parametrize(
    ("object_id", "name", "message"),
    [
        (1, "x" * 41, "has 41 characters; give at most 40"),
        (1, "a\nb", r"'a\\nb' has characters that cannot be shown; give one line"),
        (7, "cup", "object 7 is not tracked; tracked objects: 1"),
    ],
)
def test_a_name_that_is_refused_says_why(
    tracker: VideoTracker, clip: Clip, object_id: int, name: str, message: str
) -> None:
    tracker.track(clip.frames[0], [CLICK])
    with pytest.raises(PromptError, match=message):
        tracker.rename(object_id, name)
    if object_id == 1:
        with pytest.raises(PromptError, match=message):
            tracker.track(clip.frames[1], [Prompt(1, points=[(34, 38)], name=name)])
    assert tracker.frame_index == 0
    assert tracker.result().names == {}


def test_ids_from_numpy_are_plain_integers_in_results(tracker: VideoTracker, clip: Clip) -> None:
    result = tracker.track(clip.frames[0], [Prompt(np.int64(3), points=[(34, 38)])])
    assert [type(o.object_id) for o in result.objects] == [int]
    assert json.dumps(tracker.object_ids) == "[3]"


def test_callers_may_modify_frames_and_results(small_bundle: Bundle, clip: Clip) -> None:
    careful, careless = VideoTracker(small_bundle), VideoTracker(small_bundle)
    for index in range(3):
        prompts = [CLICK] if index == 0 else []
        expected = careful.track(clip.frames[index], prompts)
        frame = clip.frames[index].copy()
        got = careless.track(frame, prompts)
        np.testing.assert_array_equal(got[1].logits, expected[1].logits)
        np.testing.assert_array_equal(frame, clip.frames[index])
        frame[:] = 0
        got[1].logits[:] = 99


def test_a_modified_result_does_not_change_a_refinement(small_bundle: Bundle, clip: Clip) -> None:
    careful, careless = VideoTracker(small_bundle), VideoTracker(small_bundle)
    careful.track(clip.frames[0], [CLICK])
    careless.track(clip.frames[0], [CLICK])[1].logits[:] = 99
    points, labels = [(34, 38), (90, 90)], [1, 0]
    expected, got = (t.prompt(1, points=points, labels=labels) for t in (careful, careless))
    np.testing.assert_array_equal(got.logits, expected.logits)


def test_frames_may_be_views_of_other_arrays(small_bundle: Bundle, clip: Clip) -> None:
    mirrored = clip.frames[0][:, ::-1]
    view, copy = VideoTracker(small_bundle), VideoTracker(small_bundle)
    mirrored_copy = mirrored.copy()
    mirrored_copy.setflags(write=False)
    assert same(view.track(mirrored, [CLICK]), copy.track(mirrored_copy, [CLICK]), 1)


def test_reset_drops_everything(small_bundle: Bundle, clip: Clip) -> None:
    tracker, fresh = VideoTracker(small_bundle), VideoTracker(small_bundle)
    for frame in clip.frames[:4]:
        tracker.track(frame, [] if tracker.object_ids else [CLICK, OTHER])
    tracker.reset()
    assert (tracker.object_ids, tracker.frame_index) == ((), -1)
    for frame in clip.frames[5:8]:
        prompts = [] if fresh.object_ids else [OTHER]
        after, first = tracker.track(frame, prompts), fresh.track(frame, prompts)
        assert same(after, first, 2)
        assert after.index == first.index


def test_a_prompt_on_the_current_frame_adds_and_refines(
    small_bundle: Bundle, tracker: VideoTracker, clip: Clip
) -> None:
    tracker.track(clip.frames[0])
    added = tracker.prompt(1, points=[(34, 38)])
    tracked = tracker.track(clip.frames[1])[1]
    refined = tracker.prompt(1, points=[(34, 38), (100, 100)], labels=[1, 0])
    after = tracker.track(clip.frames[2])

    assert added.object_id == 1
    assert np.abs(refined.logits - tracked.logits).max() > 0.1
    unrefined = VideoTracker(small_bundle)
    unrefined.track(clip.frames[0], [CLICK])
    unrefined.track(clip.frames[1])
    assert not same(after, unrefined.track(clip.frames[2]), 1)


def test_a_second_prompt_on_the_first_frame_equals_a_late_prompt(
    small_bundle: Bundle, clip: Clip
) -> None:
    with_frame, afterwards = VideoTracker(small_bundle), VideoTracker(small_bundle)
    with_frame.track(clip.frames[0], [CLICK])
    afterwards.track(clip.frames[0])
    afterwards.prompt(1, points=CLICK.points)
    assert same(with_frame.track(clip.frames[1]), afterwards.track(clip.frames[1]), 1)


BAD_CALLS = {
    "float frame": lambda t: t.track(np.zeros((9, 9, 3), np.float32)),
    "gray frame": lambda t: t.track(np.zeros((9, 9), np.uint8)),
    "empty frame": lambda t: t.track(np.zeros((0, 9, 3), np.uint8)),
    "no frame": lambda t: t.track(None),
    "prompt outside": lambda t: t.track(np.zeros((9, 9, 3), np.uint8), [CLICK]),
    "two prompts": lambda t: t.track(np.zeros((90, 90, 3), np.uint8), [CLICK, CLICK]),
    "one prompt of two outside": lambda t: t.track(
        np.zeros((90, 90, 3), np.uint8), [Prompt(2, points=[(5, 5)]), Prompt(1, points=[(95, 5)])]
    ),
    "refine with another mask": lambda t: t.prompt(1, mask=np.ones((9, 9))),
    "refine with nothing": lambda t: t.prompt(1),
    "refine outside": lambda t: t.prompt(1, points=[(999, 0)]),
    "unknown object": lambda t: t.remove(77),
}


@pytest.fixture(scope="module")
def undisturbed(small_bundle: Bundle, clip: Clip) -> FrameResult:
    """The third frame's result of a tracker without an invalid call."""
    tracker = VideoTracker(small_bundle)
    return [tracker.track(f, [CLICK] if i == 0 else []) for i, f in enumerate(clip.frames[:3])][-1]


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_refused_call_leaves_the_tracker_unchanged(
    tracker: VideoTracker, undisturbed: FrameResult, clip: Clip, call: Any
) -> None:
    tracker.track(clip.frames[0], [CLICK])
    tracker.track(clip.frames[1])
    with pytest.raises((PromptError, SourceError)):
        call(tracker)
    assert (tracker.object_ids, tracker.frame_index) == ((1,), 1)
    after = tracker.track(clip.frames[2])
    assert after.index == undisturbed.index == 2
    np.testing.assert_array_equal(after[1].logits, undisturbed[1].logits)


def test_a_prompt_needs_a_frame(tracker: VideoTracker) -> None:
    with pytest.raises(PromptError, match="call track with the first frame"):
        tracker.prompt(1, points=[(1, 1)])


def test_memory_stays_bounded_no_matter_how_often_objects_are_prompted(
    small_bundle: Bundle, clip: Clip
) -> None:
    tracker = VideoTracker(small_bundle, max_cond_frames=2)
    for index in range(60):
        prompts = [CLICK, OTHER] if index % 3 == 0 else []
        tracker.track(clip.frames[index % 24], prompts)
    for entry in tracker._bank._objects.values():
        assert sum(slot.conditioning for slot in entry.memories) == 2
        assert len(entry.memories) <= 2 + 6
        assert len(entry.pointers) <= 2 + 15
    assert tracker._bank._rows.buffer.shape[0] <= 2 * 2 * (2 + 6 + 1)
    assert len(tracker._pending) <= 2


def test_threads_below_one_are_refused(small_bundle: Bundle) -> None:
    with pytest.raises(Sam2EdgeError, match="threads is 0; give 1 or more"):
        VideoTracker(small_bundle, threads=0)


@pytest.mark.parametrize("option", ["max_cond_frames", "clip_frames"])
def test_numbers_of_frames_below_one_are_refused(small_bundle: Bundle, option: str) -> None:
    with pytest.raises(Sam2EdgeError, match=f"{option} is 0; give 1 or more"):
        VideoTracker(small_bundle, **{option: 0})


def test_refinements_of_one_frame_do_not_accumulate(tracker: VideoTracker, clip: Clip) -> None:
    tracker.track(clip.frames[0], [CLICK, OTHER])
    for x in range(20, 60):
        tracker.prompt(1, points=[(x, 40)])
    assert len(tracker._pending) == 2


def test_fewer_recent_memories_change_masks_once_the_limit_is_exceeded(
    small_bundle: Bundle, clip: Clip
) -> None:
    few, all_of_them = (
        VideoTracker(small_bundle, threads=1, recent_memories=count) for count in (2, 6)
    )
    differences = []
    for index, frame in enumerate(clip.frames[:6]):
        prompts = [Prompt(1, points=[(34, 38)])] if index == 0 else []
        ours, theirs = few.track(frame, prompts)[1], all_of_them.track(frame, prompts)[1]
        differences.append(float(np.abs(ours.logits - theirs.logits).max()))
    assert differences[:4] == [0.0] * 4  # the conditioning frame and two more
    assert differences[4] > 0
    with pytest.raises(Sam2EdgeError, match="trained with 6"):
        VideoTracker(small_bundle, recent_memories=7)
    with pytest.raises(Sam2EdgeError, match="recent_memories is 0"):
        VideoTracker(small_bundle, recent_memories=0)
