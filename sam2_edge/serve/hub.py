"""Exchanges results and commands between the loop's thread and the server's.

The loop only publishes its result. The server encodes it once, and only if there are viewers. Each
viewer gets the latest frame once it has received the previous one, so a slow viewer skips frames
without delaying the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sam2_edge.errors import LoopError
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.commands import Command
from sam2_edge.serve.download import pack_masks
from sam2_edge.serve.encoder import MAX_SHARE, Encoder
from sam2_edge.serve.frame_message import encode_frame

MAX_PENDING = 32
"""Commands of all viewers that may wait for the loop."""

_CONTROLS = ("pause", "resume", "replay")
"""Commands that wait for nothing."""


class Hub:
    """The server's interface to one loop.

    Create it in the loop's thread, and call `attach` in the server's.

    Args:
        loop: The loop.
        stats: Its statistics.
        streams: Names of all streams, if there are several; they share the time for encoding.

    Attributes:
        name: Name of the stream; None for the only one.
        streams: Names of all streams; empty if there is one without a name.
        latest: The latest result.
        viewers: Number of viewers.
        frames: Encodes messages for viewers; set by `attach`.
        masks: Encodes downloads of the masks; set by `attach`.
    """

    def __init__(self, loop: CameraLoop, stats: LoopStats, *, streams: Sequence[str] = ()) -> None:
        self.name, self.streams = loop.name, tuple(streams)
        self.latest: LoopResult | None = None
        self.viewers = 0
        self._loop, self._stats = loop, stats
        self._server: asyncio.AbstractEventLoop | None = None
        self._pending: set[Future[Any]] = set()

    def attach(self) -> None:
        """Connect to the running event loop, which is the server's."""
        # They belong to this event loop; an earlier server had another one.
        share = MAX_SHARE / max(1, len(self.streams))
        self.frames = Encoder(self._encode_frame, max_share=share)
        self.masks = Encoder(pack_masks, max_share=share)
        self._server = asyncio.get_running_loop()
        if self.latest is not None:
            self._offer(self.latest)

    def publish(self, tracked: LoopResult) -> None:
        """Publish a result to the viewers. Thread-safe."""
        self.latest = tracked
        if self._server is not None:
            with suppress(RuntimeError):  # the server has ended
                self._server.call_soon_threadsafe(self._offer, tracked)

    def execute(self, command: Command) -> Future[Any] | None:
        """Pass a command to the loop.

        Returns:
            The loop's future; None if there is nothing to wait for.

        Raises:
            LoopError: If the loop has ended, or too many commands wait for it.
        """
        if command.type in _CONTROLS:
            getattr(self._loop, command.type)()
            self._republish()
            return None
        self._pending = {future for future in self._pending if not future.done()}
        if len(self._pending) >= MAX_PENDING:
            raise LoopError(f"busy: {MAX_PENDING} commands are waiting; try again")
        future = self._submit(command)
        self._pending.add(future)
        return future

    def _submit(self, command: Command) -> Future[Any]:
        loop = self._loop
        if command.type == "prompt":
            return loop.prompt(
                command.object, points=command.points, labels=command.labels, box=command.box
            )
        if command.type == "click":
            return loop.click(command.object, command.x, command.y, foreground=command.foreground)
        if command.type == "remove":
            return loop.remove(command.object)
        if command.type == "name":
            return loop.rename(command.object, command.name)
        future: Future[Any] = getattr(loop, command.type)()  # reset, undo, redo
        return future

    def _republish(self) -> None:
        """Publish the same frame with its new state."""
        if self.latest is not None:
            self.publish(replace(self.latest))

    def _offer(self, tracked: LoopResult) -> None:
        self.frames.offer(tracked)
        self.masks.offer(tracked)

    def _encode_frame(self, tracked: LoopResult) -> bytes:
        state = {
            **({} if self.name is None else {"stream": self.name}),
            **self._stats.snapshot(),
            "paused": self._loop.paused,
            "finished": self._loop.finished,
        }
        return encode_frame(tracked, state)
