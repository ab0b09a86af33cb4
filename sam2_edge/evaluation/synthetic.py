"""Tracking accuracy on held-out synthetic clips, from one prompt per object.

The bundled model was not trained on the seeds, textures and photographs of these clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sam2_edge.evaluation.metrics import Accuracy, mean_accuracy, object_accuracy
from sam2_edge.evaluation.prompting import PromptKind, prompt_from_mask
from sam2_edge.evaluation.tracker import Tracker
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult
from sam2_edge.synthetic import SyntheticClip, clip

CLIPS, FRAMES, SIZE, OBJECTS = 100, 32, 256, 2
"""The benchmark: number of clips, and each clip's frames, size in pixels and objects."""

OCCLUDED_SHARE = 0.5
"""An object counts as occluded in a clip if more than this share of it is hidden in any frame, or
if it is out of sight in any frame."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Score of one object in one clip.

    Attributes:
        seed: Seed of the clip.
        object_id: Id of the object.
        accuracy: J and F.
        presence: Share of frames after the first on which presence was predicted correctly.
        occluded: Whether the object counts as occluded (`OCCLUDED_SHARE`).
    """

    seed: int
    object_id: int
    accuracy: Accuracy
    presence: float
    occluded: bool


def heldout_clips(count: int = CLIPS) -> Iterator[SyntheticClip]:
    """Generate the first `count` held-out clips."""
    for seed in range(count):
        yield clip(seed, frames=FRAMES, size=SIZE, objects=OBJECTS, split="heldout")


def first_prompts(drawn: SyntheticClip, kind: PromptKind) -> list[Prompt]:
    """Return a prompt per object for the first frame, made from its true mask."""
    ids = range(1, drawn.present.shape[1] + 1)
    return [prompt_from_mask(object_id, drawn.mask(0, object_id), kind) for object_id in ids]


def track_clip(tracker: Tracker, drawn: SyntheticClip, kind: PromptKind) -> list[FrameResult]:
    """Track all objects of a clip from prompts on its first frame, after resetting the tracker."""
    tracker.reset()
    prompts = first_prompts(drawn, kind)
    return [tracker.track(frame, () if i else prompts) for i, frame in enumerate(drawn.frames)]


def scores(
    clips: Iterable[SyntheticClip], kind: PromptKind, tracker: Tracker
) -> Iterator[ObjectScore]:
    """Track and score every object of the clips, one clip at a time."""
    for drawn in clips:
        frames = track_clip(tracker, drawn, kind)
        for object_id in range(1, drawn.present.shape[1] + 1):
            yield score_object(drawn, object_id, frames)


def score_object(
    drawn: SyntheticClip, object_id: int, frames: Sequence[FrameResult]
) -> ObjectScore:
    """Score one object of a clip, given the results of all its frames."""
    index = object_id - 1
    results = [frame[object_id] for frame in frames]
    truth = [drawn.mask(t, object_id) for t in range(len(frames))]
    present = drawn.present[:, index]
    predicted = np.array([result.present for result in results])
    return ObjectScore(
        seed=drawn.seed,
        object_id=object_id,
        accuracy=object_accuracy([result.mask for result in results], truth),
        presence=float((predicted == present)[1:].mean()),
        occluded=bool((drawn.occluded[:, index] > OCCLUDED_SHARE).any() or not present.all()),
    )


def summary(results: Sequence[ObjectScore]) -> dict[str, float]:
    """Average scores: "j_and_f", "j", "f", "presence", and "occluded_j_and_f" if any is occluded.

    "objects" and "occluded_objects" are the numbers of objects.
    """
    overall = mean_accuracy([score.accuracy for score in results])
    figures = {
        "objects": float(len(results)),
        "j_and_f": overall.j_and_f,
        "j": overall.j,
        "f": overall.f,
        "presence": float(np.mean([score.presence for score in results])),
    }
    occluded = [score.accuracy for score in results if score.occluded]
    if occluded:
        figures["occluded_objects"] = float(len(occluded))
        figures["occluded_j_and_f"] = mean_accuracy(occluded).j_and_f
    return figures
