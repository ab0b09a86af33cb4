"""Outputs that run for days: a new file now and then, the oldest deleted, so that no disk fills."""

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
from sam2_edge.runtime.sinks.files import bytes_on_disk
from sam2_edge.runtime.sources import SourceFrame

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When to start anew: at so many bytes or seconds of age; and how many bytes to keep in all,
    the present output left out.

    Raises SinkError for a limit that is not above 0.
    """

    max_bytes: int
    max_age_s: float
    keep_bytes: int

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_age_s", "keep_bytes"):
            if not getattr(self, name) > 0:
                raise SinkError(f"{name} is {getattr(self, name)}; give more than 0")


class SizedSink(Sink, Protocol):
    """A sink that knows how much it has written."""

    @property
    def size_bytes(self) -> int:
        """Bytes so far."""
        ...


class RotatingSink:
    """Writes to one output after another in a folder: KIND-NUMBER-TIME with a suffix. Numbers go on
    from what lies there, whatever the clock says.

    make: opens the sink for one of them. suffix: empty for outputs that are folders.

    Raises SinkError when the folder cannot be made.
    """

    begins_anew = True

    def __init__(
        self,
        folder: Path,
        kind: str,
        suffix: str,
        make: Callable[[Path], SizedSink],
        rule: RotationPolicy,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{folder} cannot be made: {error.strerror}; choose another") from error
        self._folder, self._kind, self._suffix = folder, kind, suffix
        self._make, self._rule = make, rule
        self._sink: SizedSink | None = None
        self._path = folder
        self._began_s = 0.0
        self._kept = self._present()
        self._number = max((_number(path) for path in self._kept), default=-1) + 1

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Take one frame, in a new output if the present one is large or old enough."""
        if self._sink is not None and self._due(self._sink):
            self.close()
        if self._sink is None:
            self._sink = self._begin()
        self._sink.write(frame, result)

    def close(self) -> None:
        """Finish the present output."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._kept[self._path] = sink.size_bytes
            sink.close()

    def _due(self, sink: SizedSink) -> bool:
        old = time.monotonic() - self._began_s >= self._rule.max_age_s
        return old or sink.size_bytes >= self._rule.max_bytes

    def _begin(self) -> SizedSink:
        self._delete_oldest()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._path = self._folder / f"{self._kind}-{self._number:08d}-{stamp}{self._suffix}"
        self._number += 1
        self._began_s = time.monotonic()
        return self._make(self._path)

    def _present(self) -> dict[Path, int]:
        """Outputs of earlier runs, the oldest first, and their sizes; nothing else that lies there
        is touched.
        """
        name = re.compile(rf"{self._kind}-\d{{8,}}-\d{{8}}T\d{{6}}Z{re.escape(self._suffix)}")
        found = [path for path in self._folder.iterdir() if name.fullmatch(path.name)]
        return {path: size_of(path) for path in sorted(found, key=_number)}

    def _delete_oldest(self) -> None:
        """Delete outputs until few enough are left."""
        total = sum(self._kept.values())
        for path, size in list(self._kept.items()):
            if total <= self._rule.keep_bytes:
                return
            _log.info("%s is deleted: %s bytes are kept", path, self._rule.keep_bytes)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            del self._kept[path]
            total -= size


def size_of(path: Path) -> int:
    """Bytes that a file, or the files in a folder, take of the disk."""
    if path.is_dir():
        return sum(bytes_on_disk(entry) for entry in path.iterdir())
    return bytes_on_disk(path)


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])
