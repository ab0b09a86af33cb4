"""Encodes results in a thread: once for all who wait, and with a bounded share of a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sam2_edge.runtime.streaming.loop import LoopResult

MAX_SHARE = 0.25
"""Maximum share of one core for all streams; on a slow machine viewers get fewer frames."""

MAX_RATE_PER_S = 30.0

Encoded = tuple[LoopResult, bytes]


class Encoder:
    """Encodes the latest result when somebody waits for it. Use it in the server's thread.

    Args:
        work: Encodes a result; called in a thread of its own.
        max_share: Maximum share of one core.
    """

    def __init__(
        self, work: Callable[[LoopResult], bytes], *, max_share: float = MAX_SHARE
    ) -> None:
        self._work, self._max_share = work, max_share
        self._latest: LoopResult | None = None
        self._changed = asyncio.Event()
        self._done: Encoded | None = None
        self._task: asyncio.Task[Encoded] | None = None
        self._earliest_s = 0.0

    def offer(self, result: LoopResult) -> None:
        """Replace the latest result."""
        self._latest = result
        self._changed.set()

    async def newest(self, last: LoopResult | None = None) -> Encoded:
        """Wait for the latest result other than `last`, encoded."""
        if self._done is not None and last is not self._latest is self._done[0]:
            return self._done
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._encode_next())
        return await asyncio.shield(self._task)  # others wait for it too

    async def _encode_next(self) -> Encoded:
        while self._latest is None or (self._done and self._done[0] is self._latest):
            self._changed.clear()
            await self._changed.wait()
        await asyncio.sleep(self._earliest_s - time.monotonic())
        result, began_s = self._latest, time.monotonic()
        self._done = result, await asyncio.to_thread(self._work, result)
        took_s = time.monotonic() - began_s
        self._earliest_s = began_s + max(took_s / self._max_share, 1 / MAX_RATE_PER_S)
        return self._done
