"""Evaluates videos of a data set, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2

from sam2_edge.batch.cluster import Cluster, ClusterOptions
from sam2_edge.batch.processes import Processes
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

    def open(
        self, threads: int | None, stopped: Callable[[], bool], _advance: Callable[[], None]
    ) -> Callable[[Video], VideoRecord]:
        """Return what evaluates videos in a process of their own."""
        cv2.setNumThreads(threads or 0)
        return _Worker(replace(self, threads=threads), stopped).evaluate

    def lost(self, video: Video, reason: str) -> VideoRecord:
        """Raise BackendError: scores without a video would be others."""
        raise BackendError(
            f"{video.name} cannot be evaluated: {reason}; rerun the same command with fewer "
            "--processes to resume"
        )


def evaluate(
    videos: Sequence[Video],
    job: Job,
    *,
    processes: int = 1,
    cluster: ClusterOptions | None = None,
) -> Generator[VideoRecord, None, None]:
    """Evaluate videos and yield their records as they finish.

    The job's folder keeps every finished video, however the iteration ends.

    Args:
        videos: The videos.
        job: Settings of the evaluation.
        processes: Number of videos evaluated at once, on this machine.
        cluster: Where to evaluate them instead.

    Raises:
        Sam2EdgeError: If a video cannot be evaluated; see `evaluate_video`.
        BackendError: If the process of a video died twice.
    """
    count = min(processes, len(videos))
    if cluster is not None:
        yield from Cluster(job, cluster).run(videos)
    elif count > 1:
        yield from Processes(job, count, job.threads).run(videos)
    else:
        yield from map(_Worker(job, lambda: False).evaluate, videos)


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
