"""Log messages that carry the name of a stream, where a process has several."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:  # Python 3.10 has no LoggerAdapter[...]
    _Adapter = logging.LoggerAdapter


class StreamLog(_Adapter):
    """A logger for one stream: messages begin with its name, which records have as `stream`.

    Args:
        module: Name of the logger.
        stream: Name of the stream; None leaves messages as they are.
    """

    def __init__(self, module: str, stream: str | None) -> None:
        super().__init__(logging.getLogger(module), {})
        self._stream = stream

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the name to one message."""
        if self._stream is None:
            return msg, kwargs
        extra = {"stream": self._stream, **(kwargs.get("extra") or {})}
        # Names have no percent sign, which would be taken for a placeholder.
        return f"{self._stream}: {msg}", {**kwargs, "extra": extra}
