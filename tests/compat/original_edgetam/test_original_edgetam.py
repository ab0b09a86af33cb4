"""EdgeTAM through the drop-in API against the original package: same calls, same order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_edge.bundle.contract import BFLOAT16_TOLERANCE, PARITY_TOLERANCE
from sam2_edge.compat import (
    SAM2ImagePredictor,
    Sam2Model,
    SAM2VideoPredictor,
    build_sam2_video_predictor,
    open_model,
)
from sam2_edge.compat.overrides import predictor_options
from sam2_edge.models.checkpoints import load_original
from sam2_edge.models.edgetam.perceiver import Perceiver
from tests.compat.original_edgetam.conftest import Judged
from tests.compat.original_edgetam.sessions import (
    CONFIG,
    OVERRIDES,
    ROUNDED,
    SESSIONS,
    Results,
    Session,
    perform,
    segment,
)
from tests.models.test_checkpoints import ORIGINAL

pytestmark = pytest.mark.original

TOLERANCE = PARITY_TOLERANCE["fp32"]
BINARIZED = 5 * TOLERANCE
"""Where a pixel of a prompted mask is so close to zero that memory has it on the other side."""

ABSENT, EMPTY = -1024, -10
"""Logits where an object is judged absent, and where an empty mask says so."""


@pytest.fixture(scope="module")
def model(bundle: Path) -> Sam2Model:
    return open_model(bundle, "cpu", threads=1)


def assert_same(ours: Results, published: Results, tolerance: float) -> None:
    """Every result of the original is also ours, and every pixel that is not near zero is on the
    same side; most results differ less than `TOLERANCE`.
    """
    assert published.keys() <= ours.keys()
    differences = [np.abs(ours[name] - want).max() for name, want in published.items()]
    assert np.median(differences) < TOLERANCE
    for name, want in published.items():
        got = ours[name]
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=name)
        sure = np.abs(want) > tolerance
        np.testing.assert_array_equal(got[sure] > 0, want[sure] > 0, err_msg=name)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_video(judged: Judged, model: Sam2Model, session: Session) -> None:
    published = judged.results(session.name)
    predictor = SAM2VideoPredictor(model, **predictor_options([], apply_postprocessing=True))
    ours = perform(predictor, judged.folder / session.name, session, session.objects)
    assert_same(ours, published, BINARIZED)


def test_results_of_the_original_vary(judged: Judged) -> None:
    """Otherwise the comparisons above would prove nothing."""
    every = [mask for s in SESSIONS for mask in judged.results(s.name).values()]
    constant = [mask for mask in every if mask.std() < 0.5]
    assert 0 < len(constant) < 0.3 * len(every)
    assert {round(float(mask.max())) for mask in constant} == {ABSENT, EMPTY}


def test_the_builder_and_rounded_memory(judged: Judged) -> None:
    predictor = build_sam2_video_predictor(
        CONFIG, judged.checkpoint, device="cpu", hydra_overrides_extra=OVERRIDES
    )
    assert predictor.model.graphs.bundle.manifest.model.name == "edgetam"
    ours = perform(predictor, judged.folder / ROUNDED.name, ROUNDED, ROUNDED.objects)
    assert_same(ours, judged.results("rounded"), BFLOAT16_TOLERANCE)


def test_images(judged: Judged, model: Sam2Model) -> None:
    image = judged.folder / SESSIONS[0].name / "00000.jpg"
    ours = segment(SAM2ImagePredictor(model), image)
    published = judged.results("image")
    assert ours.keys() == published.keys()
    assert_same(ours, published, TOLERANCE)


def test_memories_of_several_objects_at_the_size_of_training(judged: Judged) -> None:
    results = judged.results("perceiver")
    memory = torch.from_numpy(results["memory"])
    perceiver = Perceiver(load_original(judged.checkpoint, image_size=16 * memory.shape[-1]).model)
    with torch.inference_mode():
        latents = perceiver(memory)
    np.testing.assert_allclose(latents.numpy(), results["latents"], rtol=0, atol=TOLERANCE)


def test_the_names_and_shapes_on_record_are_the_original_ones(judged: Judged) -> None:
    state = torch.load(judged.checkpoint, weights_only=True)["model"]
    assert {name: list(tensor.shape) for name, tensor in state.items()} == ORIGINAL["edgetam"]
