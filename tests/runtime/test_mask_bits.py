"""Masks as packed bits at the frame's size, compared with OpenCV's resize."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from sam2_edge import Bundle
from sam2_edge.bundle.contract import NO_OBJECT_LOGIT, Graph
from sam2_edge.runtime.mask_bits import column_weights, resize_weights, row_weights, unpack_masks

SIZES = [(64, 64), (97, 131), (1, 1), (7, 9), (720, 1280), (33, 32)]
"""Height and width of frames: equal, odd, smaller, larger, and half of the mask."""


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_weights_are_those_of_opencv(height: int, width: int) -> None:
    logits = np.random.default_rng(height).normal(0, 9, (64, 64)).astype(np.float32)
    got = resize_weights(64, height) @ logits @ resize_weights(64, width).T
    wanted = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(got, wanted, atol=2e-4)


@pytest.mark.parametrize("size_in", [1, 2, 64])
def test_the_weights_of_a_pixel_sum_to_one(size_in: int) -> None:
    for size_out in (1, 2, 5, 200):
        np.testing.assert_allclose(resize_weights(size_in, size_out).sum(axis=1), 1, atol=1e-6)


def test_columns_beyond_the_width_have_no_weight() -> None:
    weights = column_weights(64, 13)
    assert weights.shape == (64, 2, 8)
    assert not weights[:, 1, 5:].any()
    assert not weights.flags.writeable


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_graph_gives_the_masks_of_opencv(height: int, width: int, nano_bundle: Bundle) -> None:
    generator = np.random.default_rng(width)
    coarse = generator.normal(0, 9, (3, 8, 8)).astype(np.float32)
    logits = np.stack([cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse])
    logits[2] = NO_OBJECT_LOGIT
    feeds = {
        "mask_logits": logits[:, None],
        "row_weights": row_weights(64, height),
        "column_weights": column_weights(64, width),
    }
    (bits,) = ort.InferenceSession(nano_bundle.graph_path(Graph.MASK_BITS)).run(None, feeds)
    masks = unpack_masks(bits, width)
    assert bits.shape == (3, height, -(-width // 8))
    assert masks.shape == (3, height, width)
    assert not masks[2].any()
    for mask, logit in zip(masks, logits, strict=True):
        wanted = cv2.resize(logit, (width, height), interpolation=cv2.INTER_LINEAR)
        far = np.abs(wanted) > 1e-3  # closer to 0, OpenCV's rounding decides
        np.testing.assert_array_equal(mask[far], wanted[far] > 0)
        assert far.mean() > 0.99
