"""When two runs of a graph agree: differences of outputs, and which rows can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHOSEN = frozenset({"best_index", "best_mask", "best_iou", "pointer"})
"""Outputs of the mask decoder that depend on its choice of mask."""

BFLOAT16_STEP = 2.0**-7
"""Largest distance of neighboring bfloat16 numbers, relative to their magnitude."""


def rows_of_equal_choice(
    got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]]
) -> NDArray[np.bool_] | slice:
    """Return the rows on which two decoders choose the same mask and agree on presence.

    Near a tie, half precision may choose a different mask, so that none of `CHOSEN` is comparable.
    For other graphs, all rows are returned.
    """
    if "best_index" not in got:
        return slice(None)
    absent, want_absent = np.signbit(got["object_score"]), np.signbit(want["object_score"])
    same = (got["best_index"] == want["best_index"]) & (absent == want_absent)
    return np.asarray(same, np.bool_)


def decided_logits(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mask logits, from normal numbers, whose sign is the same in every runtime.

    The memory encoder enlarges logits to pixels and may binarize them. Where 4 become 14, as in
    SAM 3, runtimes compute places in float32, up to 3e-5 pixels apart: of a million pixels of noise
    some change sign. Bilinear weights are multiples of 1/196 there, and of 1/64 where 4 become 16,
    so that multiples of 8 become multiples of 2/49 and of 1/8. An offset keeps them 1/49 from zero.
    """
    return 8 * np.round(1.25 * normal) + 1 / 49


def relative_difference(
    got: NDArray[Any], want: NDArray[Any], *, magnitude: float | None = None, step: float = 0.0
) -> float:
    """Largest difference, relative to max(1, magnitude); of packed bits, the share that differs.

    A value that is not finite on one side alone makes it NaN or infinite.

    Args:
        got: An array.
        want: Its reference, of the same shape.
        magnitude: Largest magnitude of the output; None for that of `want`.
        step: Rounding step relative to a value: only what exceeds it counts.
    """
    if got.dtype == np.uint8:
        return float(np.unpackbits(got ^ want).mean()) if got.size else 0.0
    reference = want.astype(np.float64)
    excess = np.abs(got.astype(np.float64) - reference) - step * np.abs(reference)
    if magnitude is None:
        magnitude = float(np.abs(reference).max(initial=0.0))
    # numpy's maximum, which keeps a NaN
    return float(np.maximum(excess, 0.0).max(initial=0.0)) / max(1.0, magnitude)
