"""How well a tracker follows objects of held-out synthetic clips from one prompt each.

The clips have seeds, textures and photographs that the bundled model was never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.evaluation.metrics import Accuracy, mean_accuracy, object_accuracy
from sam2_edge.evaluation.prompting import PromptKind, prompt_from_mask
from sam2_edge.evaluation.tracker_adapter import TrackerAdapter
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import mask_of
from sam2_edge.runtime.tracker import VideoTracker
from sam2_edge.synthetic import SyntheticClip, clip

CLIPS, FRAMES, SIZE, OBJECTS = 100, 32, 256, 2
"""The held-out measure: so many clips of so many frames and pixels, with so many objects each."""

OCCLUDED_SHARE = 0.5
"""An object counts as occluded in a clip where more than this share of it is hidden at once, or
where it is out of sight in some frame."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tracker says of one object on one frame: mask [S,S] bool, and whether it is there."""

    mask: NDArray[np.bool_]
    present: bool


Track = Callable[[SyntheticClip, Sequence[Prompt]], Iterator[Mapping[int, Seen]]]
"""Follows the objects of prompts on a clip's first frame: what it says of each, frame by frame."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """One object of one clip.

    presence: share of frames, but for the first, where presence was judged rightly. occluded: see
    `OCCLUDED_SHARE`.
    """

    seed: int
    object_id: int
    accuracy: Accuracy
    presence: float
    occluded: bool


def heldout_clips(count: int = CLIPS, *, frames: int = FRAMES) -> Iterator[SyntheticClip]:
    """The first `count` held-out clips."""
    for seed in range(count):
        yield clip(seed, frames=frames, size=SIZE, objects=OBJECTS, split="heldout")


def first_prompts(drawn: SyntheticClip, kind: PromptKind) -> list[Prompt]:
    """A prompt of a kind for each object on the first frame, made from its true mask."""
    ids = range(1, drawn.present.shape[1] + 1)
    return [prompt_from_mask(object_id, drawn.mask(0, object_id), kind) for object_id in ids]


def scores(clips: Iterator[SyntheticClip], kind: PromptKind, track: Track) -> Iterator[ObjectScore]:
    """Track every object of the clips and score it, as the clips go by."""
    for drawn in clips:
        frames = list(track(drawn, first_prompts(drawn, kind)))
        for index in range(drawn.present.shape[1]):
            yield _score(drawn, index, [frame[index + 1] for frame in frames])


def track_with(tracker: VideoTracker) -> Track:
    """Tracking through the runtime."""

    def track(drawn: SyntheticClip, prompts: Sequence[Prompt]) -> Iterator[Mapping[int, Seen]]:
        tracker.reset()
        for index, frame in enumerate(drawn.frames):
            result = tracker.track(frame, prompts if index == 0 else ())
            yield {found.object_id: Seen(found.mask, found.present) for found in result.objects}

    return track


def follow_with(make: Callable[[], TrackerAdapter]) -> Track:
    """Tracking through followers, a new one for each clip."""

    def track(drawn: SyntheticClip, prompts: Sequence[Prompt]) -> Iterator[Mapping[int, Seen]]:
        follower = make()
        for index, frame in enumerate(drawn.frames):
            size = (frame.shape[0], frame.shape[1])
            states = follower.follow(frame, prompts if index == 0 else ())
            yield {i: Seen(mask_of(s.logits, size), s.present) for i, s in states.items()}

    return track


def summary(found: Sequence[ObjectScore]) -> dict[str, float]:
    """Means over objects: "j_and_f", "j", "f", the first also of "occluded" ones; "presence"."""
    whole = mean_accuracy([score.accuracy for score in found])
    figures = {
        "objects": float(len(found)),
        "j_and_f": whole.j_and_f,
        "j": whole.j,
        "f": whole.f,
        "presence": float(np.mean([score.presence for score in found])),
    }
    hidden = [score.accuracy for score in found if score.occluded]
    if hidden:
        figures["occluded_objects"] = float(len(hidden))
        figures["occluded_j_and_f"] = mean_accuracy(hidden).j_and_f
    return figures


def _score(drawn: SyntheticClip, index: int, seen: Sequence[Seen]) -> ObjectScore:
    truth = [drawn.mask(t, index + 1) for t in range(len(drawn.frames))]
    present = drawn.present[:, index]
    judged = np.array([frame.present for frame in seen])
    hidden = bool((drawn.occluded[:, index] > OCCLUDED_SHARE).any() or not present.all())
    return ObjectScore(
        seed=drawn.seed,
        object_id=index + 1,
        accuracy=object_accuracy([frame.mask for frame in seen], truth),
        presence=float((judged == present)[1:].mean()),
        occluded=hidden,
    )
