"""Masks that points on a crop give rise to, judged one by one and kept as runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.compat.image.crops import CropBox, touches_crop_edge
from sam2_edge.compat.image.run_lengths import RunLengths, run_lengths
from sam2_edge.compat.image.small_regions import without_small_regions
from sam2_edge.compat.image.suppression import suppress_boxes
from sam2_edge.runtime.results import MASK_LOGIT, full_size


@dataclass(frozen=True, slots=True)
class Sketch:
    """A mask before it is judged: logits [s,s] of a crop, and the point [2] float32 in pixels of
    the crop that it answers to.
    """

    logits: NDArray[np.float32]
    iou: np.float32
    point: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask that was let through; box [4] and point [2] float32 in pixels of the picture."""

    runs: RunLengths
    box: NDArray[np.float32]
    point: NDArray[np.float32]
    iou: np.float32
    stability: np.float32
    crop: CropBox


@dataclass(frozen=True, slots=True)
class Rules:
    """What lets a mask through; see `SAM2AutomaticMaskGenerator`."""

    least_iou: float
    least_stability: float
    stability_offset: float
    mask_threshold: float
    region_area: float


def candidates(
    sketches: Iterable[Sketch], rules: Rules, *, crop: CropBox, size: tuple[int, int]
) -> Iterator[Candidate]:
    """The masks of a crop that the rules let through, in their order.

    size: height and width of the picture.
    """
    left, top, right, bottom = crop
    for sketch in sketches:
        if rules.least_iou > 0 and not sketch.iou > np.float32(rules.least_iou):
            continue
        tidy = without_small_regions(
            sketch.logits,
            threshold=MASK_LOGIT,
            hole_area=rules.region_area,
            island_area=rules.region_area,
        )
        logits = full_size(tidy, (bottom - top, right - left))
        stability = _stability(logits, rules)
        if rules.least_stability > 0 and not stability >= np.float32(rules.least_stability):
            continue
        mask = logits > np.float32(rules.mask_threshold)
        box = _box(mask) + np.array([left, top, left, top], np.float32)
        if touches_crop_edge(box, crop, size):
            continue
        point = sketch.point + np.array([left, top], np.float32)
        runs = run_lengths(mask, crop, size)
        yield Candidate(runs, box, point, sketch.iou, stability, crop)


def without_duplicates(
    found: Sequence[Candidate], scores: Sequence[float | np.float32], threshold: float
) -> list[Candidate]:
    """Best score first, without those whose box overlaps a better one's by more than `threshold`
    (IoU).
    """
    if not found:
        return []
    boxes = np.stack([candidate.box for candidate in found])
    kept = suppress_boxes(boxes, np.array(scores, np.float32), threshold)
    return [found[index] for index in kept]


def _stability(logits: NDArray[np.float32], rules: Rules) -> np.float32:
    """IoU of the masks at a higher and a lower threshold, one inside the other; NaN if both are
    empty.
    """
    threshold, offset = rules.mask_threshold, rules.stability_offset
    inner = np.count_nonzero(logits > np.float32(threshold + offset))
    outer = np.count_nonzero(logits > np.float32(threshold - offset))
    return np.float32(inner) / np.float32(outer) if outer else np.float32(np.nan)


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """x, y of the first and of the last pixel of a mask; zeros if it is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return np.zeros(4, np.float32)
    return np.array([x, y, x + width - 1, y + height - 1], np.float32)
