"""An evaluation of a data set: the videos that are not done yet, in one process or several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.synchronize import Event

import cv2

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.prompting import PromptKind
from sam2_edge.evaluation.vos.datasets import DataSet, Video
from sam2_edge.evaluation.vos.folder import EvalFolder
from sam2_edge.evaluation.vos.results import EvalSettings, VideoRecord
from sam2_edge.evaluation.vos.video import evaluate_video
from sam2_edge.runtime.backends import BackendName, open_backend
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.tracker import VideoTracker


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs; threads: CPU threads of each, None for all cores."""

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
    """Evaluate the videos that have no record yet, and yield their records as they are done.

    However the iteration ends, every video that was done is kept whole in the job's folder.

    Raises the errors of `evaluate_video`, and BackendError when a process dies.
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
    """CPU threads for each of several processes, so that they share the cores; None for one."""
    if processes == 1:
        return None
    return max(1, len(os.sched_getaffinity(0)) // processes)


class _Worker:
    """Evaluates videos one after the other; the backend stays open between them."""

    def __init__(self, job: Job, stopped: Callable[[], bool]) -> None:
        self._job = job
        self._stopped = stopped
        self._backend = open_backend(job.bundle, job.settings.backend, threads=job.threads)

    def evaluate(self, video: Video) -> VideoRecord:
        """Evaluate a video and put the result into the folder."""
        job = self._job
        # A tracker of its own: the published predictor's rule for short clips needs their length.
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
                "a process of the evaluation was killed, perhaps for want of memory; run the same "
                "command again to go on, with fewer --processes"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _Process:
    """What a process of the pool keeps: the job, and from its first video on the open backend."""

    job: Job
    stop: Event
    worker: _Worker | None = None


def _start(job: Job, stop: Event) -> None:
    """Prepare a process; the backend waits, as an error here would only break the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; `stop` tells it
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if job.threads is not None:
        cv2.setNumThreads(job.threads)
    _Process.job, _Process.stop = job, stop


def _leave_with_parent() -> None:
    """End when the parent was killed, so that none goes on beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _evaluate(video: Video) -> VideoRecord:
    if _Process.worker is None:
        _Process.worker = _Worker(_Process.job, _Process.stop.is_set)
    return _Process.worker.evaluate(video)
