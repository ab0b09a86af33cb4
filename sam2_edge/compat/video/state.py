"""What is known of a video while it is worked on: its frames, objects, prompts and results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sam2_edge.compat.video.frames import FrameStore, ModelImage
from sam2_edge.compat.video.spool import FrameOutput, Spool
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import Features
from sam2_edge.runtime.prompts import ModelPrompt

FEATURES_KEPT = 4
"""Frames whose features are kept, those used last (20 MB each at 1024 pixels)."""


@dataclass(slots=True)
class Outputs:
    """Results of one object by frame: those that condition others, and the rest."""

    cond: dict[int, FrameOutput] = field(default_factory=dict)
    non_cond: dict[int, FrameOutput] = field(default_factory=dict)

    def of_kind(self, *, cond: bool) -> dict[int, FrameOutput]:
        """One of the two."""
        return self.cond if cond else self.non_cond

    def find(self, frame: int) -> FrameOutput | None:
        """The result on a frame, of whichever kind."""
        return self.cond.get(frame) or self.non_cond.get(frame)


@dataclass(slots=True)
class Track:
    """One object.

    points: prompts that hold, by frame. masks: frames that have a mask prompt. settled: results
    that later frames may see. pending: results of prompts since the last propagation. tracked:
    frames that propagation has come to, and whether it went in reverse there.
    """

    points: dict[int, ModelPrompt] = field(default_factory=dict)
    masks: set[int] = field(default_factory=set)
    settled: Outputs = field(default_factory=Outputs)
    pending: Outputs = field(default_factory=Outputs)
    tracked: dict[int, bool] = field(default_factory=dict)

    def clear_prompts(self, frame: int) -> None:
        """Forget the prompts on a frame; what was settled there stays, as on an ordinary frame."""
        self.points.pop(frame, None)
        self.masks.discard(frame)
        self.pending.cond.pop(frame, None)
        self.pending.non_cond.pop(frame, None)
        output = self.settled.cond.pop(frame, None)
        if output is not None:
            self.settled.non_cond[frame] = output
            self.tracked.pop(frame, None)


class InferenceState:
    """A video and everything that is known of its objects; made by `init_state`.

    Results lie in a file (`spool`), which `close`, the end of a `with` block or of the object
    deletes. `state["num_frames"]`, `["video_height"]`, `["video_width"]`, `["obj_ids"]`,
    `["obj_id_to_idx"]` and `["obj_idx_to_id"]` give what they give in the original.
    """

    def __init__(self, frames: FrameStore, spool: Spool) -> None:
        self.frames = frames
        self.spool = spool
        self.tracks: dict[Hashable, Track] = {}
        self._features: OrderedDict[int, Features] = OrderedDict()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __getitem__(self, key: str) -> Any:
        ids = list(self.tracks)
        known: dict[str, Any] = {
            "num_frames": len(self.frames),
            "video_height": self.frames.size[0],
            "video_width": self.frames.size[1],
            "obj_ids": ids,
            "obj_id_to_idx": {object_id: index for index, object_id in enumerate(ids)},
            "obj_idx_to_id": dict(enumerate(ids)),
        }
        if key not in known:
            raise Sam2EdgeError(f"the state has no {key!r}; it has {', '.join(known)}")
        return known[key]

    @property
    def size(self) -> tuple[int, int]:
        """Height, width of the video in pixels."""
        return self.frames.size

    @property
    def features_kept(self) -> int:
        """Frames whose features are kept now."""
        return len(self._features)

    def close(self) -> None:
        """Forget everything and delete the stored results."""
        self.tracks.clear()
        self._features.clear()
        self.spool.close()

    def track(self, object_id: Hashable) -> Track:
        """A known object.

        Raises PromptError for an unknown one.
        """
        try:
            return self.tracks[object_id]
        except (KeyError, TypeError) as error:
            known = ", ".join(map(str, self.tracks)) or "none"
            raise PromptError(f"object {object_id!r} is not known; known are: {known}") from error

    def known_or_new(self, object_id: Hashable) -> Track:
        """A known object, or a new one that the state does not hold yet.

        Raises PromptError for an id that cannot be one.
        """
        try:
            return self.tracks.get(object_id) or Track()
        except TypeError as error:
            raise PromptError(f"object id {object_id!r}; give an integer") from error

    def pending_cond(self, frame: int) -> bool:
        """Whether a prompt on this frame, not yet propagated, conditions other frames."""
        return any(frame in track.pending.cond for track in self.tracks.values())

    def check_frame(self, frame: int) -> None:
        """Raise PromptError for a frame that the video does not have."""
        if not 0 <= frame < len(self.frames):
            raise PromptError(
                f"there is no frame {frame}; the video has frames 0 to {len(self.frames) - 1}"
            )

    def order(self, start: int, most: int | None, *, reverse: bool) -> Sequence[int]:
        """Frames to propagate to, in order; none in reverse from frame 0, and none past the end.

        most: frames after the first; None for all.

        Raises PromptError for a start before the video, or in reverse after it.
        """
        count = len(self.frames)
        if start < 0 or (reverse and start >= count):
            self.check_frame(start)
        most = count if most is None else most
        if reverse:
            return range(start, max(start - most, 0) - 1, -1) if start > 0 else ()
        return range(start, min(start + most, count - 1) + 1)

    def features(self, frame: int, encode: Callable[[ModelImage], Features]) -> Features:
        """Features of a frame, from `encode` unless they are among the last ones used."""
        if frame not in self._features:
            self._features[frame] = encode(self.frames.image(frame))
            if len(self._features) > FEATURES_KEPT:
                self._features.popitem(last=False)
        self._features.move_to_end(frame)
        return self._features[frame]
