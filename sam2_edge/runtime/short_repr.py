"""One short line for what holds large arrays, as debuggers, logs and notebooks show it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


def short_repr(instance: Any) -> str:
    """Return the `repr` of a dataclass with the shapes of its arrays instead of their values."""
    values = (f"{f.name}={_shown(getattr(instance, f.name))}" for f in fields(instance) if f.repr)
    return f"{type(instance).__name__}({', '.join(values)})"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
