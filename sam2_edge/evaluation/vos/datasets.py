"""Data sets for video object segmentation in their published layouts, read into one description.

What the layouts are is in docs/guides/eval.md with the sources; which frames count in a score is
`conventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.mask_folders import read_indexed_png
from sam2_edge.evaluation.vos.meta import Meta, read_meta
from sam2_edge.runtime.sources.images import image_files

LayoutName = Literal["davis", "sa-v", "mose", "lvos", "youtube-vos"]

Mask = NDArray[np.bool_]

VOID = 255
"""The pixel value of indexed masks that is no object (`_VOID_LABEL` in DAVIS and LVOS)."""

SPLITS = ("valid", "val")
"""Folders of a split that are looked into where the frames are not in the given folder itself."""

_DAVIS_RESOLUTIONS = ("480p", "Full-Resolution")
_DAVIS_LISTS = tuple(
    f"ImageSets/2017/{name}.txt" for name in ("val", "test-dev", "test-challenge", "train")
)
_SAV_LISTS = ("sav_val.txt", "sav_test.txt")
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class Video:
    """One video: its frames in order, and which of them have masks.

    masks: by object folder, the mask file of each annotated frame, by the frame's place in
    `frames`. SA-V has a folder of binary masks per object; elsewhere the only folder is "" and
    files are indexed. ranges: by object id, first and last frame number between which LVOS scores
    it.
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
        """What the data set calls an object; its id is the pixel value, or counts the folders."""
        return list(self.masks)[object_id - 1] if self.per_object else str(object_id)

    def annotated(self, frame: int) -> bool:
        """Whether a frame, by its place in `frames`, has any mask file."""
        return any(frame in files for files in self.masks.values())

    def read_masks(self, frame: int) -> dict[int, Mask]:
        """True masks [H,W] bool of a frame by object id; nothing if it is not annotated.

        From an indexed file only objects that it shows; a file of one object may be empty.

        Raises SourceError for a file that cannot be read.
        """
        if self.per_object:
            return {
                number: read_indexed_png(files[frame]) > 0
                for number, files in enumerate(self.masks.values(), 1)
                if frame in files
            }
        path = self.masks[""].get(frame)
        if path is None:
            return {}
        indexed = read_indexed_png(path)
        return {int(i): indexed == i for i in np.unique(indexed) if i not in (0, VOID)}


@dataclass(frozen=True, slots=True)
class DataSet:
    """Videos of a data set, in the order of its list."""

    root: Path
    layout: LayoutName
    videos: tuple[Video, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a data set of a layout lies; names: the videos of its list."""

    root: Path
    layout: LayoutName
    frames: Path
    masks: Path
    names: tuple[str, ...]
    meta: Meta | None = None


def open_dataset(
    folder: Path, *, layout: LayoutName | None = None, videos: Sequence[str] = ()
) -> DataSet:
    """Read what a data set holds; pictures and masks are only listed here.

    layout: None recognizes it. videos: only these, in the order of the list, and any that has a
    folder may be named; with none named those of the list, or all where there is no list.

    Raises SourceError for a folder that is no data set, a video that is not there or has no masks,
    and masks that have no frame.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give the folder of a data set")
    places = _places(folder, layout)
    if not places.names:
        raise SourceError(f"{places.frames} holds no videos; give the folder of a data set")
    names = _chosen(places, videos)
    return DataSet(places.root, places.layout, tuple(_read_video(places, n) for n in names))


def _places(folder: Path, layout: LayoutName | None) -> _Places:
    root = next((p for p in (folder, *(folder / s for s in SPLITS)) if _holds_frames(p)), None)
    if root is None:
        raise SourceError(
            f"{folder} holds neither JPEGImages nor JPEGImages_24fps; give the folder of a data "
            f"set laid out as one of {', '.join(get_args(LayoutName))}"
        )
    meta = None
    if layout is None:
        layout, meta = _recognized(root)
    elif layout in _FLAT_WITH_META:
        meta = read_meta(root)
    frames, masks = _FOLDERS[layout](root)
    for path in (frames, masks):
        if not path.is_dir():
            raise SourceError(
                f"{path} does not exist, which a data set laid out as {layout} has; check the "
                "folder, or name its layout with --layout"
            )
    return _Places(root, layout, frames, masks, _listed(root, layout, frames, meta), meta)


def _holds_frames(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() or (folder / "JPEGImages_24fps").is_dir()


def _recognized(root: Path) -> tuple[LayoutName, Meta | None]:
    if (root / "JPEGImages_24fps").is_dir():
        return "sa-v", None
    if any((root / "JPEGImages" / name).is_dir() for name in _DAVIS_RESOLUTIONS):
        return "davis", None
    meta = read_meta(root)
    if meta is None:
        return "mose", None
    return ("lvos" if meta.has_ranges else "youtube-vos"), meta


def _davis_folders(root: Path) -> tuple[Path, Path]:
    frames = [root / "JPEGImages" / name for name in _DAVIS_RESOLUTIONS]
    found = next((p for p in frames if p.is_dir()), frames[0])
    return found, root / "Annotations" / found.name


def _flat_folders(root: Path) -> tuple[Path, Path]:
    return root / "JPEGImages", root / "Annotations"


_FLAT_WITH_META = ("lvos", "youtube-vos")
_FOLDERS: dict[LayoutName, Callable[[Path], tuple[Path, Path]]] = {
    "davis": _davis_folders,
    "sa-v": lambda root: (root / "JPEGImages_24fps", root / "Annotations_6fps"),
    "mose": _flat_folders,
    "lvos": _flat_folders,
    "youtube-vos": _flat_folders,
}


def _listed(root: Path, layout: LayoutName, frames: Path, meta: Meta | None) -> tuple[str, ...]:
    if meta is not None:
        return tuple(sorted(meta.videos))
    lists = {"davis": _DAVIS_LISTS, "sa-v": _SAV_LISTS}.get(layout, ())
    for path in (root / name for name in lists):
        if path.is_file():
            try:
                return tuple(path.read_text(encoding="utf-8").split())
            except (OSError, ValueError) as error:
                raise SourceError(f"{path} cannot be read ({error}); write it again") from error
    return tuple(sorted(p.name for p in frames.iterdir() if _is_folder(p)))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _chosen(places: _Places, videos: Sequence[str]) -> tuple[str, ...]:
    """Names of the list, or those asked for; names that are no folder of the frames are refused."""
    names = places.names
    if videos:
        rank = {name: place for place, name in enumerate(names)}
        names = tuple(sorted(set(videos), key=lambda n: (rank.get(n, len(rank)), n)))
    for name in names:
        # A name out of a file or from a user becomes part of paths that are written to.
        if Path(name).name != name or not _is_folder(places.frames / name):
            shown = ", ".join(places.names[:_SHOWN_NAMES])
            raise SourceError(
                f"video {name!r} has no folder in {places.frames}; its {len(places.names)} videos "
                f"are {shown}{', ...' if len(places.names) > _SHOWN_NAMES else ''}: check the name "
                "and that the copy is whole, or choose others with --videos"
            )
    return names


def _read_video(places: _Places, name: str) -> Video:
    frames = tuple(image_files(places.frames / name))
    folder = places.masks / name
    if not folder.is_dir():
        raise SourceError(f"{folder} does not exist: video {name!r} has no masks; copy it again")
    place_of = {path.stem: place for place, path in enumerate(frames)}
    subfolders = sorted(p for p in folder.iterdir() if _is_folder(p))
    if places.layout == "sa-v":
        masks = {p.name: _mask_files(p, place_of) for p in subfolders}
        if not masks:
            raise SourceError(f"{folder} holds no folder of an object; copy it again")
    else:
        masks = {"": _mask_files(folder, place_of)}
    video = Video(name, frames, masks, _ranges(places, name))
    if places.layout == "davis" and 1 < len(masks[""]) < len(frames):
        bare = next(path for place, path in enumerate(frames) if place not in masks[""])
        raise SourceError(
            f"{bare} has no mask in {folder}: DAVIS has one for every frame, or for the first "
            "alone; copy it again"
        )
    return video


def _mask_files(folder: Path, place_of: Mapping[str, int]) -> dict[int, Path]:
    """PNG files by the place of the frame that has their name, in that order."""
    files = [p for p in folder.glob("*.png") if not p.name.startswith(".")]
    if not files:
        raise SourceError(f"{folder} holds no PNG masks; copy it again")
    for path in sorted(files):
        if path.stem not in place_of:
            raise SourceError(f"{path} has no frame of its name; frames or masks are missing")
    return {place_of[p.stem]: p for p in sorted(files, key=lambda p: place_of[p.stem])}


def _ranges(places: _Places, name: str) -> dict[int, tuple[int, int]]:
    if places.layout != "lvos" or places.meta is None or name not in places.meta.videos:
        return {}
    objects = places.meta.videos[name].objects
    return {
        object_id: (found.frame_range.start, found.frame_range.end)
        for object_id, found in objects.items()
        if found.frame_range is not None
    }
