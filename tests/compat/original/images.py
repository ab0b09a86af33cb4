"""An image to segment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_edge.synthetic import clip
from tests.compat.original.models import SIZE


def synthetic_image(seed: int = 10, size: tuple[int, int] = (SIZE, SIZE)) -> NDArray[np.uint8]:
    """Return a synthetic image [H, W, 3] RGB."""
    side = max(size)
    frame = clip(seed, frames=1, objects=3, size=side, split="heldout").frames[0]
    return np.ascontiguousarray(frame[: size[0], : size[1], ::-1])
