"""Calls to functions whose errors must not end a camera loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


class Guarded:
    """A function that logs its errors instead of raising them; of errors in a row, the first.

    Args:
        name: What it is, for the log.
        function: The function; its result is ignored.
    """

    def __init__(self, name: str, function: Callable[..., object]) -> None:
        self._name, self._function = name, function
        self._failing = False

    def __call__(self, *arguments: Any) -> None:
        """Call the function."""
        try:
            self._function(*arguments)
        except Exception:  # noqa: BLE001 # a caller's function may raise anything
            if not self._failing:
                _log.exception("%s failed; the loop continues", self._name)
            self._failing = True
        else:
            self._failing = False
