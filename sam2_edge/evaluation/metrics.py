"""Region similarity J and boundary accuracy F of masks, as the DAVIS benchmark defines them.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, section 5, with the conventions of the DAVIS 2017 evaluation: a boundary
pixel differs from its right, lower or lower right neighbor, boundaries match within 0.008 of the
image diagonal, and the first and last frames of a clip are not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008
"""Distance within which boundaries match, as a share of the image diagonal."""

RECALL_THRESHOLD = 0.5
"""Recall is the share of frames on which the measure exceeds this."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Means over frames of region similarity `j` and boundary accuracy `f`, both 0 to 1."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True)
class Statistics:
    """One measure of one object over frames, as the DAVIS evaluation summarizes it.

    Attributes:
        mean: 0 to 1.
        recall: Share of frames above `RECALL_THRESHOLD`, 0 to 1.
        decay: Mean over the first quarter of the frames minus that over the last, -1 to 1.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return J of two masks [H, W]: intersection over union, 1 if both are empty.

    Raises:
        ValueError: If the shapes differ.
    """
    ours, theirs = _masks(predicted, truth)
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def boundary_accuracy(
    predicted: NDArray[Any], truth: NDArray[Any], *, tolerance: float = BOUNDARY_TOLERANCE
) -> float:
    """Return F of two masks [H, W]: harmonic mean of the precision and recall of boundary pixels.

    Args:
        predicted: Predicted mask.
        truth: True mask.
        tolerance: Matching distance as a share of the diagonal, or in pixels if 1 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    ours, theirs = (boundary(mask) for mask in _masks(predicted, truth))
    pixels = int(tolerance if tolerance >= 1 else np.ceil(tolerance * np.hypot(*ours.shape)))
    precision, recall = _share_near(ours, theirs, pixels), _share_near(theirs, ours, pixels)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def object_accuracy(predicted: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> Accuracy:
    """Return J and F of one object over a clip, from a mask [H, W] per frame, as in DAVIS 2017.

    Raises:
        ValueError: If the numbers of frames differ, or there are fewer than three.
    """
    if len(predicted) != len(truth) or len(truth) < 3:
        raise ValueError(
            f"{len(predicted)} predicted and {len(truth)} true frames: the numbers must be equal "
            "and at least 3, since the first and last frames are not scored"
        )
    pairs = list(zip(predicted, truth, strict=True))[1:-1]
    return Accuracy(
        j=float(np.mean([region_similarity(p, t) for p, t in pairs])),
        f=float(np.mean([boundary_accuracy(p, t) for p, t in pairs])),
    )


def mean_accuracy(objects: Sequence[Accuracy]) -> Accuracy:
    """Return the mean over objects, the score of a data set."""
    return Accuracy(
        j=float(np.mean([a.j for a in objects])), f=float(np.mean([a.f for a in objects]))
    )


def statistics(values: Sequence[float]) -> Statistics:
    """Return the mean, recall and decay of one object's J or F, given one value per frame.

    Adjacent quarters share a frame, as in `db_statistics` of
    davisvideochallenge/davis2017-evaluation (`davis2017/utils.py`): of frames 0 to n - 1, the first
    quarter ends with the frame nearest to (n - 1) / 4, and the last starts with the frame nearest
    to 3 (n - 1) / 4. In clips of more than 256 frames that program overflows its 8-bit indices;
    this one does not.

    Raises:
        ValueError: If there are no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("no values; at least one frame is needed")
    first, last = values[: (count + 1) // 4 + 1], values[(3 * count - 1) // 4 :]
    return Statistics(
        mean=float(np.mean(values)),
        recall=float(np.mean(np.asarray(values) > RECALL_THRESHOLD)),
        decay=float(np.mean(first) - np.mean(last)),
    )


def boundary(mask: Mask) -> Mask:
    """Return the pixels [H, W] that differ from their right, lower or lower right neighbor."""
    around = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != around[:-1, 1:]) | (mask != around[1:, :-1]) | (mask != around[1:, 1:])


def _masks(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[Mask, Mask]:
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(
            f"masks of shapes {predicted.shape} and {truth.shape}; both must have the same [H, W]"
        )
    return predicted.astype(bool), truth.astype(bool)


def _share_near(points: Mask, others: Mask, pixels: int) -> float:
    """Return the share of `points` with one of `others` within `pixels`; 1 without points.

    Thus F is 1 if neither mask has a boundary, and 0 if only one has.
    """
    count = np.count_nonzero(points)
    if not count:
        return 1.0
    near = cv2.dilate(others.astype(np.uint8), _disk(pixels))
    return np.count_nonzero(points & near.astype(bool)) / count


@lru_cache(maxsize=16)
def _disk(radius: int) -> NDArray[np.uint8]:
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.uint8)
