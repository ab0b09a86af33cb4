"""JSON lines: one line per frame and object."""

from __future__ import annotations

import json
import math
from io import FileIO
from pathlib import Path
from typing import Any

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks.files import check_new_file
from sam2_edge.runtime.sources import SourceFrame


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
