"""Scores a folder of indexed masks against ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.metrics import Accuracy, object_accuracy
from sam2_edge.runtime.sources.images import image_files
from sam2_edge.runtime.sources.mask_file import VOID, read_id_mask

MASK_SUFFIXES = frozenset({".png"})


def folder_accuracy(masks: Path, truth: Path) -> dict[int, Accuracy]:
    """Compute J and F of every object in the first true mask, by object id.

    Args:
        masks: Folder of predicted masks, one indexed PNG per frame.
        truth: Folder of true masks with the same file names.

    Raises:
        SourceError: If a file cannot be read, file names or mask sizes differ, or there are fewer
            than three masks.
    """
    ours, theirs = image_files(masks, MASK_SUFFIXES), image_files(truth, MASK_SUFFIXES)
    if [path.stem for path in ours] != [path.stem for path in theirs]:
        raise SourceError(
            f"the file names in {masks} and {truth} differ; give the masks of the same clip"
        )
    if len(ours) < 3:
        raise SourceError(
            f"{truth} contains {len(ours)} masks; give at least three, since the first and last "
            "frames are not scored"
        )
    true = [read_id_mask(path) for path in theirs]
    predicted = [read_id_mask(p, ids.shape) for p, ids in zip(ours, true, strict=True)]
    predicted, true = _without_void(predicted), _without_void(true)
    return {
        int(i): object_accuracy([m == i for m in predicted], [m == i for m in true])
        for i in np.unique(true[0])
        if i
    }


def is_binary(mask: NDArray[np.uint8]) -> bool | None:
    """Return whether 255 marks the object, the only one, rather than void; None if none is shown.

    DAVIS and LVOS mark void pixels by 255 beside their objects. Masks of 0 and 255 mark an object.
    """
    values = np.unique(mask[mask > 0])
    return bool(values[0] == VOID) if values.size else None


def object_ids(mask: NDArray[np.uint8], *, binary: bool) -> NDArray[np.uint8]:
    """Return the mask with the object of a binary one as 1, or else without void."""
    return np.where(mask == VOID, np.uint8(binary), mask)


def _without_void(masks: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    binary = all(is_binary(mask) is not False for mask in masks)
    return [object_ids(mask, binary=binary) for mask in masks]
