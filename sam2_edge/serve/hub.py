"""Exchanges results and commands between the loop's thread and the server's.

The loop only publishes its result. The server encodes it once, and only if there are viewers. Each
viewer gets the latest frame once it has received the previous one, so a slow viewer skips frames
without delaying the others.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.commands import Command
from sam2_edge.serve.frame_message import encode_frame


class Hub:
    """The server's interface to one loop.

    Create it in the loop's thread, and call `attach` in the server's.

    Attributes:
        names: Object names set by viewers, by id.
        latest: The latest result.
        viewers: Number of viewers.
        ended: Whether the loop has ended.
    """

    def __init__(self, loop: CameraLoop, stats: LoopStats) -> None:
        self.names: dict[int, str] = {}
        self.latest: LoopResult | None = None
        self.viewers = 0
        self.ended = False
        self._loop, self._stats = loop, stats
        self._server: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._message: tuple[LoopResult, bytes] | None = None
        self._encoding = asyncio.Lock()

    def attach(self) -> None:
        """Connect to the running event loop, which is the server's."""
        self._server = asyncio.get_running_loop()
        # They bind to the event loop that first waits on them, perhaps that of an earlier server.
        self._changed, self._encoding = asyncio.Event(), asyncio.Lock()

    def publish(self, tracked: LoopResult) -> None:
        """Publish a result to the viewers. Thread-safe."""
        self.latest = tracked
        if self._server is not None and not self._server.is_closed():
            self._server.call_soon_threadsafe(self._notify)

    def end(self) -> None:
        """Announce that there will be no more results. Thread-safe."""
        self.ended = True
        self._republish()

    async def next_result(self, last: LoopResult | None, timeout_s: float) -> LoopResult | None:
        """Wait for a result other than `last`; None if there is none in time."""
        try:
            await asyncio.wait_for(self._other_than(last), timeout_s)
        except asyncio.TimeoutError:
            return None
        return self.latest

    async def encoded(self, tracked: LoopResult) -> bytes:
        """Return the message for a result, encoded once for all viewers."""
        async with self._encoding:
            if self._message is None or self._message[0] is not tracked:
                state = {**self._stats.snapshot(), "paused": self._loop.paused, "ended": self.ended}
                data = await asyncio.to_thread(encode_frame, tracked, state, dict(self.names))
                self._message = (tracked, data)
            return self._message[1]

    def execute(self, command: Command) -> Future[Any] | None:
        """Pass a command to the loop.

        Returns:
            The loop's future; None if there is nothing to wait for.

        Raises:
            LoopError: If the loop has ended.
        """
        if command.type == "prompt":
            return self._loop.prompt(
                command.object, points=command.points, labels=command.labels, box=command.box
            )
        if command.type == "remove":
            self.names.pop(command.object, None)
            return self._loop.remove(command.object)
        if command.type == "reset":
            self.names.clear()
            return self._loop.reset()
        if command.type == "name":
            self.names[command.object] = command.name
        elif command.type == "pause":
            self._loop.pause()
        else:
            self._loop.resume()
        self._republish()
        return None

    async def _other_than(self, last: LoopResult | None) -> None:
        while self.latest is None or self.latest is last:
            await self._changed.wait()

    def _republish(self) -> None:
        """Publish the same frame with its new state."""
        if self.latest is not None:
            self.publish(replace(self.latest))

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
