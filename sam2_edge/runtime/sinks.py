"""Where results go: overlay video, indexed PNG masks, JSON lines.

A sink refuses to replace what exists unless told to, and closes to a readable file whatever
happens in between.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SinkError
from sam2_edge.runtime.frames import Frame
from sam2_edge.runtime.overlay import draw, palette
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sources import SourceFrame

VIDEO_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

MIN_FREE_BYTES = 16 * 2**20
"""An overlay video stops when the disk has less than this left: OpenCV does not report a full one,
and the end of the file must still be written."""


class Sink(Protocol):
    """Takes every frame with its result, and is closed once."""

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Take one frame; raises SinkError when it cannot be written."""
        ...

    def close(self) -> None:
        """Finish; raises SinkError when the end cannot be written."""
        ...


class OverlayVideo:
    """The picture with masks drawn over it, as .mp4, .mkv or .avi."""

    def __init__(self, path: Path, *, fps: float, overwrite: bool = False) -> None:
        codec = VIDEO_CODECS.get(path.suffix.lower())
        if codec is None:
            raise SinkError(f"{path}: unknown suffix; give one of {', '.join(VIDEO_CODECS)}")
        check_new_file(path, overwrite=overwrite)
        self._path = path
        self._fourcc = cv2.VideoWriter.fourcc(*codec)
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Draw and append one frame."""
        height, width = frame.picture.shape[:2]
        if self._writer is None:
            self._size = (width, height)
            self._writer = cv2.VideoWriter(str(self._path), self._fourcc, self._fps, self._size)
            if not self._writer.isOpened():
                raise SinkError(f"{self._path} cannot be opened for writing; check the folder")
        if shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES:
            raise SinkError(
                f"{self._path}: less than {MIN_FREE_BYTES >> 20} MB are free on the disk; the "
                "video ends here. Free some space or write elsewhere"
            )
        times = self._times(frame)
        if times == 0:
            return
        canvas = draw(frame.picture, result)
        if (width, height) != self._size:
            canvas = cast("Frame", cv2.resize(canvas, self._size))
        for _ in range(times):
            self._writer.write(canvas)

    def _times(self, _frame: SourceFrame) -> int:
        """How many frames of the video show this one."""
        return 1

    @property
    def size_bytes(self) -> int:
        """Size of the file so far."""
        return self._path.stat().st_size if self._path.exists() else 0

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.release()


class RealTimeVideo(OverlayVideo):
    """An overlay video of a camera that plays as fast as it happened: frames are repeated or left
    out to fit its rate. A gap in the stream is shortened to a second.
    """

    def __init__(self, path: Path, *, fps: float, overwrite: bool = False) -> None:
        super().__init__(path, fps=fps, overwrite=overwrite)
        self._began_s: float | None = None
        self._shown = 0

    def _times(self, frame: SourceFrame) -> int:
        if frame.unix_s is None:
            return 1
        if self._began_s is None:
            self._began_s = frame.unix_s
        elapsed = (frame.unix_s - self._began_s) * self._fps
        due = int(elapsed + 1e-3) + 1 - self._shown
        most = max(1, round(self._fps))
        if due < -most:  # the clock was set back
            self._began_s = frame.unix_s - self._shown / self._fps
            due = 1
        if due > most:
            self._began_s += (due - most) / self._fps
        due = min(max(due, 0), most)
        self._shown += due
        return due


class MaskFolder:
    """One indexed PNG per frame as in DAVIS: pixel value is the object id, named as the frame."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        check_new_folder(folder, overwrite=overwrite)
        self._folder = folder
        self.size_bytes = 0

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Write one mask, whole or not at all; the first makes the folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(
                f"{self._folder} cannot be made: {error.strerror}; choose another"
            ) from error
        path = self._folder / f"{frame.name}.png"
        write_indexed_png(path, result.index_mask())
        self.size_bytes += on_disk(path)

    def close(self) -> None:
        """Every file is complete already."""


class JsonLines:
    """One JSON object per line, frame and object, flushed line by line."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_new_file(path, overwrite=overwrite)
        self._path = path
        self._file: FileIO | None = None
        self._length = 0

    def _open(self) -> FileIO:
        try:
            # Unbuffered: a full disk shows at the line that met it, and no whole line is ever lost.
            return FileIO(self._path, "wb")
        except OSError as error:
            raise SinkError(
                f"{self._path} cannot be opened: {error.strerror}; choose another"
            ) from error

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Append a line per object; the first frame makes the file."""
        if self._file is None:
            self._file = self._open()
        for entry in result.objects:
            line = json.dumps(json_record(frame, result, entry)).encode() + b"\n"
            try:
                written = self._file.write(line)
                if written != len(line):
                    raise OSError(f"{written} of {len(line)} bytes written")
            except OSError as error:
                raise SinkError(
                    f"{self._path} cannot be written at frame {frame.index}: {error}; the lines "
                    "before it are whole"
                ) from error
            self._length += len(line)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._length

    def close(self) -> None:
        """Cut off a line that a full disk left unfinished, and close."""
        if self._file is None:
            return
        if self._path.is_file() and not self._file.closed:  # devices cannot be cut
            self._file.truncate(self._length)
        self._file.close()


def on_disk(path: Path) -> int:
    """Bytes that a file takes of the disk, at least a block of 4 KiB."""
    return max(4096, path.stat().st_blocks * 512)


def json_record(frame: SourceFrame, result: FrameResult, entry: ObjectResult) -> dict[str, Any]:
    """What a JSON line says of one object on one frame; "time" only for frames of a camera."""
    time = {} if frame.unix_s is None else {"time": round(frame.unix_s, 6)}
    return {
        "frame": frame.index,
        "name": frame.name,
        **time,
        "object": entry.object_id,
        "present": entry.present,
        "iou": finite(entry.iou, 6),
        "object_score": finite(entry.object_score, 6),
        "rle": entry.to_rle(),
        "milliseconds": round(result.milliseconds, 3),
    }


def finite(value: float, digits: int) -> float | None:
    """A rounded number for JSON, which has none that are not finite."""
    return round(value, digits) if math.isfinite(value) else None


def write_indexed_png(path: Path, indexed: NDArray[np.uint8]) -> None:
    """Write [H,W] uint8 as a palette PNG, by way of a temporary file.

    Raises SinkError when it cannot be written.
    """
    image = Image.fromarray(indexed).convert("P")
    image.putpalette(palette().reshape(-1).tolist())
    _write_atomically(path, image)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises SinkError when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"{path} cannot be written: {error.strerror}; write elsewhere") from error


def write_image(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write [H,W] or [H,W,3] BGR uint8 in the format of the file's suffix.

    Raises SinkError when it cannot be written.
    """
    _write_atomically(path, Image.fromarray(picture[..., ::-1] if picture.ndim == 3 else picture))


def _write_atomically(path: Path, image: Image.Image) -> None:
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        image.save(temporary)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"{path} cannot be written: {error}; files before it are whole") from error


def check_outputs(source: Path, outputs: Sequence[Path | None]) -> None:
    """Raise SinkError where an output is the source, lies in a source folder, or is given twice."""
    origin, seen = source.resolve(), set[Path]()
    for path in (p for p in outputs if p is not None):
        place = path.resolve()
        if place == origin or (origin.is_dir() and origin == place.parent):
            raise SinkError(f"{path} would change the source {source}; write elsewhere")
        if place in seen:
            raise SinkError(f"{path} is given for two outputs; give each its own name")
        seen.add(place)


def check_new_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise SinkError unless files may be written into `folder`, which may not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is not a folder; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise SinkError(f"{folder} is not empty; choose another folder or pass --overwrite")
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise SinkError(f"{folder} cannot be made: {nearest} is a file; choose another")


def check_new_file(path: Path, *, overwrite: bool, suffix: str | None = None) -> None:
    """Raise SinkError unless a file may be written at `path`.

    suffix: what its name must end with, if anything.
    """
    if suffix is not None and path.suffix.lower() != suffix:
        raise SinkError(f"{path} would hold {suffix[1:]}; give a name that ends with {suffix}")
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give a file name")
    if path.is_file() and not overwrite:
        raise SinkError(f"{path} exists; choose another name or pass --overwrite")
    if not path.parent.is_dir():
        raise SinkError(f"folder {path.parent} does not exist; make it first")
