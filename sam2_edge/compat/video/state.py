"""The state of a video in progress: its frames, objects, prompts and outputs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator, KeysView, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sam2_edge.compat.video.frames import FrameStore, ModelImage
from sam2_edge.compat.video.spool import Spool, StoredOutput
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import Features, NotCopyable
from sam2_edge.runtime.prompts import ModelPrompt

FEATURES_CACHED = 4
"""Most recently used frames whose features are kept (20 MB each at 1024 pixels)."""


@dataclass(slots=True)
class FrameOutputs:
    """Outputs of one object by frame: on conditioning frames and on others."""

    cond: dict[int, StoredOutput] = field(default_factory=dict)
    non_cond: dict[int, StoredOutput] = field(default_factory=dict)

    def group(self, *, cond: bool) -> dict[int, StoredOutput]:
        """Return one of the two."""
        return self.cond if cond else self.non_cond

    def find(self, frame: int) -> StoredOutput | None:
        """Return the output on a frame of either kind."""
        return self.cond.get(frame) or self.non_cond.get(frame)


@dataclass(slots=True)
class Track:
    """One object.

    Attributes:
        points: Current point prompts by frame.
        masks: Frames with a mask prompt.
        outputs: Outputs that other frames may see.
        pending: Outputs of prompts since the last propagation.
        tracked: Frames that propagation has reached, and whether in reverse.
    """

    points: dict[int, ModelPrompt] = field(default_factory=dict)
    masks: set[int] = field(default_factory=set)
    outputs: FrameOutputs = field(default_factory=FrameOutputs)
    pending: FrameOutputs = field(default_factory=FrameOutputs)
    tracked: dict[int, bool] = field(default_factory=dict)

    def is_prompted(self, frame: int) -> bool:
        """Whether there are points or a mask on a frame."""
        return frame in self.points or frame in self.masks

    def clear_prompts(self, frame: int) -> None:
        """Drop the prompts on a frame; its output stays, as on a frame without prompts."""
        self.points.pop(frame, None)
        self.masks.discard(frame)
        self.pending.cond.pop(frame, None)
        self.pending.non_cond.pop(frame, None)
        output = self.outputs.cond.pop(frame, None)
        if output is not None:
            self.outputs.non_cond[frame] = output
            self.tracked.pop(frame, None)


class InferenceState(NotCopyable):
    """A video with everything that is known of its objects; made by `init_state`.

    Outputs are in a file, which is deleted by `close`, at the end of a `with` block, and with the
    object. `state["num_frames"]`, `["video_height"]`, `["video_width"]`, `["obj_ids"]`,
    `["obj_id_to_idx"]` and `["obj_idx_to_id"]` are those of the original, and
    `["tracking_has_started"]` that of EdgeTAM's package.

    Attributes:
        frames: The video.
        spool: Stored outputs.
        tracks: Objects by id.
        features: Returns the encoded features of a frame.
    """

    def __init__(
        self, frames: FrameStore, spool: Spool, encode: Callable[[ModelImage], Features]
    ) -> None:
        self.frames = frames
        self.spool = spool
        self.tracks: dict[Hashable, Track] = {}
        self.features = lru_cache(FEATURES_CACHED)(lambda frame: encode(frames.image(frame)))

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __getitem__(self, key: str) -> Any:
        values = self._values()
        if key not in values:
            raise Sam2EdgeError(f"the state has no {key!r}; it has {', '.join(values)}")
        return values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def keys(self) -> KeysView[str]:
        """Return the names of the values that it has."""
        return self._values().keys()

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or `default` if there is none of that name."""
        return self._values().get(key, default)

    def _values(self) -> dict[str, Any]:
        ids = list(self.tracks)
        return {
            "num_frames": len(self.frames),
            "video_height": self.frames.size[0],
            "video_width": self.frames.size[1],
            "obj_ids": ids,
            "obj_id_to_idx": {object_id: index for index, object_id in enumerate(ids)},
            "obj_idx_to_id": dict(enumerate(ids)),
            "tracking_has_started": any(track.outputs.cond for track in self.tracks.values()),
        }

    def close(self) -> None:
        """Drop everything and delete the stored outputs."""
        self.tracks.clear()
        self.features.cache_clear()
        self.spool.close()

    def track(self, object_id: Hashable) -> Track:
        """Return a known object; raise PromptError for an unknown one."""
        try:
            return self.tracks[object_id]
        except (KeyError, TypeError) as error:
            known = ", ".join(map(str, self.tracks)) or "none"
            raise PromptError(f"object {object_id!r} is not known; known are: {known}") from error

    def track_or_new(self, object_id: Hashable) -> Track:
        """Return a known object, or a new one that is not yet in `tracks`.

        Raises:
            PromptError: If the id is not hashable.
        """
        try:
            return self.tracks.get(object_id) or Track()
        except TypeError as error:
            raise PromptError(f"object id {object_id!r}; give an integer") from error

    def frame_number(self, frame: Any) -> int:
        """Return the number of a frame, of any integer type.

        Raises:
            PromptError: If it is no integer, or the video has no such frame.
        """
        number = whole_number(frame, "frame")
        if not 0 <= number < len(self.frames):
            raise PromptError(
                f"there is no frame {number}; the video has frames 0 to {len(self.frames) - 1}"
            )
        return number

    def frame_order(self, start: int, max_frames: int | None, *, reverse: bool) -> Sequence[int]:
        """Return the frames to propagate to.

        As in the original there are none in reverse from frame 0, and none past the end.

        Args:
            start: The first frame.
            max_frames: Number of frames after the first; None for all.
            reverse: Whether to go back.

        Raises:
            PromptError: For a start before the video, or in reverse after it.
        """
        count = len(self.frames)
        if start < 0 or (reverse and start >= count):
            self.frame_number(start)
        distance = count if max_frames is None else max_frames
        if reverse:
            return range(start, max(start - distance, 0) - 1, -1) if start > 0 else ()
        return range(start, min(start + distance, count - 1) + 1)


def whole_number(value: Any, name: str) -> int:
    """Return an integer of any type, such as NumPy's; raise PromptError for anything else."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise PromptError(f"{name} is {value!r}; give an integer, such as 0") from error
