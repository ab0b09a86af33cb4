"""Tracking with fewer memory tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import Sam2VideoModel

from sam2_edge import Bundle, Prompt, VideoTracker
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph
from sam2_edge.compat.model import open_model
from sam2_edge.compat.video.predictor import SAM2VideoPredictor
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.pytorch import TorchBackend
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.backends.base import Tensor as RunTensor
from sam2_edge.runtime.memory.token_selection import select_cells
from sam2_edge.runtime.results import full_size
from tests.helpers.clips import Clip
from tests.helpers.models import MEMORY_TOKENS

CLICK = (34, 38)


class RecordingBackend(DelegatingBackend):
    """Keeps the latest cells and ages passed to memory attention."""

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, RunTensor],
        outputs: Mapping[str, RunTensor] | None = None,
    ) -> dict[str, RunTensor]:
        if graph is Graph.MEMORY_ATTENTION:
            self.cells = np.array(inputs["memory_cells"])
            self.ages = np.array(inputs["memory_age"])
        return super().run(graph, inputs, outputs)


def test_the_tracker_passes_the_cells_of_every_frame(tokens_bundle: Bundle, clip: Clip) -> None:
    backend = RecordingBackend(open_backend(tokens_bundle, "cpu", threads=1))
    tracker = VideoTracker(tokens_bundle, backend=backend)
    seen: list[dict[int, NDArray[np.int32]]] = []
    ids = (1, 2)
    for index, frame in enumerate(clip.frames[:10]):
        result = tracker.track(frame)
        if index == 0:
            tracker.prompt(1, points=[CLICK])
            tracker.prompt(2, box=(70, 60, 110, 100))
        if index == 4:
            tracker.prompt(1, points=[CLICK, (2, 2)], labels=[1, 0])
        result = tracker.result()
        geometry = tokens_bundle.manifest.geometry
        seen.append({i: select_cells(result[i].logits[None], geometry)[0] for i in ids})
        for object_id in ids:
            result[object_id].logits[:] = 5  # the user may change them
        if index == 0:
            continue
        if backend.cells.shape[1] < len(ids):
            continue  # the refined object was run alone
        for column, object_id in enumerate(ids):
            for age, cells in zip(backend.ages[:, column], backend.cells[:, column], strict=True):
                frame_then = 0 if age == 0 else index - age
                np.testing.assert_array_equal(cells, seen[frame_then][object_id])
    assert backend.ages[:, 0].tolist().count(0) == 1
    assert len(backend.ages) == 7
    assert len({tuple(c) for c in backend.cells.reshape(-1, MEMORY_TOKENS)}) > 4  # the masks move


def test_a_clip_is_tracked_as_in_pytorch(
    small_model: Sam2VideoModel, tokens_bundle: Bundle, clip: Clip
) -> None:
    torch_backend = TorchBackend(small_model, tokens_bundle.manifest)
    assert torch_backend.geometry == tokens_bundle.manifest.geometry
    trackers = [
        VideoTracker(tokens_bundle, threads=1),
        VideoTracker(tokens_bundle, backend=torch_backend),
    ]
    for index, frame in enumerate(clip.frames[:9]):
        given = [Prompt(1, points=[CLICK])] if index == 0 else []
        logits = [tracker.track(frame, given)[1].logits for tracker in trackers]
        np.testing.assert_allclose(*logits, rtol=0, atol=PARITY_TOLERANCE["fp32"])


def test_the_original_api_tracks_like_the_tracker(
    tokens_bundle: Bundle, clip: Clip, clip_folder: Path
) -> None:
    predictor = SAM2VideoPredictor(
        open_model(tokens_bundle, "cpu"),
        binarize_mask_from_pts_for_mem_enc=True,
        dynamic_multimask_via_stability=True,
    )
    tracker = VideoTracker(tokens_bundle, threads=1, clip_frames=6)
    with predictor.init_state(clip_folder) as state:
        predictor.add_new_points_or_box(state, 0, 1, points=[CLICK], labels=[1])
        for index, _ids, got in predictor.propagate_in_video(state):
            given = [Prompt(1, points=[CLICK])] if index == 0 else []
            found = tracker.track(clip.frames[index], given)[1]
            wanted = full_size(found.logits, found.frame_size)
            np.testing.assert_allclose(got[0, 0], wanted, rtol=0, atol=1e-3)
