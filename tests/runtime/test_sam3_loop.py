"""The whole recurrent loop of SAM 3's tracker against PyTorch: every kind of prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import Sam3TrackerVideoModel

from sam2_edge import Bundle, Prompt
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.random_init import random_model
from tests.helpers.clips import Clip, moving_shapes
from tests.helpers.models import loaded
from tests.helpers.parity import Pair
from tests.helpers.sam3 import IMAGE_SIZE, SEED, small_config

FRAMES = 12
SIZE = (IMAGE_SIZE, IMAGE_SIZE)


@pytest.fixture(scope="module")
def model() -> Sam3TrackerVideoModel:
    return random_model(small_config(), SEED)


@pytest.fixture(scope="module")
def bundle(model: Sam3TrackerVideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target: Path = tmp_path_factory.mktemp("sam3") / "bundle"
    return export_bundle(loaded(model), target, ExportOptions(memory_rounding="none"))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return moving_shapes(FRAMES, SIZE)


def _disc() -> np.ndarray:
    return (moving_shapes(1, SIZE).masks[0] == 1).astype(np.uint8)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(1, points=[(104.0, 98.0)]),
        Prompt(1, box=(206.0, 206.0, 306.0, 326.0)),
        Prompt(1, mask=_disc()),
    ],
    ids=["click", "box", "mask"],
)
def test_every_kind_of_prompt_is_tracked_as_in_pytorch(
    bundle: Bundle, model: Sam3TrackerVideoModel, clip: Clip, prompt: Prompt
) -> None:
    pair = Pair.of(bundle, model)
    pair.track_all(clip.frames, {0: [prompt]})
    pair.assert_meaningful()


def test_two_objects_one_added_later_and_refined_are_tracked_as_in_pytorch(
    bundle: Bundle, model: Sam3TrackerVideoModel, clip: Clip
) -> None:
    pair = Pair.of(bundle, model)
    prompts = {0: [Prompt(1, points=[(104, 98)])], 3: [Prompt(7, box=(210, 194, 310, 314))]}
    pair.track_all(clip.frames[:8], prompts)
    pair.prompt(Prompt(1, points=[(192, 190)]))
    pair.prompt(Prompt(7, mask=_disc()))
    pair.track_all(clip.frames[8:], {})
    pair.assert_meaningful()
