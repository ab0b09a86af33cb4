"""Reads indexed PNG masks, and scores a folder of them against ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.metrics import Accuracy, object_accuracy


def folder_accuracy(masks: Path, truth: Path) -> dict[int, Accuracy]:
    """Compute J and F of every object in the first true mask, by object id.

    Args:
        masks: Folder of predicted masks, one indexed PNG per frame.
        truth: Folder of true masks with the same file names.

    Raises:
        SourceError: If file names or mask sizes differ, or there are fewer than three masks.
    """
    names = _png_names(truth)
    if names != _png_names(masks):
        raise SourceError(
            f"the file names in {masks} and {truth} differ; give the masks of the same clip"
        )
    ours, theirs = ([read_indexed_png(f / name) for name in names] for f in (masks, truth))
    if len(names) < 3 or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        raise SourceError(
            f"{masks} and {truth} must contain at least three masks of equal sizes, since the "
            "first and last frames are not scored"
        )
    return {
        int(i): object_accuracy([m == i for m in ours], [m == i for m in theirs])
        for i in np.unique(theirs[0])
        if i
    }


def read_indexed_png(path: Path) -> NDArray[np.uint8]:
    """Read the pixel values of an indexed or gray PNG, [H, W] uint8.

    Raises:
        SourceError: If the file cannot be read, is in color or has more than 8 bits per pixel.
    """
    try:
        with Image.open(path) as image:
            indexed = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: a damaged chunk
        raise SourceError(f"{path} cannot be read ({error}); write it again") from error
    if indexed.ndim != 2:
        raise SourceError(f"{path} is a color image; give an indexed mask")
    if indexed.dtype not in (np.uint8, np.bool_):
        raise SourceError(f"{path} has {indexed.dtype} pixels; give an indexed mask of 8 bits")
    return indexed.astype(np.uint8)


def _png_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))
