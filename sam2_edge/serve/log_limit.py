"""A limit on what strangers can make the server write to the log."""

from __future__ import annotations

import logging

from sam2_edge.serve.security import TokenBucket

LINES_PER_S, BURST = 0.1, 20.0

_AFTER_REFUSAL = "ASGI callable returned without completing handshake."
"""What uvicorn wrongly reports of every WebSocket that the application refuses with a status."""


class LogLimit(logging.Filter):
    """Passes `BURST` records and then one per 10 seconds, which tells how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._bucket = TokenBucket(LINES_PER_S, BURST)
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        if record.msg == _AFTER_REFUSAL:
            return False
        if not self._bucket.take():
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.getMessage()} ({self._left_out} messages left out before)"
            record.args = ()
            self._left_out = 0
        return True
