"""Rotation of long-running outputs: starts new files and deletes the oldest."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.files import bytes_on_disk, make_folder
from sam2_edge.runtime.sources import SourceFrame

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When to start a new output, and how much to keep.

    Attributes:
        max_bytes: Size at which an output is finished.
        max_age_s: Age at which an output is finished, seconds.
        keep_bytes: Total size of finished outputs, beyond which the oldest are deleted.

    Raises:
        SinkError: If a limit is not positive.
    """

    max_bytes: float
    max_age_s: float
    keep_bytes: float

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_age_s", "keep_bytes"):
            if not getattr(self, name) > 0:
                raise SinkError(f"{name} is {getattr(self, name)}; give more than 0")


class SizedSink(Sink, Protocol):
    """A sink that counts the bytes it has written."""

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        ...


class RotatingSink:
    """Writes a series of outputs, named KIND-NUMBER-TIME plus a suffix, to a folder.

    Numbers continue from the outputs in the folder, regardless of the clock.

    Args:
        folder: Created if missing. Only outputs of this kind are ever deleted from it.
        kind: First part of the names.
        suffix: Suffix of the names; empty for outputs that are folders.
        open_sink: Opens the sink of one output.
        policy: When to start a new output, and how much to keep.

    Raises:
        SinkError: If the folder cannot be created.
    """

    starts_new_file = True

    def __init__(
        self,
        folder: Path,
        kind: str,
        suffix: str,
        open_sink: Callable[[Path], SizedSink],
        policy: RotationPolicy,
    ) -> None:
        make_folder(folder)
        self._folder, self._kind, self._suffix = folder, kind, suffix
        self._open_sink, self._policy = open_sink, policy
        self._sink: SizedSink | None = None
        self._path = folder
        self._began_s = 0.0
        name = re.compile(rf"{kind}-\d{{8,}}-\d{{8}}T\d{{6}}Z{re.escape(suffix)}")
        outputs = [path for path in folder.iterdir() if name.fullmatch(path.name)]
        self._finished = {path: _size_of(path) for path in sorted(outputs, key=_number)}
        self._number = max(map(_number, outputs), default=-1) + 1

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Write one frame, to a new output if the current one is large or old enough."""
        if self._sink is not None and self._is_full(self._sink):
            self.close()
        if self._sink is None:
            self._delete_oldest()
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            self._path = self._folder / f"{self._kind}-{self._number:08d}-{stamp}{self._suffix}"
            self._number += 1
            self._began_s = time.monotonic()
            self._sink = self._open_sink(self._path)
        self._sink.write(frame, result)

    def close(self) -> None:
        """Finish the current output."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._finished[self._path] = sink.size_bytes
            sink.close()

    def _is_full(self, sink: SizedSink) -> bool:
        age_s = time.monotonic() - self._began_s
        return age_s >= self._policy.max_age_s or sink.size_bytes >= self._policy.max_bytes

    def _delete_oldest(self) -> None:
        total = sum(self._finished.values())
        for path, size in list(self._finished.items()):
            if total <= self._policy.keep_bytes:
                return
            _log.info("deleting %s to stay within %.0f bytes", path, self._policy.keep_bytes)
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s cannot be deleted now: %s", path, error)
                continue
            del self._finished[path]
            total -= size


def _size_of(path: Path) -> int:
    """Return the disk usage in bytes of a file, or of the files in a folder."""
    return sum(map(bytes_on_disk, path.iterdir())) if path.is_dir() else bytes_on_disk(path)


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])
