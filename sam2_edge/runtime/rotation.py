"""Outputs that run for days: a new file now and then, the oldest deleted, so that no disk fills."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame

SIZE_CHECKED_EVERY = 16
"""Results between two looks at how large an output is: a folder has to be gone through."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RotationRule:
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


class RotatingSink:
    """Writes to one output after another in a folder: KIND-TIME-NUMBER with a suffix.

    make: opens the sink for one of them. suffix: empty for outputs that are folders.

    Raises SinkError when the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        suffix: str,
        make: Callable[[Path], Sink],
        rule: RotationRule,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{folder} cannot be made: {error.strerror}; choose another") from error
        self._folder, self._kind, self._suffix = folder, kind, suffix
        self._make, self._rule = make, rule
        self._sink: Sink | None = None
        self._path = folder
        self._began_s = 0.0
        self._written = self._number = 0

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Take one frame, in a new output if the present one is large or old enough."""
        if self._sink is not None and self._due():
            self.close()
        if self._sink is None:
            self._begin()
        assert self._sink is not None
        self._sink.write(frame, result)
        self._written += 1

    def close(self) -> None:
        """Finish the present output."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _due(self) -> bool:
        if time.monotonic() - self._began_s >= self._rule.max_age_s:
            return True
        looked_at = self._written % SIZE_CHECKED_EVERY == 0
        return looked_at and size_of(self._path) >= self._rule.max_bytes

    def _begin(self) -> None:
        self._delete_oldest()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{self._kind}-{stamp}-{self._number:04d}{self._suffix}"
        self._number += 1
        self._path = self._folder / name
        self._sink = self._make(self._path)
        self._began_s, self._written = time.monotonic(), 0

    def _delete_oldest(self) -> None:
        """Delete outputs of this kind, also of earlier runs, until few enough are left."""
        outputs = sorted(self._folder.glob(f"{self._kind}-*{self._suffix}"))
        sizes = {path: size_of(path) for path in outputs}
        total = sum(sizes.values())
        for path in outputs:
            if total <= self._rule.keep_bytes:
                return
            _log.info("%s is deleted: more than %s bytes are kept", path, self._rule.keep_bytes)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            total -= sizes[path]


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 if there is none."""
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0
