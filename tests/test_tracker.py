"""What users of `VideoTracker` and `ImageSegmenter` rely on, beside parity with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2_edge import (
    Bundle,
    FrameResult,
    ImageSegmenter,
    Prompt,
    PromptError,
    Sam2EdgeError,
    SourceError,
    VideoTracker,
)
from tests.clips import Clip, moving_shapes

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


def test_objects_do_not_touch_each_other(small_bundle: Bundle, clip: Clip) -> None:
    alone, together = VideoTracker(small_bundle), VideoTracker(small_bundle)
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


def test_a_removed_object_can_be_added_anew(small_bundle: Bundle, clip: Clip) -> None:
    tracker, fresh = VideoTracker(small_bundle), VideoTracker(small_bundle)
    tracker.track(clip.frames[0], [CLICK])
    tracker.track(clip.frames[1])
    tracker.remove(1)
    for index in (2, 3):
        prompts = [CLICK] if index == 2 else []
        again, first = (t.track(clip.frames[index], prompts) for t in (tracker, fresh))
        assert same(again, first, 1)


def test_reset_forgets_everything(small_bundle: Bundle, clip: Clip) -> None:
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


def test_prompting_again_on_the_first_frame_equals_prompting_late(
    small_bundle: Bundle, clip: Clip
) -> None:
    with_frame, afterwards = VideoTracker(small_bundle), VideoTracker(small_bundle)
    with_frame.track(clip.frames[0], [CLICK])
    afterwards.track(clip.frames[0])
    afterwards.prompt(1, points=CLICK.points)
    assert same(with_frame.track(clip.frames[1]), afterwards.track(clip.frames[1]), 1)


BAD_CALLS = {
    "float frame": lambda t: t.track(np.zeros((9, 9, 3), np.float32)),
    "grey frame": lambda t: t.track(np.zeros((9, 9), np.uint8)),
    "empty frame": lambda t: t.track(np.zeros((0, 9, 3), np.uint8)),
    "no frame": lambda t: t.track(None),
    "prompt outside": lambda t: t.track(np.zeros((9, 9, 3), np.uint8), [CLICK]),
    "two prompts": lambda t: t.track(np.zeros((90, 90, 3), np.uint8), [CLICK, CLICK]),
    "refine outside": lambda t: t.prompt(1, points=[(999, 0)]),
    "unknown object": lambda t: t.remove(77),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_refused_call_leaves_the_tracker_as_it_was(
    small_bundle: Bundle, clip: Clip, call: Any
) -> None:
    tracker, untouched = VideoTracker(small_bundle), VideoTracker(small_bundle)
    for t in (tracker, untouched):
        t.track(clip.frames[0], [CLICK])
        t.track(clip.frames[1])
    with pytest.raises((PromptError, SourceError)):
        call(tracker)
    after, expected = tracker.track(clip.frames[2]), untouched.track(clip.frames[2])
    assert after.index == expected.index == 2
    np.testing.assert_array_equal(after[1].logits, expected[1].logits)


def test_a_prompt_needs_a_frame(tracker: VideoTracker) -> None:
    with pytest.raises(PromptError, match="call track with the first frame"):
        tracker.prompt(1, points=[(1, 1)])


def test_memory_stays_bounded_however_often_objects_are_prompted(
    small_bundle: Bundle, clip: Clip
) -> None:
    tracker = VideoTracker(small_bundle, max_prompted_frames=2)
    for index in range(60):
        prompts = [CLICK, OTHER] if index % 3 == 0 else []
        tracker.track(clip.frames[index % 24], prompts)
    for entry in tracker._bank._objects.values():
        assert entry.group.memory.shape[0] == 2 + 6
        assert entry.group.pointers.shape[0] == 2 + 15
        assert sum(slot.prompted for slot in entry.memory) == 2
        assert len(entry.memory) <= 8
    assert len(tracker._decoded) <= 2


def test_threads_below_one_are_refused(small_bundle: Bundle) -> None:
    with pytest.raises(Sam2EdgeError, match="threads is 0; give 1 or more"):
        VideoTracker(small_bundle, threads=0)


@pytest.fixture
def segmenter(small_bundle: Bundle, clip: Clip) -> ImageSegmenter:
    segmenter = ImageSegmenter(small_bundle)
    segmenter.set_image(clip.frames[0])
    return segmenter


def test_an_ambiguous_click_gives_three_masks_best_first(segmenter: ImageSegmenter) -> None:
    found = segmenter.predict(points=[(34, 38)], multimask=True)
    assert found.masks.shape == (3, 128, 128)
    assert found.logits.shape == (3, 32, 32)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_otherwise_the_best_mask(segmenter: ImageSegmenter) -> None:
    found = segmenter.predict(box=(70, 70, 120, 120))
    assert found.masks.shape == (1, 128, 128)
    assert found.scores.shape == (1,)


def test_an_image_is_segmented_as_a_videos_first_frame(
    segmenter: ImageSegmenter, tracker: VideoTracker, clip: Clip
) -> None:
    image = segmenter.predict(points=[(34, 38)], multimask=True)
    first = tracker.track(clip.frames[0], [CLICK])[1]
    np.testing.assert_allclose(image.logits[0], first.logits, atol=1e-4)
    assert image.scores[0] == pytest.approx(first.iou)


def test_logits_and_masks_are_improved_on(segmenter: ImageSegmenter, clip: Clip) -> None:
    first = segmenter.predict(points=[(34, 38)])
    again = segmenter.predict(points=[(34, 38)], logits=first.logits[0])
    from_mask = segmenter.predict(mask=clip.masks[0] == 1)
    assert np.abs(again.logits - first.logits).max() > 0.01
    assert from_mask.masks.shape == (1, 128, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "empty prompt"),
        ({"points": [(500, 1)]}, "outside the frame"),
        ({"labels": [1]}, "empty prompt"),
        ({"logits": np.zeros((9, 9), np.float32)}, r"give \[32, 32\]"),
        ({"mask": np.ones((128, 128)), "logits": np.zeros((32, 32))}, "give one of them"),
        ({"mask": np.zeros((128, 128))}, "mask is empty"),
    ],
)
def test_a_bad_image_prompt_is_refused(
    segmenter: ImageSegmenter, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        segmenter.predict(**arguments)


def test_a_prompt_needs_an_image(small_bundle: Bundle) -> None:
    with pytest.raises(PromptError, match="call set_image first"):
        ImageSegmenter(small_bundle).predict(points=[(1, 1)])
