"""Objects of a tracker that are saved and restored, on the same frame and on later ones."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_edge import Bundle, FrameResult, Prompt, PromptError, VideoTracker
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from tests.helpers.clips import Clip

CLICK = Prompt(1, points=[(34, 38)])
OTHER = Prompt(2, box=(70, 70, 120, 120))


def logits(result: FrameResult, object_id: int = 1) -> np.ndarray:
    return result[object_id].logits.copy()


@pytest.mark.parametrize("policy", ["original", "motion", "distractor"])
def test_a_prompt_is_as_if_it_had_never_been_given(
    full_bundle: Bundle, clip: Clip, policy: MemoryPolicyName
) -> None:
    trackers = [VideoTracker(full_bundle, memory_policy=policy) for _ in range(2)]
    for tracker in trackers:
        tracker.track(clip.frames[0], [CLICK, OTHER])
        tracker.track(clip.frames[1])
    changed = trackers[0]
    saved = changed.save(1)
    before = logits(changed.result())
    changed.prompt(1, points=[(5, 5)], labels=[0])
    assert not np.allclose(logits(changed.result()), before)
    changed.restore(saved)
    assert np.allclose(logits(changed.result()), before)
    for frame in clip.frames[2:4]:
        pair = [tracker.track(frame) for tracker in trackers]
        for object_id in (1, 2):
            assert np.allclose(*(logits(result, object_id) for result in pair), atol=1e-4)


def test_a_removed_object_comes_back_with_its_memory_on_a_later_frame(
    full_bundle: Bundle, clip: Clip
) -> None:
    removed, never_seen = VideoTracker(full_bundle), VideoTracker(full_bundle)
    for tracker in (removed, never_seen):
        tracker.track(clip.frames[0], [CLICK])
        tracker.track(clip.frames[1])
    removed.rename(1, "cup")
    saved = removed.save(1)
    removed.remove(1)
    for frame in clip.frames[2:5]:
        assert removed.track(frame).objects == ()
    removed.restore(saved)
    # The other tracker has not seen frames 2 to 4 at all, except for the one of the restoration.
    assert removed.names == {1: "cup"}
    expected = never_seen.track(clip.frames[4])
    assert np.allclose(logits(removed.result()), logits(expected), atol=1e-4)
    pair = [tracker.track(clip.frames[5]) for tracker in (removed, never_seen)]
    assert np.allclose(*map(logits, pair), atol=1e-4)


def test_an_object_that_was_added_on_the_saved_frame_comes_back_later(
    full_bundle: Bundle, clip: Clip
) -> None:
    removed, never_seen = VideoTracker(full_bundle), VideoTracker(full_bundle)
    for tracker in (removed, never_seen):
        tracker.track(clip.frames[0], [CLICK])
    saved = removed.save(1)
    removed.remove(1)
    removed.track(clip.frames[1])
    removed.track(clip.frames[2])
    removed.restore(saved)
    expected = never_seen.track(clip.frames[2])
    assert np.allclose(logits(removed.result()), logits(expected), atol=1e-4)


def test_the_same_state_is_restored_as_often_as_asked(full_bundle: Bundle, clip: Clip) -> None:
    tracker = VideoTracker(full_bundle)
    tracker.track(clip.frames[0], [CLICK])
    tracker.track(clip.frames[1])
    saved = tracker.save(1)
    expected = logits(tracker.track(clip.frames[2]))
    for _ in range(2):
        tracker.reset()
        tracker.track(clip.frames[2])
        tracker.restore(saved)
        assert np.allclose(logits(tracker.result()), expected, atol=1e-4)


def test_only_a_tracked_object_is_saved(full_bundle: Bundle, clip: Clip) -> None:
    tracker = VideoTracker(full_bundle)
    tracker.track(clip.frames[0])
    with pytest.raises(PromptError, match="object 3 is not tracked"):
        tracker.save(3)
