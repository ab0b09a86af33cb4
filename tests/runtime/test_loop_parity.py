"""The whole recurrent loop against PyTorch: ramp-up, full ring, wrap-around, later prompts."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import Sam2VideoModel

from sam2_edge import Bundle, Prompt
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.random_init import random_model
from tests.helpers.clips import Clip, moving_shapes
from tests.helpers.models import SEED, loaded, small_config
from tests.helpers.parity import Pair

FRAMES = 26


@pytest.fixture(params=["full_bundle", "small_bundle"], ids=["memory in full", "bfloat16 memory"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def long_clip() -> Clip:
    return moving_shapes(FRAMES)


def _disc(clip: Clip) -> np.ndarray:
    return (clip.masks[0] == 1).astype(np.uint8)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(1, points=[(34.0, 38.0)]),
        Prompt(1, points=[(32.0, 38.0), (90.0, 90.0)], labels=[1, 0]),
        Prompt(1, box=(70.0, 70.0, 120.0, 120.0)),
        Prompt(1, points=[(102.0, 94.0)], box=(80.0, 70.0, 126.0, 122.0)),
        Prompt(1, mask=_disc(moving_shapes(1))),
    ],
    ids=["click", "two clicks", "box", "box with click", "mask"],
)
def test_every_kind_of_prompt_is_tracked_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip, prompt: Prompt
) -> None:
    pair = Pair.of(bundle, small_model)
    pair.track_all(long_clip.frames, {0: [prompt]})
    pair.assert_meaningful()


def test_two_objects_one_added_later_are_tracked_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip
) -> None:
    pair = Pair.of(bundle, small_model)
    prompts = {0: [Prompt(1, points=[(34, 38)])], 4: [Prompt(7, box=(72, 70, 118, 122))]}
    pair.track_all(long_clip.frames, prompts)
    pair.assert_meaningful()


def test_objects_with_equal_history_share_a_batch_and_stay_exact(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip
) -> None:
    pair = Pair.of(bundle, small_model)
    clicks = {1: (34, 38), 2: (40, 75), 3: (92, 75)}
    prompts = [Prompt(i, points=[click]) for i, click in clicks.items()]
    for index, frame in enumerate(long_clip.frames[:12]):
        pair.track(frame, prompts if index == 0 else [])
        if index == 6:
            pair.remove(2)
    pair.assert_meaningful()


def test_a_second_conditioning_frame_is_used_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip
) -> None:
    pair = Pair.of(bundle, small_model)
    prompts = {
        0: [Prompt(1, points=[(34, 38)]), Prompt(2, points=[(92, 75)])],
        11: [Prompt(1, points=[(60, 40), (10, 10)], labels=[1, 0])],
    }
    pair.track_all(long_clip.frames, prompts)
    pair.assert_meaningful()


def test_refining_a_tracked_frame_is_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip
) -> None:
    pair = Pair.of(bundle, small_model)
    for index, frame in enumerate(long_clip.frames):
        pair.track(
            frame,
            [Prompt(1, points=[(34, 38)]), Prompt(2, box=(70, 70, 120, 120))] if index == 0 else [],
        )
        if index == 0:
            pair.prompt(Prompt(1, points=[(32, 38), (60, 60)], labels=[1, 0]))
        if index == 9:
            pair.prompt(Prompt(1, points=[(40, 50)]))
            pair.prompt(Prompt(1, points=[(40, 50), (100, 20)], labels=[1, 0]))
        if index == 14:
            pair.prompt(Prompt(2, mask=_disc(long_clip)))
    pair.assert_meaningful()


def test_an_object_that_leaves_and_returns_is_judged_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip
) -> None:
    gone = moving_shapes(FRAMES, leaves_at=8)
    frames = [*gone.frames[:16], *long_clip.frames[16:]]
    pair = Pair.of(bundle, small_model)
    pair.track_all(frames, {0: [Prompt(1, points=[(34, 38)]), Prompt(2, points=[(92, 75)])]})
    present = [r.present for r in pair.seen]
    assert any(present)
    assert not all(present)


@pytest.mark.parametrize("frames", [2, 5, 15])
def test_short_clips_scale_pointer_ages_as_in_pytorch(
    bundle: Bundle, small_model: Sam2VideoModel, long_clip: Clip, frames: int
) -> None:
    pair = Pair.of(bundle, small_model, clip_frames=frames)
    pair.track_all(long_clip.frames[:frames], {0: [Prompt(1, points=[(34, 38)])]})
    pair.assert_meaningful()


def test_sam2_0_is_tracked_as_in_pytorch(
    tmp_path_factory: pytest.TempPathFactory, long_clip: Clip
) -> None:
    model = random_model(small_config(family="sam2"), SEED)
    bundle = export_bundle(loaded(model), tmp_path_factory.mktemp("sam2") / "bundle")
    pair = Pair.of(bundle, model)
    pair.track_all(long_clip.frames[:18], {0: [Prompt(1, points=[(34, 38)])]})
    pair.assert_meaningful()
