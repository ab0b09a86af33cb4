"""One viewer's WebSocket: frames go out, commands come in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from sam2_edge.errors import LoopError, Sam2EdgeError
from sam2_edge.serve.commands import MAX_BYTES, parse_command
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.security import BURST, TokenBucket

MAX_WAITING = 4
"""Commands of one viewer that may wait for the loop."""

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
"""WebSocket close codes (RFC 6455)."""

_KEEP_ALIVE_S = 5.0
_SEND_TIMEOUT_S = 20.0


class Viewer:
    """A viewer whose connection is accepted."""

    def __init__(self, socket: WebSocket, hub: Hub) -> None:
        self._socket, self._hub = socket, hub
        self._answers: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._has_left = False

    async def run(self) -> None:
        """Serve the viewer until either side closes the connection; drop its waiting commands."""
        self._hub.viewers += 1
        tasks = [asyncio.create_task(work()) for work in (self._send, self._receive)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.viewers -= 1
            self._has_left = True
            tasks += self._answers
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        """Send the names of several streams, then the latest results, or keep-alive messages."""
        last = None
        try:
            if self._hub.streams:
                told = {"type": "streams", "streams": self._hub.streams, "stream": self._hub.name}
                await asyncio.wait_for(self._socket.send_text(json.dumps(told)), _SEND_TIMEOUT_S)
            # wait_for before Python 3.12 loses a cancellation that comes together with its result.
            while not self._has_left:
                try:
                    last, data = await asyncio.wait_for(
                        self._hub.frames.newest(last), _KEEP_ALIVE_S
                    )
                except asyncio.TimeoutError:
                    alive = json.dumps({"type": "alive"})
                    await asyncio.wait_for(self._socket.send_text(alive), _SEND_TIMEOUT_S)
                    continue
                # A viewer that reads nothing for this long has left without closing.
                await asyncio.wait_for(self._socket.send_bytes(data), _SEND_TIMEOUT_S)
        except (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            return

    async def _receive(self) -> None:
        """Execute commands until the viewer leaves or exceeds a limit."""
        bucket = TokenBucket()
        while True:
            try:
                text = await self._socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
                return
            # A viewer that sends but does not read collects answers.
            if len(text) > MAX_BYTES or not bucket.take() or len(self._answers) > BURST:
                await self._socket.close(POLICY_VIOLATION)
                return
            task = asyncio.create_task(self._answer(text))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, text: str) -> None:
        """Execute one command and report its outcome."""
        answer: dict[str, Any] = {"type": "done"}
        self._waiting += 1
        try:
            command = parse_command(text)
            answer["id"] = command.id
            if self._waiting > MAX_WAITING:
                raise LoopError(f"busy: {MAX_WAITING} of your commands are waiting; try again")
            future = self._hub.execute(command)
            if future is not None:
                await asyncio.wrap_future(future)
        except Sam2EdgeError as error:
            answer |= {"type": "error", "message": str(error)}
        finally:
            self._waiting -= 1
        try:
            await self._socket.send_text(json.dumps(answer))
        except (WebSocketDisconnect, RuntimeError):
            return  # the viewer has left
