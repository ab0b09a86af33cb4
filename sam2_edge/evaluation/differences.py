"""Numerical differences between tensors, and which rows of two decoders are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHOSEN = frozenset({"best_index", "best_mask", "best_iou", "pointer"})
"""Outputs of the mask decoder that depend on its choice of mask."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Figures of the difference between two tensors.

    Attributes:
        max_abs: Maximum absolute difference.
        mean_abs: Mean absolute difference.
        cosine: Cosine similarity.
        relative_l2: L2 norm of the difference divided by that of the reference.
    """

    max_abs: float
    mean_abs: float
    cosine: float
    relative_l2: float

    def worse(self, other: Difference) -> Difference:
        """Return the worse of two values in each figure; NaN stays NaN."""
        return Difference(
            float(np.maximum(self.max_abs, other.max_abs)),
            float(np.maximum(self.mean_abs, other.mean_abs)),
            float(np.minimum(self.cosine, other.cosine)),
            float(np.maximum(self.relative_l2, other.relative_l2)),
        )


def difference(got: NDArray[Any], want: NDArray[Any]) -> Difference | None:
    """Compare an array with its reference; None if they are empty.

    Non-finite values on either side make the figures NaN or infinite.

    Raises:
        ValueError: If the shapes differ.
    """
    if got.shape != want.shape:
        raise ValueError(f"arrays of shapes {got.shape} and {want.shape}; both must be the same")
    if not want.size:
        return None
    ours, theirs = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    absolute = np.abs(ours - theirs)
    norm = float(np.linalg.norm(theirs))
    norms = float(np.linalg.norm(ours) * norm)
    distance = float(np.linalg.norm(absolute))
    equal = distance == 0.0
    return Difference(
        max_abs=float(absolute.max()),
        mean_abs=float(absolute.mean()),
        cosine=1.0 if equal else float(ours @ theirs) / norms if norms else 0.0,
        relative_l2=0.0 if equal else distance / norm if norm else float("inf"),
    )


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
