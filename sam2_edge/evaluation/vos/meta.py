"""The JSON file beside a data set that lists its videos and objects: LVOS and YouTube-VOS have one.

YouTube-VOS: meta.json, {"videos": {NAME: {"objects": {ID: {"frames": [...]}}}}}. LVOS:
val_meta.json and the like, with "frame_range": {"start", "end", "frame_nums"} in place of "frames"
(LingyiHongfd/LVOS, README.md).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sam2_edge.errors import SourceError

PATTERN = "*meta*.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FrameRange(_Entry):
    """Numbers of the first and the last frame of an object."""

    start: int
    end: int


class MetaObject(_Entry):
    """One object; frame_range: only in LVOS."""

    frame_range: FrameRange | None = None


class MetaVideo(_Entry):
    """Objects of a video by id."""

    objects: dict[int, MetaObject] = {}


class Meta(_Entry):
    """What the file says that is used here."""

    videos: dict[str, MetaVideo]

    @property
    def has_ranges(self) -> bool:
        """Whether this is the file of LVOS."""
        return any(
            found.frame_range is not None
            for video in self.videos.values()
            for found in video.objects.values()
        )


def read_meta(root: Path) -> Meta | None:
    """The meta file in a folder, the one of the shortest name if there are several; None if none.

    Raises SourceError for one that is damaged.
    """
    paths = sorted(root.glob(PATTERN), key=lambda p: (len(p.name), p.name))
    if not paths:
        return None
    try:
        return Meta.model_validate_json(paths[0].read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SourceError(
            f"{paths[0]} is not a list of videos as LVOS and YouTube-VOS have it ({reason}); copy "
            "it again, or name another layout with --layout"
        ) from error
