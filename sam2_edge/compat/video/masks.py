"""What is done to mask logits on their way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import NO_OBJECT_LOGIT
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.results import MASK_LOGIT, full_size

OutputKind = Literal["numpy", "torch"]
"""What masks come as: `Logits`, or PyTorch tensors on the CPU."""

FILLED_LOGIT = 0.1
"""What the pixels of a filled hole become (SAM 2, `fill_holes_in_mask_scores`)."""

OVERLAP_LOGIT = -10.0
"""Most that a pixel has where another object's logit is higher (SAM 2,
`_apply_non_overlapping_constraints`)."""


class Logits(np.ndarray):
    """A numpy array that also answers to `.detach()`, `.cpu()` and `.numpy()`, with which code for
    the original takes its masks out of PyTorch.
    """

    def detach(self) -> Logits:
        """The array itself."""
        return self

    def cpu(self) -> Logits:
        """The array itself."""
        return self

    def numpy(self) -> NDArray[np.generic]:
        """A plain array of the same data."""
        return self.view(np.ndarray)


def fill_holes(logits: NDArray[np.float32], max_area: int) -> NDArray[np.float32]:
    """Logits [s,s] in which pieces of background of at most `max_area` pixels, neighbors across
    corners included, are foreground; 0 leaves them.
    """
    if max_area <= 0:
        return logits
    background = (logits <= MASK_LOGIT).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    small[0] = False  # what is not background
    filled = np.where(small[labels], np.float32(FILLED_LOGIT), logits)
    return filled.astype(np.float32)


def video_masks(
    logits: Sequence[NDArray[np.float32] | None], size: tuple[int, int], *, exclusive: bool
) -> NDArray[np.float32]:
    """Logits [N,1,H,W] at (height, width) from [s,s] of every object; None is no object anywhere.

    exclusive: a pixel belongs to the object of the highest logit alone.
    """
    masks = np.full((len(logits), 1, *size), NO_OBJECT_LOGIT, np.float32)
    for row, own in enumerate(logits):
        if own is not None:
            masks[row, 0] = full_size(own, size)
    if exclusive and len(masks) > 1:
        best = masks.argmax(axis=0)
        loses = np.arange(len(masks))[:, None, None, None] != best
        masks = np.where(loses, np.minimum(masks, np.float32(OVERLAP_LOGIT)), masks)
    return masks


def output_converter(output: OutputKind) -> Callable[[NDArray[np.float32]], Any]:
    """What turns masks into what the caller gets.

    Raises Sam2EdgeError for another kind, or where PyTorch is not installed.
    """
    if output == "numpy":
        return lambda masks: masks.view(Logits)
    if output != "torch":
        raise Sam2EdgeError(f"output is {output!r}; give numpy or torch")
    try:
        import torch
    except ImportError as error:
        raise Sam2EdgeError(
            "output is torch, and PyTorch is not installed; install it with: pip install torch, or "
            "leave output at numpy"
        ) from error
    return torch.from_numpy
