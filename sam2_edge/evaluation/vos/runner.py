"""Evaluates videos of a data set, in one process or several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.synchronize import Event

import cv2

from sam2_edge.bundle import Bundle
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.vos.datasets import Video
from sam2_edge.evaluation.vos.results import EvalFolder, EvalSettings, VideoRecord
from sam2_edge.evaluation.vos.video import evaluate_video
from sam2_edge.runtime.backends import Backend, open_backend
from sam2_edge.runtime.tracker import VideoTracker


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of an evaluation; `threads` are per process, None to share all cores."""

    bundle: Bundle
    settings: EvalSettings
    folder: EvalFolder
    threads: int | None = None


def evaluate(
    videos: Sequence[Video], job: Job, *, processes: int = 1
) -> Generator[VideoRecord, None, None]:
    """Evaluate videos and yield their records as they finish.

    The job's folder keeps every finished video, however the iteration ends.

    Raises:
        Sam2EdgeError: If a video cannot be evaluated; see `evaluate_video`.
        BackendError: If a process died.
    """
    count = min(processes, len(videos))
    if count > 1:
        threads = job.threads or max(1, len(os.sched_getaffinity(0)) // processes)
        yield from _in_processes(videos, replace(job, threads=threads), count)
    else:
        worker = _Worker(job, lambda: False)
        for video in videos:
            yield worker.evaluate(video)


class _Worker:
    """Evaluates videos one after another with one open backend."""

    def __init__(self, job: Job, stopped: Callable[[], bool]) -> None:
        self._job = job
        self._stopped = stopped

    @cached_property
    def _backend(self) -> Backend:
        # Opened for the first video: an error while a process starts would only break the pool.
        return open_backend(self._job.bundle, self._job.settings.backend, threads=self._job.threads)

    def evaluate(self, video: Video) -> VideoRecord:
        """Evaluate a video and add the result to the folder."""
        job = self._job
        # One tracker per video, since the published rule for short clips depends on their length.
        tracker = VideoTracker(
            job.bundle,
            backend=self._backend,
            clip_frames=len(video.frames),
            memory_policy=job.settings.memory_policy,
            logits=True,  # indexed masks of several objects are scored
        )
        with job.folder.new_masks(video.name) as folder:
            record = evaluate_video(
                video,
                job.settings.layout,
                tracker,
                kind=job.settings.prompt,
                image_size=job.bundle.manifest.image_size,
                folder=folder,
                stopped=self._stopped,
            )
        job.folder.save_record(record)
        return record


def _in_processes(
    videos: Sequence[Video], job: Job, count: int
) -> Generator[VideoRecord, None, None]:
    # Spawned, not forked: neither ONNX Runtime nor CUDA survives a fork.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(job, stop)
    ) as pool:
        try:
            with _interrupts_blocked():
                futures = [pool.submit(_evaluate, video) for video in videos]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise BackendError(
                "an evaluation process was killed, perhaps because memory ran out; rerun the same "
                "command with fewer --processes to resume"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


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

    worker: _Worker


def _start(job: Job, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; `stop` ends it
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    assert job.threads is not None  # set by `evaluate`
    cv2.setNumThreads(job.threads)
    _Process.worker = _Worker(job, stop.is_set)


def _exit_with_parent() -> None:
    """Exit if the parent is killed, so that no process outlives it and disturbs the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _evaluate(video: Video) -> VideoRecord:
    return _Process.worker.evaluate(video)
