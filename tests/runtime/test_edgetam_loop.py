"""EdgeTAM's whole recurrent loop against PyTorch: every kind of prompt, several objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import EdgeTamVideoModel

from sam2_edge import Bundle, Prompt
from sam2_edge.export.pipeline import ExportOptions, export_bundle
from tests.helpers.clips import Clip, moving_shapes
from tests.helpers.models import loaded
from tests.helpers.parity import Pair

FRAMES = 26
SIZE = (256, 256)


@pytest.fixture(scope="module")
def bundle(small_edgetam: EdgeTamVideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target: Path = tmp_path_factory.mktemp("edgetam") / "bundle"
    return export_bundle(loaded(small_edgetam), target, ExportOptions(memory_rounding="none"))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return moving_shapes(FRAMES, SIZE)


def _disc() -> np.ndarray:
    return (moving_shapes(1, SIZE).masks[0] == 1).astype(np.uint8)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(1, points=[(78.0, 79.0)]),
        Prompt(1, points=[(75.0, 79.0), (180.0, 180.0)], labels=[1, 0]),
        Prompt(1, box=(147.0, 140.0, 240.0, 244.0)),
        Prompt(1, mask=_disc()),
    ],
    ids=["click", "two clicks", "box", "mask"],
)
def test_every_kind_of_prompt_is_tracked_as_in_pytorch(
    bundle: Bundle, small_edgetam: EdgeTamVideoModel, clip: Clip, prompt: Prompt
) -> None:
    pair = Pair.of(bundle, small_edgetam)
    pair.track_all(clip.frames, {0: [prompt]})
    pair.assert_meaningful()


def test_three_objects_one_of_them_removed_and_one_refined_are_tracked_as_in_pytorch(
    bundle: Bundle, small_edgetam: EdgeTamVideoModel, clip: Clip
) -> None:
    pair = Pair.of(bundle, small_edgetam)
    prompts = {
        0: [Prompt(1, points=[(69, 76)]), Prompt(2, box=(147, 140, 240, 244))],
        4: [Prompt(7, box=(146, 140, 240, 244))],
    }
    pair.track_all(clip.frames[:8], prompts)
    pair.remove(2)
    pair.prompt(Prompt(1, points=[(75, 82)]))
    pair.track_all(clip.frames[8:14], {})
    pair.assert_meaningful()


def test_an_object_that_leaves_the_frame_is_tracked_as_in_pytorch(
    bundle: Bundle, small_edgetam: EdgeTamVideoModel, clip: Clip
) -> None:
    pair = Pair.of(bundle, small_edgetam)
    empty = np.zeros_like(clip.frames[0])
    pair.track_all(
        [*clip.frames[:4], *[empty] * 4, *clip.frames[4:8]], {0: [Prompt(1, mask=_disc())]}
    )
    pair.assert_meaningful()
