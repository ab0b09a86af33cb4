"""Numerical differences between tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
