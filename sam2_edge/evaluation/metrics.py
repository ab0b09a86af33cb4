"""Region similarity J and boundary accuracy F of masks, as the DAVIS benchmark defines them.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, section 5, and the DAVIS 2017 evaluation for its conventions: a boundary
pixel differs from its right, lower or lower right neighbor, boundaries match within 0.008 of the
picture's diagonal, and the first and the last frame of a clip do not count.
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
"""Distance within which boundaries match, as a share of the picture's diagonal."""


RECALL_THRESHOLD = 0.5
"""A frame counts as recalled where the measure is above this."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Means over frames: region similarity `j` and boundary accuracy `f`, both 0..1."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True)
class Statistics:
    """One measure of one object over frames, as the DAVIS evaluation sums it up.

    mean: 0..1. recall: share of frames above `RECALL_THRESHOLD`, 0..1. decay: what is lost from the
    first quarter of the frames to the last, -1..1.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """J of two masks [H,W], nonzero is the object: intersection over union; 1 if both are empty.

    Raises ValueError for masks of different shapes.
    """
    ours, theirs = _masks(predicted, truth)
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def boundary_accuracy(
    predicted: NDArray[Any], truth: NDArray[Any], *, tolerance: float = BOUNDARY_TOLERANCE
) -> float:
    """F of two masks [H,W]: harmonic mean of the precision and recall of boundary pixels.

    tolerance: share of the diagonal, or pixels if it is 1 or more.

    Raises ValueError for masks of different shapes.
    """
    ours, theirs = (boundary(mask) for mask in _masks(predicted, truth))
    pixels = int(tolerance if tolerance >= 1 else np.ceil(tolerance * np.hypot(*ours.shape)))
    precision, recall = _share_near(ours, theirs, pixels), _share_near(theirs, ours, pixels)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def object_accuracy(predicted: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> Accuracy:
    """J and F of one object over a clip, without its first and last frame (as DAVIS 2017).

    predicted, truth: one mask [H,W] per frame.

    Raises ValueError for different numbers of frames, or fewer than three.
    """
    if len(predicted) != len(truth) or len(truth) < 3:
        raise ValueError(
            f"{len(predicted)} predicted and {len(truth)} true frames: the numbers must be equal "
            "and at least 3, as the first and the last frame do not count"
        )
    pairs = list(zip(predicted, truth, strict=True))[1:-1]
    return Accuracy(
        j=float(np.mean([region_similarity(p, t) for p, t in pairs])),
        f=float(np.mean([boundary_accuracy(p, t) for p, t in pairs])),
    )


def mean_accuracy(objects: Sequence[Accuracy]) -> Accuracy:
    """The mean over objects, which is the figure of a data set."""
    return Accuracy(
        j=float(np.mean([a.j for a in objects])), f=float(np.mean([a.f for a in objects]))
    )


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of one object's J or F, 0..1 each, in the order of the frames.

    The quarters that decay compares share their border frames, as in `db_statistics` of
    davisvideochallenge/davis2017-evaluation (`davis2017/utils.py`): of frames 0 to n - 1 the first
    quarter ends with the one nearest to (n - 1) / 4, and the last begins with the one nearest to
    3 (n - 1) / 4. Clips of more than 256 frames, where the positions of that program overflow their
    8 bits, follow the same rule here.

    Raises ValueError for no values.
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
    """Pixels [H,W] that differ from their right, lower or lower right neighbor."""
    around = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != around[:-1, 1:]) | (mask != around[1:, :-1]) | (mask != around[1:, 1:])


def _masks(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[Mask, Mask]:
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(
            f"masks of shapes {predicted.shape} and {truth.shape}; both must be the same [H,W]"
        )
    return predicted.astype(bool), truth.astype(bool)


def _share_near(points: Mask, others: Mask, pixels: int) -> float:
    """Share of `points` with one of `others` within `pixels`; 1 where there are no points.

    With points on neither side F is 1; with points on one side it is 0.
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
