"""Finds the videos of a batch, and what to track in each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam2_edge.batch.urls import fetched, is_url
from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.errors import SourceError
from sam2_edge.runtime.paths import read_file
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)

LIST_SUFFIXES = (".jsonl", ".csv")
"""Suffixes of files that list videos."""

MAX_LIST_BYTES = 2**30


class _Line(BaseModel):
    """A line of a list of videos; paths are relative to the list."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    prompts: str | list[dict[str, Any]] | None = None
    mask: str | None = None
    name: str | None = None
    start: Annotated[int, Field(ge=0)] = 0
    stop: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True)
class VideoTask:
    """One video of a batch.

    Attributes:
        name: Folder of its results in the output, such as `day1/clip`.
        source: Path or URL of a video or a folder of images.
        prompts: Path or URL of a prompts file, or its entries. With neither these nor a mask, the
            video cannot be tracked, which its record says.
        mask: Path or URL of an indexed mask of the first frame, one value per object.
        frames: Frames to track.
    """

    name: str
    source: str
    prompts: str | tuple[dict[str, Any], ...] | None = None
    mask: str | None = None
    frames: FrameRange = field(default_factory=FrameRange)


def find_tasks(inputs: Sequence[str | Path]) -> list[VideoTask]:
    """The videos of a batch, in order.

    Args:
        inputs: Videos, folders of images, folders of these at any depth, and lists (.jsonl, .csv),
            which may be URLs.

    Raises:
        SourceError: There is none, or two have the same name.
    """
    tasks = [task for path in inputs for task in _tasks_of(str(path))]
    if not tasks:
        raise SourceError(
            f"{', '.join(map(str, inputs))}: no video and no folder of images; known suffixes of "
            f"videos: {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    by_name: dict[str, VideoTask] = {}
    for task in tasks:
        other = by_name.setdefault(task.name, task)
        if other is not task:
            raise SourceError(
                f"{other.source} and {task.source} would both be named {task.name}; give names in "
                "a list (.jsonl or .csv)"
            )
    return tasks


def _tasks_of(given: str) -> Iterator[VideoTask]:
    path = Path(given)
    if path.suffix.lower() in LIST_SUFFIXES and not path.is_dir():
        yield from _listed(given)
    elif is_url(given):
        raise SourceError(f"{given} is a URL; only lists may be: give one that names this video")
    elif path.is_dir() and not _is_source(path):
        yield from (_beside(each, path) for each in _sources_in(path))
    elif path.exists():
        yield _beside(path, path.parent)
    else:
        raise SourceError(f"{path} does not exist; check the path")


def _sources_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _is_source(path):
            yield path
        elif path.is_dir():
            yield from _sources_in(path)


def _is_source(path: Path) -> bool:
    """Return whether this is a video, or a folder with an image and without a folder or video."""
    if not path.is_dir():
        return path.suffix.lower() in VIDEO_SUFFIXES
    entries = list(path.iterdir())
    if any(each.is_dir() or each.suffix.lower() in VIDEO_SUFFIXES for each in entries):
        return False
    return any(each.suffix.lower() in IMAGE_SUFFIXES for each in entries)


def _beside(source: Path, root: Path) -> VideoTask:
    """The task of a source with its prompts, or the mask of its first frame, beside it."""
    stem = source if source.is_dir() else source.with_suffix("")
    name = stem.relative_to(root).as_posix()
    prompts, mask = Path(f"{stem}.json"), Path(f"{stem}.png")
    if prompts.is_file():
        return VideoTask(name, str(source), prompts=str(prompts))
    if mask.is_file():
        return VideoTask(name, str(source), mask=str(mask))
    return VideoTask(name, str(source))


def _listed(given: str) -> Iterator[VideoTask]:
    with scratch_folder() as scratch:
        content = read_file(fetched(given, scratch, SourceError), MAX_LIST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{given} is not UTF-8 ({error}); save it as UTF-8") from error
    lines = _csv_lines if given.lower().endswith(".csv") else _json_lines
    folder = given.rpartition("/")[0] if is_url(given) else str(Path(given).parent)
    for number, values in lines(given, text):
        yield _checked(values, f"{given}, line {number}", folder)


def _checked(values: Any, where: str, folder: str) -> VideoTask:
    """The task of a line of a list."""
    try:
        return _task_of(_Line.model_validate(values), folder)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise SourceError(f"{where}: {field}: {first['msg']}") from error
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from error


def _json_lines(path: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}, line {number} is not JSON: {error}") from error


def _csv_lines(path: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), restkey="")
    try:
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value}
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num} is not CSV: {error}") from error


def _task_of(line: _Line, folder: str) -> VideoTask:
    if (line.prompts is None) == (line.mask is None):
        raise ValueError("give either prompts or mask")
    if line.stop is not None and line.stop <= line.start:
        raise ValueError(f"stop {line.stop} is not after start {line.start}; give a later one")
    if isinstance(line.prompts, str):
        prompts: str | tuple[dict[str, Any], ...] | None = _resolved(line.prompts, folder)
    else:
        prompts = None if line.prompts is None else tuple(line.prompts)
    return VideoTask(
        _checked_name(line.name or PurePosixPath(line.source).stem),
        _resolved(line.source, folder),
        prompts,
        None if line.mask is None else _resolved(line.mask, folder),
        FrameRange(line.start, line.stop),
    )


def _resolved(path: str, folder: str) -> str:
    """A path or URL in a list that lies in `folder`."""
    if is_url(path):
        return path
    return f"{folder}/{path}" if is_url(folder) else str(Path(folder, path))


def _checked_name(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or any(each.startswith(".") for each in parts):
        raise ValueError(
            f"name {name!r} is no folder below the output; give one such as day1/clip, in which no "
            "part begins with a dot"
        )
    return "/".join(parts)
