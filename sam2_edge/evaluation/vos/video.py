"""Evaluates one video of a data set: writes its masks and returns its scores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sam2_edge.errors import PromptError, SourceError, printable
from sam2_edge.evaluation.metrics import Mask, boundary_accuracy, region_similarity
from sam2_edge.evaluation.prompting import PromptKind, prompt_from_mask
from sam2_edge.evaluation.vos.datasets import LayoutName, Video
from sam2_edge.evaluation.vos.protocols import FrameScore, score
from sam2_edge.evaluation.vos.results import ObjectRecord, VideoRecord
from sam2_edge.runtime.preprocess import PreparedFrame
from sam2_edge.runtime.prompts import Prompt, model_prompt
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.files import make_folder
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.runtime.sources.image_file import read_image
from sam2_edge.runtime.sources.read_ahead import read_ahead
from sam2_edge.runtime.tracker import VideoTracker


class StoppedError(Exception):
    """The evaluation was stopped in the middle of a video."""


def evaluate_video(
    video: Video,
    layout: LayoutName,
    tracker: VideoTracker,
    *,
    kind: PromptKind,
    image_size: int,
    folder: Path,
    stopped: Callable[[], bool],
) -> VideoRecord:
    """Track a video's objects from their first masks, write the masks and score them.

    Args:
        video: The video; its frames are read one by one.
        layout: Layout of its data set.
        tracker: Tracker without objects, opened for the video's number of frames.
        kind: Kind of the prompts. A mask too small for the model is replaced by a click.
        image_size: Side of the model's input in pixels.
        folder: Folder for an indexed NAME.png per frame, or OBJECT/NAME.png for SA-V.
        stopped: Checked before every frame.

    Raises:
        SourceError: If a frame or mask cannot be read, their sizes differ, or no mask shows an
            object.
        SinkError: If the masks cannot be written.
        StoppedError: If `stopped` returns true.
    """
    evaluation = _Evaluation(video, layout, kind, image_size)
    for name in video.masks:
        make_folder(folder / name)
    with closing(_read_frames(video, tracker)) as frames:
        for index, (prepared, truth) in enumerate(frames):
            if stopped():
                raise StoppedError
            result = tracker.track(prepared, evaluation.prompts(index, truth))
            predicted = _write_masks(folder, video.frames[index].stem, video, result)
            evaluation.score(index, truth, predicted)
    return evaluation.record()


def _read_frames(
    video: Video, tracker: VideoTracker
) -> Generator[tuple[PreparedFrame, dict[int, Mask]], None, None]:
    """Read frames, prepared for the tracker, and their masks while earlier ones are tracked."""

    def read(index: int) -> tuple[PreparedFrame, dict[int, Mask]]:
        prepared = tracker.prepare(read_image(video.frames[index]))
        return prepared, video.read_masks(index, prepared.size)

    return read_ahead((index for index in range(len(video.frames))), read)


def _write_masks(folder: Path, name: str, video: Video, result: FrameResult) -> dict[int, Mask]:
    """Write the masks of a frame and return them by object id.

    Masks in an indexed file are exclusive; with a file per object they may overlap.
    """
    if not video.per_object:
        indexed = result.index_mask()
        write_indexed_png(folder / f"{name}.png", indexed)
        return {entry.object_id: indexed == entry.object_id for entry in result.objects}
    masks = {entry.object_id: entry.mask for entry in result.objects}
    for object_id, subfolder in enumerate(video.masks, 1):
        mask = masks.setdefault(object_id, np.zeros(result.frame_size, np.bool_))
        write_indexed_png(folder / subfolder / f"{name}.png", mask.astype(np.uint8))
    return masks


@dataclass(slots=True)
class _Object:
    """An object's scores so far, and the frame index and kind of its prompt."""

    rows: list[FrameScore] = field(default_factory=list)
    prompted: int | None = None
    kind: PromptKind | None = None


class _Evaluation:
    """Objects and scores of a video, collected frame by frame."""

    def __init__(self, video: Video, layout: LayoutName, kind: PromptKind, image_size: int) -> None:
        self._video = video
        self._layout = layout
        self._kind: PromptKind = kind
        self._image_size = image_size
        self._objects: dict[int, _Object] = {}
        if video.per_object:
            self._objects = {i: _Object() for i, _ in enumerate(video.masks, 1)}
        self._absent: list[FrameScore] = []  # annotated frames so far, for objects not seen yet
        self._has_truth = video.per_object

    def prompts(self, index: int, truth: Mapping[int, Mask]) -> list[Prompt]:
        """Return prompts for the objects that appear for the first time."""
        # DAVIS only scores the objects of the first mask, and rejects others.
        may_start = self._layout != "davis" or not self._absent
        prompts = []
        for object_id, mask in truth.items():
            known = self._objects.get(object_id)
            if not mask.any() or not may_start or (known and known.prompted is not None):
                continue
            prompt, kind = self._prompt(object_id, mask)
            prompts.append(prompt)
            entry = self._objects.setdefault(object_id, _Object(list(self._absent)))
            entry.prompted, entry.kind = index, kind
        # An annotation without new objects is ground truth. In the valid sets of YouTube-VOS, each
        # file shows only the objects that start there.
        annotated = self._video.annotated(index)
        self._has_truth |= annotated and not prompts and bool(self._objects)
        return prompts

    def score(self, index: int, truth: Mapping[int, Mask], predicted: Mapping[int, Mask]) -> None:
        """Add J and F of every object, if the frame is annotated."""
        if not self._video.annotated(index):
            return
        stem = self._video.frames[index].stem
        number = int(stem) if stem.isdecimal() else index
        self._absent.append(FrameScore(number, 1.0, 1.0, shown=False, truth=False))
        for object_id in truth if self._video.per_object else self._objects:
            known, ours = self._objects[object_id], predicted[object_id]
            theirs = truth.get(object_id, np.zeros_like(ours))
            known.rows.append(
                FrameScore(
                    number,
                    region_similarity(ours, theirs),
                    boundary_accuracy(ours, theirs),
                    shown=bool(ours.any() or theirs.any()),
                    truth=bool(theirs.any()),
                    prompted=known.prompted == index,
                )
            )

    def record(self) -> VideoRecord:
        """Return the record of the whole video.

        Raises:
            SourceError: If no mask shows an object.
        """
        video = self._video
        if not any(known.kind for known in self._objects.values()):
            raise SourceError(f"the masks of video {video.name} show no object; copy it again")
        objects = tuple(
            ObjectRecord(
                object=video.object_name(object_id),
                prompt=known.kind,
                prompt_frame=None
                if known.prompted is None
                else printable(video.frames[known.prompted].stem),
                score=score(known.rows, self._layout, video.ranges.get(object_id))
                if self._has_truth
                else None,
            )
            for object_id, known in sorted(self._objects.items())
        )
        return VideoRecord(video=video.name, frames=len(video.frames), objects=objects)

    def _prompt(self, object_id: int, mask: Mask) -> tuple[Prompt, PromptKind]:
        """Return a prompt of the requested kind, or a click if the mask vanishes when resized."""
        prompt = prompt_from_mask(object_id, mask, self._kind)
        try:
            model_prompt(prompt, (mask.shape[0], mask.shape[1]), self._image_size)
        except PromptError:
            return prompt_from_mask(object_id, mask, "click"), "click"
        return prompt, self._kind
