"""Prompts are scaled to the model's input, or rejected with the invalid value and the limit."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from sam2_edge import Prompt, PromptError
from sam2_edge.runtime.prompts import model_prompt

FRAME = (60, 80)
SIZE = 128


def test_points_are_scaled_per_axis() -> None:
    prompt = model_prompt(Prompt(1, points=[(40, 30), (0, 59)], labels=[1, 0]), FRAME, SIZE)
    np.testing.assert_allclose(prompt.coords, [[64, 64], [0, 59 * 128 / 60]], rtol=1e-6)
    assert prompt.labels.tolist() == [1, 0]
    assert (prompt.coords.dtype, prompt.labels.dtype) == (np.float32, np.int32)


def test_box_corners_precede_points() -> None:
    prompt = model_prompt(Prompt(1, points=[(40, 30)], box=(10, 15, 80, 60)), FRAME, SIZE)
    np.testing.assert_allclose(prompt.coords, [[16, 32], [128, 128], [64, 64]])
    assert prompt.labels.tolist() == [2, 3, 1]


def test_only_a_single_click_is_ambiguous() -> None:
    wants = [
        model_prompt(p, FRAME, SIZE).wants_multimask
        for p in (
            Prompt(1, points=[(1, 1)]),
            Prompt(1, points=[(1, 1), (2, 2)]),
            Prompt(1, box=(1, 1, 9, 9)),
            Prompt(1, mask=np.ones(FRAME)),
        )
    ]
    assert wants == [True, False, False, False]


BAD = {
    "nothing": (Prompt(1), "empty prompt"),
    "object 0": (Prompt(0, points=[(1, 1)]), "object id 0; .* at least 1"),
    "object 2**31": (Prompt(2**31, points=[(1, 1)]), "up to 2147483647"),
    "object of 5,000 digits": (Prompt(10**5000, points=[(1, 1)]), "up to 2147483647"),
    "a coordinate beyond float32": (Prompt(1, points=[(1e300, 5)]), "not finite"),
    "a coordinate beyond floats": (Prompt(1, points=[(10**400, 5)]), "not numbers"),
    "object 1.5": (Prompt(1.5, points=[(1, 1)]), "object id 1.5"),  # type: ignore[arg-type]
    "right of the frame": (Prompt(1, points=[(80, 5)]), "80,5 is outside .* 0 to 79"),
    "above the frame": (Prompt(1, points=[(5, -1)]), "5,-1 is outside .* from 0 to 59"),
    "not a number": (Prompt(1, points=[(float("nan"), 5)]), "not finite"),
    "text": (Prompt(1, points=[("a", "b")]), "not numbers"),
    "flat points": (Prompt(1, points=[5, 5]), r"shape \(2,\); give \[N, 2\]"),
    "no points": (Prompt(1, points=[]), "empty prompt"),
    "points of two objects": (
        Prompt(1, points=np.ones((2, 1, 2))),
        r"\(2, 1, 2\); give \[N, 2\] of",
    ),
    "label 2": (Prompt(1, points=[(5, 5)], labels=[2]), "label 2; give 1 .* or 0"),
    "a label too many": (
        Prompt(1, points=[(5, 5)], labels=[1, 0]),
        r"labels have shape \(2,\) .* give one label per point",
    ),
    "labels alone": (Prompt(1, box=(1, 1, 5, 5), labels=[1]), "labels without points"),
    "three box values": (Prompt(1, box=(1, 2, 3)), "give x1, y1, x2, y2"),
    "box upside down": (Prompt(1, box=(5, 5, 5, 9)), "box 5,5,5,9 is empty"),
    "box outside": (Prompt(1, box=(5, 5, 81, 9)), "box 5,5,81,9 is outside .* from 0 to 80"),
    "mask of another size": (Prompt(1, mask=np.ones((80, 60))), r"\(80, 60\) .* \(60, 80\)"),
    "empty mask": (Prompt(1, mask=np.zeros(FRAME)), "mask is empty"),
    "mask and points": (Prompt(1, points=[(5, 5)], mask=np.ones(FRAME)), "stands alone"),
}


@pytest.mark.parametrize(("prompt", "message"), BAD.values(), ids=BAD.keys())
def test_an_invalid_prompt_is_rejected(prompt: Prompt, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model_prompt(prompt, FRAME, SIZE)


@given(
    x=st.floats(0, 79.99, allow_subnormal=False),
    y=st.floats(0, 59.99, allow_subnormal=False),
    label=st.integers(0, 1),
)
def test_points_in_the_frame_are_in_the_model_input(x: float, y: float, label: int) -> None:
    prompt = model_prompt(Prompt(1, points=[(x, y)], labels=[label]), FRAME, SIZE)
    assert ((prompt.coords >= 0) & (prompt.coords < SIZE)).all()


@given(corners=st.lists(st.integers(0, 60), min_size=4, max_size=4), factor=st.integers(1, 9))
def test_scaled_prompts_do_not_depend_on_the_resolution(corners: list[int], factor: int) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box, point = np.array([x1, y1, x2 + 1, y2 + 1]) / 2, np.array([[x1, y1]]) / 2
    small = model_prompt(Prompt(1, points=point, box=box), FRAME, SIZE)
    frame = (FRAME[0] * factor, FRAME[1] * factor)
    large = model_prompt(Prompt(1, points=point * factor, box=box * factor), frame, SIZE)
    np.testing.assert_allclose(small.coords, large.coords, rtol=1e-5)
    assert (small.coords[0] < small.coords[1]).all()


@pytest.mark.parametrize("frame", [(60, 80), (300, 200), (128, 128), (128, 500)])
def test_a_mask_is_resized_as_the_published_predictor_does(frame: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random((frame[0] // 9 + 1, frame[1] // 9 + 1))
    mask = cv2.resize(noise, frame[::-1], interpolation=cv2.INTER_CUBIC) > 0.5

    got = model_prompt(Prompt(1, mask=mask), frame, SIZE).mask

    tensor = torch.from_numpy(mask)[None, None].float()
    soft = F.interpolate(tensor, size=(SIZE, SIZE), mode="bilinear", antialias=True)[0, 0]
    assert got is not None
    sure = (soft - 0.5).abs() > 1e-6
    assert torch.equal((soft >= 0.5)[sure], torch.from_numpy(got)[sure] > 0)
    assert 0.2 < got.mean() < 0.8


def test_a_mask_that_vanishes_at_the_models_size_is_rejected() -> None:
    mask = np.zeros((2000, 2000), np.uint8)
    mask[700, 700] = 1
    with pytest.raises(PromptError, match="1 pixels and vanishes"):
        model_prompt(Prompt(1, mask=mask), (2000, 2000), SIZE)


LOGITS = np.linspace(-4, 9, FRAME[0] * FRAME[1]).reshape(FRAME)


@pytest.mark.parametrize(
    "mask",
    [
        LOGITS.astype(np.float32),
        np.where(LOGITS > 0, np.nan, 0),
        np.where(LOGITS > 0, 0.7, 0),
        np.where(LOGITS > 0, -1, 0),
        np.where(LOGITS > 0, 2, 1),
        np.full(FRAME, np.inf),
    ],
    ids=["logits", "nan", "probability", "negative", "two ids", "infinite"],
)
def test_a_mask_that_could_mean_other_pixels_is_rejected(mask: NDArray[Any]) -> None:
    with pytest.raises(PromptError, match=r"values from .*give booleans, such as logits > 0"):
        model_prompt(Prompt(1, mask=mask), FRAME, SIZE)


@pytest.mark.parametrize("value", [True, np.uint8(1), np.uint8(255), np.int64(3), 1.0])
def test_a_mask_has_one_value_beside_0(value: Any) -> None:
    mask = np.where(LOGITS > 0, value, type(value)(0))
    want = model_prompt(Prompt(1, mask=LOGITS > 0), FRAME, SIZE).mask
    np.testing.assert_array_equal(model_prompt(Prompt(1, mask=mask), FRAME, SIZE).mask, want)


def test_a_mask_of_text_is_rejected() -> None:
    with pytest.raises(PromptError, match="give booleans, or 0 and 1"):
        model_prompt(Prompt(1, mask=np.full(FRAME, "a")), FRAME, SIZE)
