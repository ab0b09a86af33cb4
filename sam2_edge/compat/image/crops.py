"""Where a picture is asked: grids of points, and crops that overlap."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import PromptError

CropBox = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the picture, x2 and y2 exclusive."""

EDGE_PX = 20.0
"""A mask whose box comes this close to the edge of a crop may be cut off by it (SAM, appendix)."""


def point_grid(per_side: int) -> NDArray[np.float64]:
    """Points [per_side^2, 2] of x,y in 0..1, row by row, each in the middle of its cell."""
    margin = 1 / (2 * per_side)
    side = np.linspace(margin, 1 - margin, per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def point_grids(per_side: int, layers: int, downscale: int) -> list[NDArray[np.float64]]:
    """The grid of the whole picture and of the crops of every layer, each sparser by `downscale`.

    Raises PromptError for a grid without points.
    """
    counts = [int(per_side / downscale**layer) for layer in range(layers + 1)]
    if min(counts) < 1:
        raise PromptError(
            f"points_per_side={per_side} leaves {min(counts)} points per side in layer "
            f"{counts.index(min(counts))} of crops; give more, or a smaller "
            "crop_n_points_downscale_factor"
        )
    return [point_grid(count) for count in counts]


def crop_boxes(
    size: tuple[int, int], layers: int, overlap_ratio: float
) -> list[tuple[int, CropBox]]:
    """Layer and box of the whole picture of (height, width) and of its crops.

    Layer n has 2^n x 2^n crops, column by column. Neighbors of the first layer overlap by
    `overlap_ratio` of the shorter side, those of later layers by as much less as they are more.
    """
    height, width = size
    boxes: list[tuple[int, CropBox]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        crop_width, crop_height = (
            math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)
        )
        lefts = [(crop_width - overlap) * i for i in range(count)]
        tops = [(crop_height - overlap) * i for i in range(count)]
        for x, y in product(lefts, tops):
            right, bottom = min(x + crop_width, width), min(y + crop_height, height)
            boxes.append((layer, (x, y, right, bottom)))
    return boxes


def touches_crop_edge(box: NDArray[np.float32], crop: CropBox, size: tuple[int, int]) -> bool:
    """Whether a box [4], in pixels of the picture, ends at a crop's edge inside the picture."""
    height, width = size
    picture = np.array([0, 0, width, height], np.float32)
    near_crop = np.abs(box - np.array(crop, np.float32)) <= EDGE_PX
    near_picture = np.abs(box - picture) <= EDGE_PX
    return bool((near_crop & ~near_picture).any())
