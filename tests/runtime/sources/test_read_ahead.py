"""Reading ahead in a thread: order, errors, bounds and the end."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.sources.read_ahead import read_ahead
from tests.helpers.clock import WAIT_S, wait_until


class Items:
    """The numbers below 20 as a source; knows what was asked of it and in which threads."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.threads: set[str] = set()
        self.closed = False
        self._fails_at = fails_at

    def __iter__(self) -> Generator[int, None, None]:
        try:
            for number in range(20):
                self.asked.append(number)
                self.threads.add(threading.current_thread().name)
                if number == self._fails_at:
                    raise SourceError(f"item {number} cannot be read")
                yield number
        finally:
            self.closed = True


def threads_ahead() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("sam2_edge ahead")]


def collect(results: Generator[int, None, None], seen: list[int]) -> None:
    for number in results:
        seen.append(number)  # noqa: PERF402 # what comes before an error counts


def test_items_come_in_order_from_one_other_thread() -> None:
    items = Items()
    assert list(read_ahead(iter(items), lambda n: n * n)) == [n * n for n in range(20)]
    (thread,) = items.threads
    assert thread.startswith("sam2_edge ahead")
    assert items.closed
    assert threads_ahead() == []


def test_an_empty_source_has_no_items() -> None:
    assert list(read_ahead((n for n in ()), str)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_items_are_read_while_the_consumer_works_but_only_so_many(ahead: int) -> None:
    items, read = Items(), list[int]()
    results = read_ahead(iter(items), read.append, ahead=ahead)
    for done in range(4):
        next(results)
        wait_until(lambda done=done: len(read) == done + 1 + ahead)  # type: ignore[misc]
        assert len(items.asked) == done + 1 + ahead
    results.close()


def test_an_error_of_the_source_comes_after_the_items_before_it() -> None:
    items, seen = Items(fails_at=3), list[int]()
    with pytest.raises(SourceError, match="item 3 cannot be read"):
        collect(read_ahead(iter(items), int), seen)
    assert seen == [0, 1, 2]
    assert items.closed
    assert threads_ahead() == []


def test_an_error_of_the_work_comes_after_the_items_before_it() -> None:
    def read(number: int) -> int:
        if number == 5:
            raise MemoryError
        return number

    items, seen = Items(), list[int]()
    with pytest.raises(MemoryError):
        collect(read_ahead(iter(items), read), seen)
    assert seen == [0, 1, 2, 3, 4]
    assert items.closed
    assert threads_ahead() == []


def test_closing_waits_for_the_item_in_work_and_reads_no_other() -> None:
    working, proceed = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            working.set()
            assert proceed.wait(WAIT_S)
        return number

    items = Items()
    results = read_ahead(iter(items), read, ahead=3)
    assert next(results) == 0
    assert working.wait(WAIT_S)
    threading.Timer(0.05, proceed.set).start()
    results.close()
    assert items.asked == [0, 1]
    assert items.closed
    assert threads_ahead() == []


def test_an_interrupt_of_the_consumer_ends_the_thread() -> None:
    items = Items()
    source = iter(items)  # referred to, so that it must be closed
    results = read_ahead(source, int)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert items.closed
    assert threads_ahead() == []
