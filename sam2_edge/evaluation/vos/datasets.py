"""Data sets for video object segmentation, in their published layouts.

docs/guides/eval.md describes the layouts and their sources; `protocols` selects the scored frames.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from sam2_edge.errors import SourceError, printable
from sam2_edge.evaluation.mask_folders import MASK_SUFFIXES, is_binary, object_ids
from sam2_edge.evaluation.metrics import Mask
from sam2_edge.runtime.sources.images import image_files, list_images
from sam2_edge.runtime.sources.mask_file import read_id_mask

LayoutName = Literal["davis", "sa-v", "mose", "lvos", "youtube-vos"]

SPLITS = ("valid", "val")
"""Subfolders to search if the given folder contains no frames."""

_DAVIS_RESOLUTIONS = ("480p", "Full-Resolution")
_LISTS: dict[LayoutName, tuple[str, ...]] = {
    "davis": tuple(
        f"ImageSets/2017/{name}.txt" for name in ("val", "test-dev", "test-challenge", "train")
    ),
    "sa-v": ("sav_val.txt", "sav_test.txt"),
}
_META_PATTERN = "*meta*.json"
_MAX_NAMES = 5
"""Number of video names listed in an error message."""


@dataclass(frozen=True)
class Video:
    """The frames and masks of one video.

    Attributes:
        name: Name of its folder.
        frames: Image files in order.
        masks: Mask files by object folder, then by index into `frames`. SA-V has a folder of binary
            masks per object; other layouts have indexed masks in a single folder, here "".
        ranges: First and last frame number between which LVOS scores an object, by object id.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[str, Mapping[int, Path]]
    ranges: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def per_object(self) -> bool:
        """Whether every object has a folder of its own, so that masks may overlap."""
        return "" not in self.masks

    def object_name(self, object_id: int) -> str:
        """Return an object's name in the data set; ids are pixel values, or count the folders."""
        return printable(list(self.masks)[object_id - 1]) if self.per_object else str(object_id)

    def annotated(self, frame: int) -> bool:
        """Return whether a frame, by its index into `frames`, has any mask file."""
        return any(frame in files for files in self.masks.values())

    def read_masks(self, frame: int, size: tuple[int, int]) -> dict[int, Mask]:
        """Read the true masks of a frame of (height, width) by object id; none without annotation.

        Indexed files yield only visible objects; with a file per object, masks may be empty.

        Raises:
            SourceError: If a file cannot be read or has another size.
        """
        if self.per_object:
            return {
                number: read_id_mask(files[frame], size) > 0
                for number, files in enumerate(self.masks.values(), 1)
                if frame in files
            }
        path = self.masks[""].get(frame)
        if path is None:
            return {}
        indexed = object_ids(read_id_mask(path, size), binary=self._binary)
        return {int(i): indexed == i for i in np.unique(indexed) if i}

    @cached_property
    def _binary(self) -> bool:
        """Whether the first mask that is not empty shows a single object by 255."""
        found = (is_binary(read_id_mask(path)) for path in self.masks[""].values())
        return next((binary for binary in found if binary is not None), False)


@dataclass(frozen=True, slots=True)
class DataSet:
    """The videos of a data set, in the order of its list."""

    root: Path
    layout: LayoutName
    videos: tuple[Video, ...]


class _FrameRange(BaseModel):
    start: int
    end: int


class _MetaObject(BaseModel):
    frame_range: _FrameRange | None = None  # only in LVOS


class _MetaVideo(BaseModel):
    objects: dict[int, _MetaObject] = {}

    @property
    def ranges(self) -> dict[int, tuple[int, int]]:
        """First and last frame number by object id."""
        ranges = {i: entry.frame_range for i, entry in self.objects.items()}
        return {i: (span.start, span.end) for i, span in ranges.items() if span is not None}


class _Meta(BaseModel):
    """A data set's JSON file that lists its videos and objects.

    YouTube-VOS: meta.json, {"videos": {NAME: {"objects": {ID: {"frames": [...]}}}}}. LVOS:
    val_meta.json and others, with "frame_range": {"start", "end", "frame_nums"} instead of "frames"
    (LingyiHongfd/LVOS, README.md).
    """

    videos: dict[str, _MetaVideo]


def _read_meta(root: Path) -> _Meta | None:
    """Read a folder's meta file, the one with the shortest name if there are several."""
    paths = sorted(root.glob(_META_PATTERN), key=lambda p: (len(p.name), p.name))
    if not paths:
        return None
    try:
        return _Meta.model_validate(json.loads(paths[0].read_bytes()))  # a byte-order mark is fine
    except (OSError, RecursionError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SourceError(
            f"{paths[0]} is not a list of videos as in LVOS and YouTube-VOS ({reason}); copy it "
            "again, or give another layout with --layout"
        ) from error


def open_dataset(
    folder: Path, *, layout: LayoutName | None = None, videos: Sequence[str] = ()
) -> DataSet:
    """List the videos, frames and masks of a data set, without reading any image.

    Args:
        folder: Folder of the data set, or the parent of its split (`SPLITS`).
        layout: Layout of the data set; None to detect it.
        videos: Names of videos, listed or not; by default all in the data set's list, or all
            folders if there is no list.

    Raises:
        SourceError: If the folder is not a data set, a video is missing or has no masks, or a mask
            has no frame.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give the folder of a data set")
    root = next((p for p in (folder, *(folder / s for s in SPLITS)) if _holds_frames(p)), None)
    if root is None:
        raise SourceError(
            f"{folder} contains neither JPEGImages nor JPEGImages_24fps; give the folder of a data "
            f"set in one of the layouts {', '.join(get_args(LayoutName))}"
        )
    meta = None
    if layout is None:
        layout, meta = _detect_layout(root)
    elif layout in ("lvos", "youtube-vos"):
        meta = _read_meta(root)
    frames, masks = _folders(root, layout)
    for path in (frames, masks):
        if not path.is_dir():
            raise SourceError(
                f"{path} does not exist, but the layout {layout} requires it; check the folder, or "
                "give its layout with --layout"
            )
    listed = _list_names(root, layout, frames, meta)
    if not listed:
        raise SourceError(f"{frames} contains no videos; give the folder of a data set")
    ranges = {n: v.ranges for n, v in meta.videos.items()} if layout == "lvos" and meta else {}
    chosen = tuple(
        _list_video(frames / name, masks / name, layout, ranges.get(name, {}))
        for name in _choose(frames, listed, videos)
    )
    return DataSet(root, layout, chosen)


def _holds_frames(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() or (folder / "JPEGImages_24fps").is_dir()


def _detect_layout(root: Path) -> tuple[LayoutName, _Meta | None]:
    if (root / "JPEGImages_24fps").is_dir():
        return "sa-v", None
    if any((root / "JPEGImages" / name).is_dir() for name in _DAVIS_RESOLUTIONS):
        return "davis", None
    meta = _read_meta(root)
    if meta is None:
        return "mose", None
    return ("lvos" if any(v.ranges for v in meta.videos.values()) else "youtube-vos"), meta


def _folders(root: Path, layout: LayoutName) -> tuple[Path, Path]:
    """Return the folders of frames and masks."""
    if layout == "sa-v":
        return root / "JPEGImages_24fps", root / "Annotations_6fps"
    if layout == "davis":
        candidates = [root / "JPEGImages" / name for name in _DAVIS_RESOLUTIONS]
        frames = next((p for p in candidates if p.is_dir()), candidates[0])
        return frames, root / "Annotations" / frames.name
    return root / "JPEGImages", root / "Annotations"


def _list_names(
    root: Path, layout: LayoutName, frames: Path, meta: _Meta | None
) -> tuple[str, ...]:
    if meta is not None:
        return tuple(sorted(meta.videos))
    for path in (root / name for name in _LISTS.get(layout, ())):
        if path.is_file():
            try:
                lines = map(str.strip, _decode(path.read_bytes()).splitlines())
                return tuple(name for name in lines if name)
            except (OSError, ValueError) as error:
                raise SourceError(f"{path} cannot be read ({error}); write it again") from error
    return tuple(sorted(p.name for p in frames.iterdir() if _is_folder(p)))


def _decode(text: bytes) -> str:
    """Decode UTF-8, or what editors on Windows write: with a byte-order mark, or UTF-16."""
    is_utf16 = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return text.decode("utf-16" if is_utf16 else "utf-8-sig")


def _is_folder(path: Path) -> bool:
    # Unlike pathlib's, it says no to a name that is too long.
    return os.path.isdir(path) and not path.name.startswith(".")  # noqa: PTH112


def _choose(frames: Path, listed: tuple[str, ...], videos: Sequence[str]) -> tuple[str, ...]:
    """Return the requested names, or those listed; each must name a folder of frames."""
    names = listed
    if videos:
        rank = {name: index for index, name in enumerate(listed)}
        names = tuple(sorted(set(videos), key=lambda n: (rank.get(n, len(rank)), n)))
    for name in names:
        # Names from files or users become part of output paths, so they must not leave the folder.
        if Path(name).name != name or not _is_folder(frames / name):
            examples = ", ".join(listed[:_MAX_NAMES])
            raise SourceError(
                f"video {name!r} has no folder in {frames}; its {len(listed)} videos are "
                f"{examples}{', ...' if len(listed) > _MAX_NAMES else ''}: check the name and that "
                "the copy is complete, or choose others with --videos"
            )
        if printable(name) != name:
            raise SourceError(f"{frames / name} has a name that is not UTF-8; rename it")
    return names


def _list_video(
    frame_folder: Path, mask_folder: Path, layout: LayoutName, ranges: Mapping[int, tuple[int, int]]
) -> Video:
    name, frames = frame_folder.name, tuple(image_files(frame_folder))
    if not mask_folder.is_dir():
        raise SourceError(
            f"{mask_folder} does not exist: video {name!r} has no masks; copy it again"
        )
    index_of = {path.stem: index for index, path in enumerate(frames)}
    if layout == "sa-v":
        objects = sorted(p for p in mask_folder.iterdir() if _is_folder(p))
        masks = {p.name: _mask_files(p, index_of) for p in objects}
        if not masks:
            raise SourceError(f"{mask_folder} contains no object folders; copy it again")
    else:
        masks = {"": _mask_files(mask_folder, index_of)}
    if layout == "davis" and 1 < len(masks[""]) < len(frames):
        unmasked = next(path for index, path in enumerate(frames) if index not in masks[""])
        raise SourceError(
            f"{unmasked} has no mask in {mask_folder}: DAVIS has one for every frame, or only for "
            "the first; copy it again"
        )
    return Video(name, frames, masks, ranges)


def _mask_files(folder: Path, index_of: Mapping[str, int]) -> dict[int, Path]:
    """Return a folder's PNG files by the index of the frame of the same name, in order."""
    files = list_images(folder, MASK_SUFFIXES)
    if not files:
        raise SourceError(f"{folder} contains no PNG masks; copy it again")
    for path in sorted(files):
        if path.stem not in index_of:
            raise SourceError(f"{path} has no frame of the same name; copy the data set again")
    return {index_of[p.stem]: p for p in sorted(files, key=lambda p: index_of[p.stem])}
