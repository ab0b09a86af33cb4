"""Results of a backend on a device: packed masks, and logits on request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam2_edge import Bundle, Prompt, Sam2EdgeError, VideoTracker, load_bundle
from sam2_edge.bundle.contract import NO_OBJECT_LOGIT, Graph
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.results import ObjectResult, full_size
from tests.helpers.clips import Clip
from tests.helpers.engines import as_engines

PROMPTS = [Prompt(1, points=[(34, 38)]), Prompt(2, box=(70, 60, 110, 100))]


@pytest.fixture(scope="module")
def nano() -> Bundle:
    return load_bundle("nano")


class OnDevice(OnnxRuntimeCpu):
    """The CPU behind the interface of a device."""

    on_device = True


def larger(clip: Clip, index: int) -> np.ndarray:
    """A frame of another size than the model's, with an odd width."""
    return np.ascontiguousarray(np.pad(clip.frames[index], ((0, 61), (0, 99), (0, 0)), "edge"))


def assert_same_mask(got: ObjectResult, expected: ObjectResult) -> None:
    undecided = np.abs(full_size(expected.logits, expected.frame_size)) < 1e-4
    assert got.mask.shape == expected.mask.shape
    assert (got.mask == expected.mask)[~undecided].all()
    assert (got.iou, got.object_score) == (expected.iou, expected.object_score)


def test_masks_from_bits_equal_those_from_logits(nano: Bundle, clip: Clip) -> None:
    device = VideoTracker(nano, backend=OnDevice(nano, threads=1))
    host = VideoTracker(nano, threads=1)
    seen = 0
    for index in range(6):
        prompts = PROMPTS if index == 0 else []
        got, expected = (t.track(larger(clip, index), prompts) for t in (device, host))
        for object_id in (1, 2):
            assert_same_mask(got[object_id], expected[object_id])
            seen += got[object_id].mask.any()
    assert seen == 12


def test_an_absent_object_has_an_empty_mask(nano: Bundle) -> None:
    backend = OnDevice(nano, threads=1)
    logits = backend.upload(np.full((1, 1, 64, 64), NO_OBJECT_LOGIT, np.float32))
    tracker = VideoTracker(nano, backend=backend)
    bits = backend.empty((1, 60, 5), "uint8")
    tracker._model.write_bits(logits, (60, 33), bits)
    assert not np.asarray(bits).any()


def test_logits_can_be_read_until_the_next_frame(nano: Bundle, clip: Clip) -> None:
    device = VideoTracker(nano, backend=OnDevice(nano, threads=1))
    host = VideoTracker(nano, threads=1)
    got, expected = (t.track(clip.frames[0], PROMPTS) for t in (device, host))
    np.testing.assert_array_equal(got[1].logits, expected[1].logits)
    np.testing.assert_array_equal(got.index_mask(), expected.index_mask())
    device.track(clip.frames[1])
    np.testing.assert_array_equal(got[1].logits, expected[1].logits)  # read before
    late = device.track(clip.frames[2])
    device.track(clip.frames[3])
    assert late[2].mask.any()
    with pytest.raises(Sam2EdgeError, match="no longer on the GPU; .* with logits=True"):
        _ = late[2].logits


def test_logits_on_a_device_are_for_the_thread_that_tracks(nano: Bundle, clip: Clip) -> None:
    device = VideoTracker(nano, backend=OnDevice(nano, threads=1))
    with ThreadPoolExecutor(1) as other:
        result = device.track(clip.frames[0], PROMPTS)
        with pytest.raises(Sam2EdgeError, match="thread that tracked the frame"):
            other.submit(result.index_mask).result()
        expected = result.index_mask()
        np.testing.assert_array_equal(other.submit(result.index_mask).result(), expected)


def test_logits_of_every_frame_are_kept_on_request(nano: Bundle, clip: Clip) -> None:
    device = VideoTracker(nano, backend=OnDevice(nano, threads=1), logits=True)
    host = VideoTracker(nano, threads=1)
    results = [
        [t.track(clip.frames[i], PROMPTS if i == 0 else []) for i in range(4)]
        for t in (device, host)
    ]
    for got, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(got[2].logits, expected[2].logits)


def test_a_refined_object_has_new_logits_and_the_old_result_none(nano: Bundle, clip: Clip) -> None:
    tracker = VideoTracker(nano, backend=OnDevice(nano, threads=1))
    first = tracker.track(clip.frames[0], PROMPTS[:1])[1]
    refined = tracker.prompt(1, points=[(34, 38), (100, 20)], labels=[1, 0])
    assert refined.logits.shape == (64, 64)
    with pytest.raises(Sam2EdgeError, match="no longer on the GPU"):
        _ = first.logits


def test_masks_of_frames_beyond_the_engine_come_from_logits(nano: Bundle) -> None:
    engines = as_engines(nano)
    limit = engines.manifest.graphs[Graph.MASK_BITS].engine.profile["H"][2]  # type: ignore[union-attr]
    tracker = VideoTracker(engines, backend=OnDevice(nano, threads=1))
    assert tracker._model.packs_masks((limit, 8))
    assert not tracker._model.packs_masks((limit + 1, 8))
