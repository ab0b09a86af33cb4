"""JSON Lines output: one line per object and frame."""

from __future__ import annotations

import json
import math
from io import FileIO
from pathlib import Path
from typing import Any

from sam2_edge.errors import SinkError, printable, reason_of
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks.files import STANDARD_OUTPUT, check_new_file, open_output
from sam2_edge.runtime.sources import SourceFrame


class JsonLines:
    """A JSON Lines file without buffering: every line is written when `write` returns.

    The path `STANDARD_OUTPUT` is standard output.

    Attributes:
        size_bytes: Bytes written so far.

    Raises:
        SinkError: If the file exists and `overwrite` is not set, or the path cannot be used.
    """

    starts_new_file = False

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_new_file(path, overwrite=overwrite)
        self.size_bytes = 0
        self._path, self._overwrite = path, overwrite
        self._file: FileIO | None = None

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Append a line per object; the first frame creates the file."""
        try:
            if self._file is None:
                # Unbuffered: a full disk fails the line it affects, and no complete line is lost.
                self._file = open_output(self._path, overwrite=self._overwrite)
            for entry in result.objects:
                line = json.dumps(json_record(frame, result, entry)).encode() + b"\n"
                self._file.write(line)
                self.size_bytes += len(line)
        except BrokenPipeError:  # the reader of standard output has seen enough
            raise
        except OSError as error:
            raise SinkError(
                f"{self._path} cannot be written at frame {frame.index}: {reason_of(error)}; the "
                "lines before it are complete"
            ) from error

    def close(self) -> None:
        """Remove a line that a full disk left unfinished, and close."""
        if self._file is None:
            return
        is_file = self._path != STANDARD_OUTPUT and self._path.is_file()
        if is_file and not self._file.closed:  # devices cannot be truncated
            self._file.truncate(self.size_bytes)
        self._file.close()


def json_record(frame: SourceFrame, result: FrameResult, entry: ObjectResult) -> dict[str, Any]:
    """Return the record of one object on one frame; docs/guides/tracking.md explains its fields."""
    centroid = entry.centroid
    time = {} if frame.unix_s is None else {"time": round(frame.unix_s, 6)}
    stream = {} if frame.stream is None else {"stream": frame.stream}
    return {
        **stream,
        "frame": frame.index,
        "frame_name": printable(frame.name),
        **time,
        "object": entry.object_id,
        "name": printable(result.names.get(entry.object_id, "")) or None,
        "present": entry.present,
        "box": entry.box,
        "area": entry.area,
        "centroid": None if centroid is None else [round(value, 2) for value in centroid],
        "iou": finite(entry.iou, 6),
        "object_score": finite(entry.object_score, 6),
        "rle": entry.to_rle(),
        "milliseconds": round(result.milliseconds, 3),
    }


def finite(value: float, digits: int) -> float | None:
    """Round a number for JSON, which has no NaN or infinity: both become None."""
    return round(value, digits) if math.isfinite(value) else None
