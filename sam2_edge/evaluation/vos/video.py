"""One video of a data set through a tracker: masks to PNG files, scores to a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import PromptError, SinkError, SourceError
from sam2_edge.evaluation.metrics import boundary_accuracy, region_similarity
from sam2_edge.evaluation.prompting import PromptKind, prompt_from_mask
from sam2_edge.evaluation.vos.datasets import LayoutName, Mask, Video
from sam2_edge.evaluation.vos.protocols import FrameScore, score
from sam2_edge.evaluation.vos.results import ObjectRecord, VideoRecord
from sam2_edge.runtime.prompts import Prompt, model_prompt
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.runtime.sources.images import read_image
from sam2_edge.runtime.tracker import VideoTracker


class StoppedError(Exception):
    """The evaluation was told to stop in the middle of a video."""


@dataclass(slots=True)
class _Object:
    """What is known of one object so far; prompted: the place of its prompt's frame."""

    rows: list[FrameScore] = field(default_factory=list)
    prompted: int | None = None
    kind: PromptKind | None = None


def evaluate_video(
    video: Video,
    layout: LayoutName,
    tracker: VideoTracker,
    *,
    kind: PromptKind,
    image_size: int,
    folder: Path,
    stopped: Callable[[], bool] = lambda: False,
) -> VideoRecord:
    """Track a video's objects from their first masks, write masks into `folder` and score them.

    tracker: without objects, made for the clip's number of frames. image_size: side of the model's
    input in pixels; a mask that vanishes there is replaced by a click. folder: gets NAME.png for
    every frame, indexed, or for SA-V OBJECT/NAME.png. Frames are read one by one.

    Raises SourceError for what cannot be read or does not fit, SinkError where masks cannot be
    written, and StoppedError once `stopped()` is true.
    """
    run = _Run(video, layout, kind, image_size)
    run.make_folders(folder)
    for place, path in enumerate(video.frames):
        if stopped():
            raise StoppedError
        picture = read_image(path)
        truth = video.read_masks(place)
        for object_id, mask in truth.items():
            if mask.shape != picture.shape[:2]:
                raise SourceError(
                    f"{path} is {_size(picture)} pixels, the mask of object "
                    f"{video.object_name(object_id)} is {_size(mask)}; give masks of the frame's "
                    "size"
                )
        prompts = run.prompts(place, truth)
        predicted = _Predicted(video, tracker.track(picture, prompts))
        predicted.write(folder, path.stem)
        run.score(place, truth, predicted)
    return run.record()


class _Run:
    """Objects and scores of a video as its frames go by."""

    def __init__(self, video: Video, layout: LayoutName, kind: PromptKind, image_size: int) -> None:
        self._video = video
        self._layout = layout
        self._kind: PromptKind = kind
        self._image_size = image_size
        self._objects: dict[int, _Object] = {}
        if video.per_object:
            self._objects = {i: _Object() for i, _ in enumerate(video.masks, 1)}
        self._before: list[FrameScore] = []  # annotated frames so far, as absent objects have them
        self._has_truth = video.per_object

    def make_folders(self, folder: Path) -> None:
        """Make the folders of the objects of SA-V."""
        try:
            for name in self._video.masks:
                (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(f"{folder} cannot be filled: {error.strerror}") from error

    def prompts(self, place: int, truth: Mapping[int, Mask]) -> list[Prompt]:
        """Prompts of the objects that a frame shows for the first time."""
        annotated = self._video.annotated(place)
        # DAVIS scores the objects of the first mask alone, and refuses others.
        may_begin = self._layout != "davis" or not self._before
        found = []
        for object_id, mask in truth.items():
            known = self._objects.get(object_id)
            if not mask.any() or not may_begin or (known and known.prompted is not None):
                continue
            prompt, kind = self._fitting(object_id, mask)
            found.append(prompt)
            begun = known or _Object(list(self._before))
            begun.prompted, begun.kind = place, kind
            self._objects[object_id] = begun
        # An annotation that brings no new object is there to compare with. Valid sets of
        # YouTube-VOS show in each file only the objects that begin there.
        self._has_truth |= annotated and not found and bool(self._objects)
        return found

    def _fitting(self, object_id: int, mask: Mask) -> tuple[Prompt, PromptKind]:
        """A prompt of the kind asked for, or a click where a mask is too small for the model."""
        prompt = prompt_from_mask(object_id, mask, self._kind)
        try:
            model_prompt(prompt, (mask.shape[0], mask.shape[1]), self._image_size)
        except PromptError:
            return prompt_from_mask(object_id, mask, "click"), "click"
        return prompt, self._kind

    def score(self, place: int, truth: Mapping[int, Mask], predicted: _Predicted) -> None:
        """Note J and F of the objects that are annotated on a frame."""
        if not self._video.annotated(place):
            return
        number = _number(self._video.frames[place], place)
        self._before.append(FrameScore(number, 1.0, 1.0, shown=False, truth=False))
        scored = truth if self._video.per_object else self._objects
        for object_id in scored:
            known, ours = self._objects[object_id], predicted.mask(object_id)
            theirs = truth.get(object_id)
            theirs = np.zeros_like(ours) if theirs is None else theirs
            known.rows.append(
                FrameScore(
                    number,
                    region_similarity(ours, theirs),
                    boundary_accuracy(ours, theirs),
                    shown=bool(ours.any() or theirs.any()),
                    truth=bool(theirs.any()),
                    prompted=known.prompted == place,
                )
            )

    def record(self) -> VideoRecord:
        """The record of the whole video.

        Raises SourceError if no mask showed an object.
        """
        video = self._video
        if not any(known.kind for known in self._objects.values()):
            raise SourceError(f"the masks of video {video.name} show no object; copy it again")
        objects = []
        for object_id, known in sorted(self._objects.items()):
            scored_range = video.ranges.get(object_id)
            objects.append(
                ObjectRecord(
                    object=video.object_name(object_id),
                    prompt=known.kind,
                    prompt_frame=(
                        None if known.prompted is None else video.frames[known.prompted].stem
                    ),
                    score=score(known.rows, self._layout, scored_range)
                    if self._has_truth
                    else None,
                )
            )
        return VideoRecord(video=video.name, frames=len(video.frames), objects=tuple(objects))


class _Predicted:
    """Masks of a frame as they are written: exclusive in an indexed file, free in files of one
    object.
    """

    def __init__(self, video: Video, result: FrameResult) -> None:
        self._video = video
        self._empty = np.zeros(result.frame_size, np.bool_)
        self._indexed = None if video.per_object else result.index_mask()
        self._masks = {found.object_id: found.mask for found in result.objects if video.per_object}

    def mask(self, object_id: int) -> Mask:
        """[H,W] bool; empty before the object is prompted."""
        if self._indexed is not None:
            return self._indexed == object_id
        return self._masks.get(object_id, self._empty)

    def write(self, folder: Path, name: str) -> None:
        """Write the frame's file, or one of 0 and 1 per object."""
        if self._indexed is not None:
            write_indexed_png(folder / f"{name}.png", self._indexed)
            return
        for object_id, subfolder in enumerate(self._video.masks, 1):
            mask = self.mask(object_id).astype(np.uint8)
            write_indexed_png(folder / subfolder / f"{name}.png", mask)


def _number(path: Path, place: int) -> int:
    return int(path.stem) if path.stem.isdecimal() else place


def _size(picture: NDArray[np.generic]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
