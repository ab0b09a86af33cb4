"""Frames that are checked and resized apart from tracking."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from sam2_edge import Bundle, PreparedFrame, Prompt, SourceError, VideoTracker
from sam2_edge.runtime.preprocess import prepare_frame
from tests.helpers.clips import Clip

CLICK = Prompt(1, points=[(34, 38)])


@pytest.mark.parametrize("size", [(64, 64), (90, 160), (20, 30)])
def test_a_prepared_frame_is_the_models_input_and_the_size(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    prepared = prepare_frame(frame, 64)
    filtering = cv2.INTER_AREA if size == (90, 160) else cv2.INTER_LINEAR
    expected = cv2.resize(frame, (64, 64), interpolation=filtering)[..., ::-1]
    np.testing.assert_array_equal(prepared.pixels[0], expected)
    assert prepared.size == size
    assert prepared.pixels.flags.c_contiguous
    assert not np.shares_memory(prepared.pixels, frame)
    assert prepare_frame(prepared, 64) is prepared


def test_a_prepared_frame_is_not_changed_by_the_next_one() -> None:
    random = np.random.default_rng(1)
    frames = [random.integers(0, 256, (90, 160, 3), np.uint8) for _ in range(3)]
    kept = [prepare_frame(frame, size) for size in (64, 32, 64) for frame in frames]
    again = [prepare_frame(frame, size) for size in (64, 32, 64) for frame in frames]
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_array_equal(first.pixels, second.pixels)
    assert not np.array_equal(kept[0].pixels, kept[1].pixels)


def test_frames_prepared_in_other_threads_give_the_same_results(
    small_bundle: Bundle, clip: Clip
) -> None:
    plain, ahead = VideoTracker(small_bundle), VideoTracker(small_bundle)
    frames = [frame.copy() for frame in clip.frames[:6]]
    with ThreadPoolExecutor(3) as pool:
        prepared = list(pool.map(ahead.prepare, frames))
    assert ahead.frame_index == -1
    for frame in frames:
        frame[:] = 0  # what was prepared does not need it
    for index, frame in enumerate(clip.frames[:6]):
        prompts = [CLICK] if index == 0 else []
        got, expected = ahead.track(prepared[index], prompts), plain.track(frame, prompts)
        np.testing.assert_array_equal(got[1].logits, expected[1].logits)
        assert got.frame_size == expected.frame_size == frame.shape[:2]


def test_a_frame_prepared_for_another_model_is_refused(small_bundle: Bundle, clip: Clip) -> None:
    tracker = VideoTracker(small_bundle)
    size = small_bundle.manifest.image_size
    others = (
        prepare_frame(clip.frames[0], size // 2),
        PreparedFrame(np.zeros((1, size, size, 3), np.float32), (9, 9)),  # type: ignore[arg-type]
    )
    for other in others:
        with pytest.raises(SourceError, match="prepare it with this tracker's own `prepare`"):
            tracker.track(other)
    assert tracker.frame_index == -1
