"""Evaluates the videos of a data set that are not done yet, in one process or several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from multiprocessing.synchronize import Event

import cv2

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.prompting import PromptKind
from sam2_edge.evaluation.vos.datasets import DataSet, Video
from sam2_edge.evaluation.vos.results import EvalFolder, EvalSettings, VideoRecord
from sam2_edge.evaluation.vos.video import evaluate_video
from sam2_edge.runtime.backends import Backend, BackendName, open_backend
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.tracker import VideoTracker


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs; `threads` are the CPU threads of each, None for all cores."""

    bundle: Bundle
    settings: EvalSettings
    folder: EvalFolder
    threads: int | None = None


def eval_settings(
    dataset: DataSet,
    bundle: Bundle,
    *,
    prompt: PromptKind,
    backend: BackendName,
    memory_policy: MemoryPolicyName = "original",
) -> EvalSettings:
    """The settings of an evaluation of a data set with a bundle."""
    return EvalSettings(
        sam2_edge_version=version("sam2_edge"),
        dataset=str(dataset.root.resolve()),
        layout=dataset.layout,
        bundle=bundle.manifest.model.name,
        bundle_sha256=sha256_of(bundle.path / MANIFEST_FILE),
        prompt=prompt,
        backend=backend,
        memory_policy=memory_policy,
    )


def evaluate(
    dataset: DataSet, job: Job, *, processes: int = 1
) -> Generator[VideoRecord, None, None]:
    """Evaluate the videos without a record, and yield their records as they finish.

    However the iteration ends, the job's folder keeps every finished video.

    Raises:
        Sam2EdgeError: `evaluate_video` failed.
        BackendError: A process died.
    """
    missing = [video for video in dataset.videos if job.folder.record(video.name) is None]
    processes = min(processes, len(missing))
    if processes > 1:
        yield from _in_processes(missing, job, processes)
    elif missing:
        worker = _Worker(job, lambda: False)
        for video in missing:
            yield worker.evaluate(video)


def threads_each(processes: int) -> int | None:
    """CPU threads per process such that several share the cores; None for a single process."""
    if processes == 1:
        return None
    return max(1, len(os.sched_getaffinity(0)) // processes)


class _Worker:
    """Evaluates videos one after another with one open backend."""

    def __init__(self, job: Job, stopped: Callable[[], bool]) -> None:
        self._job = job
        self._stopped = stopped

    @cached_property
    def _backend(self) -> Backend:
        # Opened with the first video: an error while a process starts would only break the pool.
        return open_backend(self._job.bundle, self._job.settings.backend, threads=self._job.threads)

    def evaluate(self, video: Video) -> VideoRecord:
        """Evaluate a video and add the result to the folder."""
        job = self._job
        # A tracker per video: the published predictor's rule for short clips needs their length.
        tracker = VideoTracker(
            job.bundle,
            backend=self._backend,
            clip_frames=len(video.frames),
            memory_policy=job.settings.memory_policy,
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
            for done in as_completed([pool.submit(_evaluate, video) for video in videos]):
                yield done.result()
        except BrokenProcessPool as error:
            raise BackendError(
                "a process of the evaluation was killed, perhaps out of memory; rerun the same "
                "command with fewer --processes to resume"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _Process:
    """State of a process of the pool."""

    worker: _Worker


def _start(job: Job, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; `stop` ends it
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if job.threads is not None:
        cv2.setNumThreads(job.threads)
    _Process.worker = _Worker(job, stop.is_set)


def _exit_with_parent() -> None:
    """Exit if the parent is killed, so that no process keeps running beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _evaluate(video: Video) -> VideoRecord:
    return _Process.worker.evaluate(video)
