"""Between the loop's thread and the server's: the latest result goes out, commands come in.

The loop only leaves its result here. The server encodes it once, and only while somebody looks;
each viewer is sent the newest message when it has taken the one before, so that a slow one gets
fewer frames and holds up nobody.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import Meter
from sam2_edge.serve.messages import Command
from sam2_edge.serve.picture import message


class Hub:
    """What a server knows of one loop. Made in the loop's thread; `attach` in the server's."""

    def __init__(self, loop: CameraLoop, meter: Meter) -> None:
        self.loop, self.meter = loop, meter
        self.names: dict[int, str] = {}
        self.latest: LoopResult | None = None
        self.viewers = 0
        self.ended = False
        self._server: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._message: tuple[LoopResult, bytes] | None = None
        self._encoding = asyncio.Lock()

    def attach(self) -> None:
        """Called by the server once its event loop runs."""
        self._changed = asyncio.Event()
        self._server = asyncio.get_running_loop()

    def publish(self, tracked: LoopResult) -> None:
        """Leave a result for the viewers; from the loop's thread."""
        self.latest = tracked
        self._wake()

    def end(self) -> None:
        """Say that no further result comes; from the loop's thread."""
        self.ended = True
        self._wake()

    async def next_message(self, seen: LoopResult | None, timeout_s: float) -> LoopResult | None:
        """Wait for a result other than `seen`; None if there is none in time."""
        assert self._changed is not None
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.latest is None or self.latest is seen:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), left)
            except asyncio.TimeoutError:
                return None
        return self.latest

    async def encoded(self, tracked: LoopResult) -> bytes:
        """The message for a result, made once for all viewers."""
        async with self._encoding:
            if self._message is None or self._message[0] is not tracked:
                state = {**self.meter.snapshot(), "paused": self.loop.paused, "ended": self.ended}
                data = await asyncio.to_thread(message, tracked, state, dict(self.names))
                self._message = (tracked, data)
            return self._message[1]

    def obey(self, command: Command) -> Future[Any] | None:
        """Hand a command to the loop; None where there is nothing to wait for.

        Raises LoopError when the loop has ended.
        """
        if command.type == "prompt":
            return self.loop.prompt(
                command.object, points=command.points, labels=command.labels, box=command.box
            )
        if command.type == "remove":
            self.names.pop(command.object, None)
            return self.loop.remove(command.object)
        if command.type == "reset":
            self.names.clear()
            return self.loop.reset()
        if command.type == "name":
            self.names[command.object] = command.name
        elif command.type == "pause":
            self.loop.pause()
        else:
            self.loop.resume()
        if self.latest is not None:
            self.publish(replace(self.latest))  # the same frame, and what is new about it
        return None

    def _wake(self) -> None:
        if self._server is not None and not self._server.is_closed():
            self._server.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        assert self._changed is not None
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
