"""COCO's uncompressed run lengths: a mask as the lengths of its runs, column by column."""

from __future__ import annotations

from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_edge.compat.image.crops import CropBox
from sam2_edge.runtime.results import Rle


class RunLengths(TypedDict):
    """counts: pixels outside and inside in turn, outside first. size: height, width."""

    size: list[int]
    counts: list[int]


def run_lengths(mask: NDArray[np.bool_], crop: CropBox, size: tuple[int, int]) -> RunLengths:
    """The runs of a crop's mask in the whole picture of (height, width)."""
    height, width = size
    whole = mask
    if mask.shape != size:
        left, top, right, bottom = crop
        whole = np.zeros(size, np.bool_)
        whole[top:bottom, left:right] = mask
    flat = whole.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


def mask_of_runs(runs: RunLengths) -> NDArray[np.bool_]:
    """The mask [H,W] that run lengths hold."""
    height, width = runs["size"]
    inside = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(inside, runs["counts"]).reshape(width, height).T


def area_of_runs(runs: RunLengths) -> int:
    """Pixels of the mask."""
    return sum(runs["counts"][1::2])


def coco_rle_of_runs(runs: RunLengths) -> Rle:
    """The same as COCO's compressed RLE."""
    height, width = runs["size"]
    encoded: dict[str, Any] = coco_mask.frPyObjects(cast("Any", runs), height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
