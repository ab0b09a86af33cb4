"""What a worker does with the videos of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from sam2_edge.batch.results import BatchOutput, BatchSettings, VideoRecord, write_record
from sam2_edge.batch.tasks import VideoTask
from sam2_edge.batch.urls import fetched
from sam2_edge.bundle import Bundle
from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.errors import PromptError, Sam2EdgeError, SourceError, message_of
from sam2_edge.runtime.backends import Backend, open_backend
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.coco import CocoFile
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.video import OverlayVideo
from sam2_edge.runtime.sources import Source
from sam2_edge.runtime.sources.mask_file import VOID, MaskFile, read_id_mask
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, load_prompts, read_prompts
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.runtime.streaming.offline import track_source
from sam2_edge.runtime.tracker import VideoTracker


class StoppedError(Exception):
    """The batch was stopped in the middle of a video."""


@dataclass(frozen=True, slots=True)
class TrackVideos:
    """Tracks the videos of a batch; see `Work`."""

    bundle: Bundle
    settings: BatchSettings
    output: BatchOutput

    def open(
        self, threads: int | None, stopped: Callable[[], bool], advance: Callable[[], None]
    ) -> Callable[[VideoTask], VideoRecord]:
        """See `Work`."""
        cv2.setNumThreads(threads or 0)
        return _Worker(self, threads, stopped, advance).track

    def lost(self, task: VideoTask, reason: str) -> VideoRecord:
        """Record a video whose worker died."""
        record = _failed(task, reason)
        self.output.save_failed(record)
        return record


@dataclass
class _Worker:
    """Tracks videos one after another with one open backend."""

    work: TrackVideos
    threads: int | None
    stopped: Callable[[], bool]
    advance: Callable[[], None]

    @cached_property
    def _backend(self) -> Backend:
        # Opened for the first video: an error while a process starts would only break the pool.
        return open_backend(self.work.bundle, self.work.settings.backend, threads=self.threads)

    def track(self, task: VideoTask) -> VideoRecord:
        """Track a video and put its results in place, or record why that failed."""
        output, backend = self.work.output, self._backend
        try:
            with output.new_video(task.name) as folder, scratch_folder() as scratch:
                record = self._track(task, backend, folder, scratch)
                write_record(folder, record)
        except (Sam2EdgeError, OSError, MemoryError) as error:
            record = _failed(task, message_of(error))
            output.save_failed(record)
        return record

    def _track(self, task: VideoTask, backend: Backend, folder: Path, scratch: Path) -> VideoRecord:
        started = time.perf_counter()
        source = open_source(fetched(task.source, scratch, SourceError), task.frames)
        prompts = _prompts_of(task, source.start, scratch)
        settings = self.work.settings
        tracker = VideoTracker(
            self.work.bundle,
            backend=backend,
            clip_frames=source.frames,
            recent_memories=settings.recent_memories,
            memory_policy=settings.memory_policy,
            logits="masks" in settings.outputs,
        )
        sinks = _sinks(folder, source, settings)
        frames, objects = 0, set[int]()
        with closing(track_source(source, tracker, prompts, sinks)) as results:
            for _, result in results:
                if self.stopped():
                    raise StoppedError
                frames += 1
                objects.update(entry.object_id for entry in result.objects)
                self.advance()
        return VideoRecord(
            name=task.name,
            source=task.source,
            status="done",
            frames=frames,
            objects=len(objects),
            milliseconds=round(1000 * (time.perf_counter() - started), 3),
        )


def _failed(task: VideoTask, error: str) -> VideoRecord:
    return VideoRecord(name=task.name, source=task.source, status="failed", error=error)


def _sinks(folder: Path, source: Source, settings: BatchSettings) -> list[Sink]:
    made: dict[str, Callable[[], Sink]] = {
        "masks": lambda: MaskFolder(folder / "masks"),
        "jsonl": lambda: JsonLines(folder / "objects.jsonl"),
        "coco": lambda: CocoFile(folder / "coco.json"),
        "video": lambda: OverlayVideo(folder / "overlay.mp4", fps=source.fps),
    }
    return [made[kind]() for kind in settings.outputs]


def _prompts_of(task: VideoTask, start: int, scratch: Path) -> PromptsByFrame:
    """The prompts of a task whose first frame has the number `start`."""
    if task.mask is not None:
        return {start: _mask_prompts(fetched(task.mask, scratch, PromptError))}
    if task.prompts is None:
        raise PromptError(
            f"{task.source} has no prompts; put them beside it in a prompt file {task.name}.json, "
            f"or the mask of its first frame in {task.name}.png"
        )
    if isinstance(task.prompts, str):
        return load_prompts(fetched(task.prompts, scratch, PromptError))
    return read_prompts(list(task.prompts), task.name, Path())


def _mask_prompts(path: Path) -> list[Prompt]:
    """A prompt per object of an indexed mask, or the one object of a black-and-white mask."""
    found = [int(each) for each in np.unique(read_id_mask(path)) if each]
    ids = [each for each in found if each != VOID] or [1] * bool(found)
    if not ids:
        raise PromptError(f"{path} shows no object: every pixel is 0; give another mask")
    return [Prompt(each, mask=MaskFile(path, each)) for each in ids]
