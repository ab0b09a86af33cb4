"""How far two tensors of one meaning are apart, and which rows of a decoder may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHOSEN = frozenset({"best_index", "best_mask", "best_iou", "pointer"})
"""Outputs of the mask decoder that follow from its choice of a mask."""


@dataclass(frozen=True, slots=True)
class Difference:
    """largest, mean: of the absolute difference. cosine: of the angle between the tensors as
    vectors, -1..1. relative: length of the difference over that of the reference (relative L2).
    """

    largest: float
    mean: float
    cosine: float
    relative: float

    def worse(self, other: Difference) -> Difference:
        """The worse of two in each figure; what is not a number stays that."""
        return Difference(
            float(np.maximum(self.largest, other.largest)),
            float(np.maximum(self.mean, other.mean)),
            float(np.minimum(self.cosine, other.cosine)),
            float(np.maximum(self.relative, other.relative)),
        )


def difference(got: NDArray[Any], want: NDArray[Any]) -> Difference | None:
    """The difference of two arrays of one shape, `want` the reference; None where they are empty.

    Values that are not finite on one side alone make every figure nan or inf.

    Raises ValueError for different shapes.
    """
    if got.shape != want.shape:
        raise ValueError(f"arrays of shapes {got.shape} and {want.shape}; both must be the same")
    if not want.size:
        return None
    ours, theirs = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    apart = np.abs(ours - theirs)
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    length = float(np.linalg.norm(theirs))
    distance = float(np.linalg.norm(apart))
    equal = distance == 0.0
    return Difference(
        largest=float(apart.max()),
        mean=float(apart.mean()),
        cosine=1.0 if equal else float(ours @ theirs) / lengths if lengths else 0.0,
        relative=0.0 if equal else distance / length if length else float("inf"),
    )


def rows_of_equal_choice(
    got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]]
) -> NDArray[np.bool_] | slice:
    """Objects for which two decoders choose the same mask, and agree that it is there: near a tie
    half precision may choose another, and then nothing chosen is alike. All for other graphs.
    """
    if "best_index" not in got:
        return slice(None)
    there, wanted = np.signbit(got["object_score"]), np.signbit(want["object_score"])
    alike = (got["best_index"] == want["best_index"]) & (there == wanted)
    return np.asarray(alike, np.bool_)
