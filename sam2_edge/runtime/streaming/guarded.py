"""Calls to functions whose errors must not end a camera loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sam2_edge.runtime.streaming.stream_log import StreamLog


class Guarded:
    """A function that logs its errors instead of raising them; of errors in a row, the first.

    Args:
        name: What it is, for the log.
        function: The function; its result is ignored.
        stream: Name of its stream, for the log.
    """

    def __init__(
        self, name: str, function: Callable[..., object], *, stream: str | None = None
    ) -> None:
        self._name, self._function = name, function
        self._log = StreamLog(__name__, stream)
        self._failing = False

    def __call__(self, *arguments: Any) -> None:
        """Call the function."""
        try:
            self._function(*arguments)
        except Exception:  # noqa: BLE001 # a caller's function may raise anything
            if not self._failing:
                self._log.exception("%s failed; the loop continues", self._name)
            self._failing = True
        else:
            self._failing = False
