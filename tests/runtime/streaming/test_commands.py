"""Commands share the loop's time with its frames, and each is answered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from sam2_edge import LoopError, PromptError
from sam2_edge.runtime.streaming import commands as commands_module
from sam2_edge.runtime.streaming.commands import (
    MAX_CREDIT_S,
    MAX_WAITING_COMMANDS,
    CommandQueue,
)
from tests.helpers.clock import FakeTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(commands_module, "time", fake)
    return fake


@pytest.fixture
def queue(clock: FakeTime) -> CommandQueue:  # noqa: ARG001
    return CommandQueue(lambda: None)


def nothing() -> None: ...


def takes(clock: FakeTime, seconds: float) -> Callable[[], None]:
    """Return a command that takes some time."""
    return lambda: clock.sleep(seconds)


def test_commands_run_in_order_and_their_outcomes_come_back(queue: CommandQueue) -> None:
    ran: list[int] = []

    def refused() -> None:
        raise PromptError("no such object")

    futures = [queue.submit(lambda i=i: ran.append(i) or i) for i in range(5)]
    bad = queue.submit(refused)
    assert queue.run()
    assert ran == [f.result(0) for f in futures] == list(range(5))
    with pytest.raises(PromptError, match="no such object"):
        bad.result(0)
    assert not queue.run()


@pytest.mark.parametrize("command_s", [0.001, 0.03, 0.4])
@pytest.mark.parametrize("frame_s", [0.005, 0.033, 0.25])
def test_under_a_flood_frames_get_at_least_half_of_the_time(
    queue: CommandQueue, clock: FakeTime, command_s: float, frame_s: float
) -> None:
    start, frames = clock.now, 400
    for _ in range(frames):
        clock.now += frame_s
        with suppress(LoopError):
            while True:
                queue.submit(takes(clock, command_s))
        queue.run()
    spent_s, commands_s = clock.now - start, sum(clock.sleeps)
    assert commands_s <= 0.5 * (spent_s + MAX_CREDIT_S + command_s)
    assert commands_s >= 0.2 * spent_s  # nor do the commands starve


def test_a_rest_does_not_save_up_time_for_a_long_burst(
    queue: CommandQueue, clock: FakeTime
) -> None:
    clock.now += 3600
    futures = [queue.submit(takes(clock, 0.02)) for _ in range(MAX_WAITING_COMMANDS)]
    queue.run()
    assert sum(f.done() for f in futures) == MAX_CREDIT_S / 0.02


def test_some_commands_can_be_run_however_long_they_take(
    queue: CommandQueue, clock: FakeTime
) -> None:
    futures = [queue.submit(takes(clock, 9.0)) for _ in range(4)]
    queue.run(at_least=3)
    assert [f.done() for f in futures] == [True, True, True, False]


def test_a_full_queue_refuses_and_a_cancelled_command_makes_room(queue: CommandQueue) -> None:
    futures = [queue.submit(nothing) for _ in range(MAX_WAITING_COMMANDS)]
    with pytest.raises(LoopError, match="64 commands already wait .* wait for"):
        queue.submit(nothing)
    assert futures[7].cancel()
    later = queue.submit(nothing)
    with pytest.raises(LoopError, match="already wait"):
        queue.submit(nothing)
    queue.run()
    assert later.done()


def test_cancelled_commands_are_not_run(queue: CommandQueue) -> None:
    ran: list[str] = []
    gone = queue.submit(lambda: ran.append("gone"))
    stays = queue.submit(lambda: ran.append("stays"))
    assert gone.cancel()
    assert queue.run()
    assert ran == ["stays"]
    assert stays.done()
    queue.submit(nothing).cancel()
    assert not queue.run()


def test_the_heart_beats_between_commands(clock: FakeTime) -> None:
    beats: list[float] = []
    queue = CommandQueue(lambda: beats.append(clock.now))
    start = clock.now
    for _ in range(3):
        queue.submit(takes(clock, 10.0))
    queue.run(at_least=3)
    assert beats == [start + 10, start + 20, start + 30]


def test_a_stopped_queue_runs_nothing_more_and_a_closed_one_answers_and_refuses(
    queue: CommandQueue,
) -> None:
    first, cancelled, last = queue.submit(queue.stop), queue.submit(nothing), queue.submit(nothing)
    cancelled.cancel()
    queue.run()
    assert (first.done(), last.done()) == (True, False)
    queue.close()
    with pytest.raises(LoopError, match="the loop ended before this command"):
        last.result(0)
    with pytest.raises(LoopError, match="accepts no more commands"):
        queue.submit(nothing)
