"""Commands of viewers: how many wait, and what becomes of them when a viewer leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from sam2_edge.serve.hub import MAX_PENDING
from sam2_edge.serve.security import BURST
from sam2_edge.serve.viewer import MAX_WAITING
from tests.helpers.clock import wait_until
from tests.helpers.site import Site, ask, messages

PROMPT = {"type": "prompt", "object": 1, "points": [[5, 5]]}


@pytest.fixture
def waiting(open_site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Future[Any]]]:
    """The commands that wait for the loop, which runs none."""
    futures: list[Future[Any]] = []

    def prompt(*_: Any, **__: Any) -> Future[Any]:
        futures.append(Future())
        return futures[-1]

    monkeypatch.setattr(open_site.loop, "prompt", prompt)
    yield futures
    for future in futures:
        future.cancel()


def send(socket: ClientConnection, count: int) -> None:
    for number in range(count):
        socket.send(json.dumps({"id": number, **PROMPT}))


def test_a_viewer_may_have_a_few_waiting_commands(
    open_site: Site, waiting: list[Future[Any]]
) -> None:
    with open_site.socket() as socket:
        send(socket, MAX_WAITING)
        answer = ask(socket, **PROMPT)
        assert answer["message"] == "busy: 4 of your commands are waiting; try again"
        waiting[0].set_result(None)
        assert ask(socket, **PROMPT)["id"] == 0  # the answer to the first one
    assert len(waiting) >= MAX_WAITING


def test_all_viewers_together_may_have_some_waiting_commands(
    open_site: Site, waiting: list[Future[Any]]
) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_PENDING // MAX_WAITING):
            send(stack.enter_context(open_site.socket()), MAX_WAITING)
        wait_until(lambda: len(waiting) == MAX_PENDING)
        answer = ask(stack.enter_context(open_site.socket()), **PROMPT)
    assert answer == {
        "type": "error",
        "id": 7,
        "message": "busy: 32 commands are waiting; try again",
    }


def test_the_commands_of_a_viewer_that_left_are_cancelled(
    open_site: Site, waiting: list[Future[Any]]
) -> None:
    with open_site.socket() as socket:
        send(socket, MAX_WAITING)
        wait_until(lambda: len(waiting) == MAX_WAITING)
    wait_until(lambda: all(future.cancelled() for future in waiting))


def test_a_flood_of_commands_changes_nothing_once_its_senders_left(open_site: Site) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            send(stack.enter_context(open_site.socket()), int(BURST) - 1)
    tracked = open_site.loop.tracked
    wait_until(lambda: open_site.loop.tracked > tracked + 5)
    with open_site.socket() as socket:
        assert ask(socket, type="reset") == {"type": "done", "id": 7}


def test_a_flood_of_pings_and_binary_frames_ends_with_its_sender(open_site: Site) -> None:
    with open_site.socket() as socket:
        for _ in range(100):
            socket.ping()
        socket.send(b"binary")
        with pytest.raises(ConnectionClosed):
            list(messages(socket))
    wait_until(lambda: open_site.hub.viewers == 0)
