"""Parts of automatic mask generation: point grids, overlapping crops, and candidate masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import PromptError
from sam2_edge.runtime.results import Rle

CropBox = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the image, x2 and y2 exclusive."""

EDGE_PX = 20.0
"""A mask whose box is this close to the edge of a crop may be cut off by it (SAM, appendix)."""


class UncompressedRle(TypedDict):
    """COCO's uncompressed RLE: size is [height, width], counts alternate, background first."""

    size: list[int]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask that passed the filters.

    Attributes:
        rle: The mask; encoded, because hundreds of candidates are kept.
        box: [4] float32 x1, y1, x2, y2 of the first and the last pixel of the mask.
        point: [2] float32, its prompt, in pixels of the image.
        iou: Predicted IoU.
        stability: See `stability_score`.
        crop: The crop in which it was found.
    """

    rle: Rle
    box: NDArray[np.float32]
    point: NDArray[np.float32]
    iou: np.float32
    stability: np.float32
    crop: CropBox


def point_grids(per_side: int, layers: int, downscale: int) -> list[NDArray[np.float64]]:
    """Make the grids [K, 2] of x, y in 0..1 of the image and of each layer of crops.

    Points are in the middle of their cells, row by row. Each layer has 1/`downscale` of the points
    per side of the one before.

    Raises:
        PromptError: For a grid without points.
    """
    counts = [int(per_side / downscale**layer) for layer in range(layers + 1)]
    if min(counts) < 1:
        raise PromptError(
            f"points_per_side={per_side} leaves {min(counts)} points per side in layer "
            f"{counts.index(min(counts))} of crops; give more, or a smaller "
            "crop_n_points_downscale_factor"
        )
    grids = []
    for count in counts:
        margin = 1 / (2 * count)
        side = np.linspace(margin, 1 - margin, count)
        grids.append(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))
    return grids


def crop_boxes(
    size: tuple[int, int], layers: int, overlap_ratio: float
) -> list[tuple[int, CropBox]]:
    """Return the layer and box of the whole image of (height, width), and of its crops.

    Layer n has 2^n x 2^n crops, column by column. Neighbors in the first layer overlap by
    `overlap_ratio` of the shorter side, and in later ones in proportion to the size of the crops.
    """
    height, width = size
    boxes: list[tuple[int, CropBox]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        crop_width, crop_height = (
            math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)
        )
        for column, row in product(range(count), repeat=2):
            x, y = (crop_width - overlap) * column, (crop_height - overlap) * row
            boxes.append((layer, (x, y, min(x + crop_width, width), min(y + crop_height, height))))
    return boxes


def touches_crop_edge(box: NDArray[np.float32], crop: CropBox, size: tuple[int, int]) -> bool:
    """Whether a box [4] is near an edge of its crop that is not an edge of the image."""
    height, width = size
    near_crop = np.abs(box - np.array(crop, np.float32)) <= EDGE_PX
    near_image = np.abs(box - np.array([0, 0, width, height], np.float32)) <= EDGE_PX
    return bool((near_crop & ~near_image).any())


def stability_score(logits: NDArray[np.float32], threshold: float, offset: float) -> np.float32:
    """Return the IoU of the masks at a higher and a lower threshold; NaN if both are empty."""
    inner = np.count_nonzero(logits > np.float32(threshold + offset))
    outer = np.count_nonzero(logits > np.float32(threshold - offset))
    return np.float32(inner) / np.float32(outer) if outer else np.float32(np.nan)


def pixel_bounds(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return x, y of the first and of the last pixel of a mask; zeros if it is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    bounds = [x, y, x + width - 1, y + height - 1] if width else [0, 0, 0, 0]
    return np.array(bounds, np.float32)


def suppress_duplicates(
    candidates: Sequence[Candidate], scores: Sequence[float | np.float32], threshold: float
) -> list[Candidate]:
    """Sort by score, best first, and drop those whose box overlaps a better one's; see `nms`."""
    boxes = np.array([candidate.box for candidate in candidates], np.float32)
    return [candidates[index] for index in nms(boxes, np.array(scores), threshold)]


def nms(boxes: NDArray[np.float32], scores: NDArray[np.floating], threshold: float) -> list[int]:
    """Suppress boxes [K, 4] that overlap a better one by an IoU above `threshold`.

    Decides as torchvision does on the CPU, with float32 IoUs and a float64 threshold. OpenCV's
    `NMSBoxes` does not: it rounds the threshold to float32, and it treats two boxes without area,
    such as those around masks one pixel wide, as equal. Here their IoU is 0/0 and suppresses none.

    Returns:
        Indices of the remaining boxes, best score first, equal scores in their given order.
    """
    corners = boxes.reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    areas = np.prod(high - low, axis=1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest])
        shared = np.prod(np.clip(sides, 0, None), axis=1)
        with np.errstate(invalid="ignore"):
            overlaps = shared / (areas[best] + areas[rest] - shared)
        order = rest[~(overlaps.astype(np.float64) > threshold)]
    return kept


def uncompressed_rle(mask: NDArray[np.bool_]) -> UncompressedRle:
    """Encode a mask [H, W]; pycocotools only encodes to the compressed form."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [*mask.shape], "counts": [0, *counts] if flat[0] else counts}
