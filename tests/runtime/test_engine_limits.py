"""The tracker within the limits that engines were built for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from sam2_edge import BackendError, Bundle, Prompt, PromptError, VideoTracker
from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import Tensor
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from tests.helpers.clips import Clip
from tests.helpers.engines import as_engines

CLICK = Prompt(1, points=[(34, 38)])


class Batches(OnnxRuntimeCpu):
    """Records the number of objects in every run of the mask decoder."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.objects: list[int] = []

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        if graph is Graph.MASK_DECODER:
            self.objects.append(inputs["conditioned"].shape[0])
        return super().run(graph, inputs, outputs)


def test_more_objects_than_an_engine_takes_are_split_into_batches(
    small_bundle: Bundle, clip: Clip
) -> None:
    prompts = [Prompt(i, points=[(20 + 15 * i, 30 + 9 * i)]) for i in range(1, 6)]
    backend = Batches(small_bundle)
    limited = VideoTracker(as_engines(small_bundle, objects=2, conditioning=4), backend=backend)
    free = VideoTracker(small_bundle)
    for index, frame in enumerate(clip.frames[:4]):
        given = prompts if index == 0 else []
        ours, theirs = limited.track(frame, given), free.track(frame, given)
        for prompt in prompts:
            np.testing.assert_allclose(
                ours[prompt.object_id].logits, theirs[prompt.object_id].logits, atol=1e-3
            )
    assert backend.objects == [1] * 5 + [2, 2, 1] * 3


def test_more_conditioning_frames_than_engines_take_are_refused(small_bundle: Bundle) -> None:
    engines = as_engines(small_bundle, objects=2, conditioning=3)
    backend = OnnxRuntimeCpu(small_bundle)
    VideoTracker(engines, backend=backend, max_cond_frames=3)
    with pytest.raises(BackendError, match="max_cond_frames is 4; the engines .* for 3; lower"):
        VideoTracker(engines, backend=backend)


def test_more_points_than_engines_take_are_refused_and_nothing_changes(
    small_bundle: Bundle, clip: Clip
) -> None:
    engines = as_engines(small_bundle, objects=2, conditioning=4)
    tracker = VideoTracker(engines, backend=OnnxRuntimeCpu(small_bundle))
    tracker.track(clip.frames[0], [CLICK])
    many = Prompt(2, points=[(20 + i, 30) for i in range(3)], box=(10, 10, 90, 90))
    with pytest.raises(PromptError, match="5 points, including the corners of a box; .* take 4"):
        tracker.track(clip.frames[1], [many])
    assert tracker.frame_index == 0
    assert tracker.object_ids == (1,)
