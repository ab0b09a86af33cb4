"""Runs tasks in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Generic, TypeVar

from sam2_edge.batch.work import Work

Task = TypeVar("Task")
Result = TypeVar("Result")

REPORT_S = 1.0
"""Time between reports of frames."""

KILLED = "its process was killed, twice, perhaps because memory ran out"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Return the memory that can be taken without swapping, in bytes."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"MemAvailable:\s+(\d+) kB", text)
    return 1024 * int(kilobytes)


class Processes(Generic[Task, Result]):
    """Runs tasks in several processes, each with a worker.

    A process that dies costs only the tasks in flight. They are run again one at a time, so that a
    task that kills its process takes no other with it; if its process dies again, it is lost.

    Args:
        work: What a worker does.
        count: Number of processes.
        threads: CPU threads of each; None to share the cores.
    """

    def __init__(self, work: Work[Task, Result], count: int, threads: int | None = None) -> None:
        self._work = work
        self._count = count
        self._threads = threads or max(1, usable_cores() // count)
        # Spawned, not forked: neither ONNX Runtime nor CUDA survives a fork.
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._frames = self._context.Value("q", 0)

    def run(
        self, tasks: Sequence[Task], on_frames: Callable[[int], None] = lambda _count: None
    ) -> Generator[Result, None, None]:
        """Run tasks and yield results as they finish; an error in a worker is raised here.

        Args:
            tasks: In the order in which they begin.
            on_frames: Called about once a second with the number of frames handled so far, those
                of unfinished tasks included.
        """
        waiting, suspects = deque(tasks), deque[Task]()
        running: dict[Future[Result], Task] = {}
        pool = self._pool()
        try:
            while waiting or suspects or running:
                alone = bool(suspects)
                source, limit = (suspects, 1) if alone else (waiting, self._count)
                with _interrupts_blocked():
                    while source and len(running) < limit:
                        task = source.popleft()
                        running[pool.submit(_handle, task)] = task
                results, killed = _finished(running)
                on_frames(self._frames.value)
                yield from results
                if killed:
                    pool.shutdown()
                    pool = self._pool()
                if alone:
                    yield from (self._work.lost(task, KILLED) for task in killed)
                else:
                    suspects.extend(killed)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _pool(self) -> ProcessPoolExecutor:
        arguments = (self._work, self._threads, self._stop, self._frames)
        return ProcessPoolExecutor(
            self._count, mp_context=self._context, initializer=_start, initargs=arguments
        )


def _finished(running: dict[Future[Result], Task]) -> tuple[list[Result], list[Task]]:
    """Wait a while for tasks, and take them out of `running`.

    Returns:
        Results, and the tasks whose process died.
    """
    done, _ = wait(running, timeout=REPORT_S, return_when=FIRST_COMPLETED)
    if any(_was_killed(future) for future in done):
        done, _ = wait(running)  # the others end at once
    killed = [running[future] for future in done if _was_killed(future)]
    results = [future.result() for future in done if not _was_killed(future)]
    for future in done:
        del running[future]
    return results, killed


def _was_killed(future: Future[Any]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C cannot interrupt before `_start` runs in them.

    They inherit the signal mask. An interrupt of this process is delivered at the end: the mask
    alone would not do, since threads of native libraries take the signal too.
    """
    received: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # where Python handles signals
        handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)


class _Process:
    """State of a pool process."""

    handle: Callable[[Any], Any]


def _start(work: Work[Any, Any], threads: int, stop: Event, frames: Synchronized[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; `stop` ends it
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def advance() -> None:
        with frames.get_lock():
            frames.value += 1

    _Process.handle = staticmethod(work.open(threads, stop.is_set, advance))


def _exit_with_parent() -> None:
    """Exit if the parent is killed, so that no process outlives it and disturbs the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _handle(task: Any) -> Any:
    return _Process.handle(task)
