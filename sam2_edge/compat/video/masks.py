"""Output masks: low-resolution logits at the video's size, as numpy arrays or tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import NO_OBJECT_LOGIT
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.results import full_size

OutputKind = Literal["numpy", "torch"]
"""What masks are returned as: `Logits`, or PyTorch tensors on the CPU."""

OVERLAP_LOGIT = -10.0
"""Highest logit of a pixel where another object's is higher (SAM 2,
`_apply_non_overlapping_constraints`)."""


class Logits(np.ndarray):
    """A numpy array with the methods by which code for the original gets masks out of PyTorch."""

    def detach(self) -> Logits:
        """Return the array itself."""
        return self

    def cpu(self) -> Logits:
        """Return the array itself."""
        return self

    def numpy(self) -> NDArray[np.generic]:
        """Return a plain array of the same data."""
        return self.view(np.ndarray)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a NumPy array has no {name!r}; use NumPy's own methods, or build the predictor with "
            'output="torch" to get tensors'
        )


def video_masks(
    logits: Sequence[NDArray[np.float32] | None], size: tuple[int, int], *, exclusive: bool
) -> NDArray[np.float32]:
    """Resize the logits of every object.

    Args:
        logits: [s, s] of each object; None if it is absent.
        size: Height and width of the video, pixels.
        exclusive: Whether a pixel belongs to the object with the highest logit alone.

    Returns:
        [N, 1, H, W] logits.
    """
    masks = np.full((len(logits), 1, *size), NO_OBJECT_LOGIT, np.float32)
    for row, own in enumerate(logits):
        if own is not None:
            masks[row, 0] = full_size(own, size)
    if exclusive and len(masks) > 1:
        loses = np.arange(len(masks))[:, None, None, None] != masks.argmax(axis=0)
        masks = np.where(loses, np.minimum(masks, np.float32(OVERLAP_LOGIT)), masks)
    return masks


def output_converter(output: OutputKind) -> Callable[[NDArray[np.float32]], Any]:
    """Return the function that converts masks to what the caller gets.

    Raises:
        Sam2EdgeError: For another kind, or if PyTorch is not installed.
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
