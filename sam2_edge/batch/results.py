"""The output of a batch, which a second run resumes.

settings.json       settings that determine the results
NAME/               results of a video, put in place whole
NAME/record.json    what became of it: a video with this file is finished
results.jsonl       all records, a line per video
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from sam2_edge.batch import OutputKind
from sam2_edge.batch.urls import file_system, is_url, translated
from sam2_edge.bundle.storage import atomic_folder
from sam2_edge.bundle.temporary import remove_leftovers, scratch_folder
from sam2_edge.errors import SinkError, reason_of
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.sinks.files import make_folder, write_text

SETTINGS, RECORD, RESULTS = "settings.json", "record.json", "results.jsonl"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchSettings(_Entry):
    """Settings that determine the results; an output never mixes different ones.

    `bundle_sha256` is the hash of the manifest, which contains the hash of every file.
    """

    sam2_edge_version: str
    bundle: str
    bundle_sha256: str
    outputs: tuple[OutputKind, ...]
    backend: BackendName
    memory_policy: MemoryPolicyName = "original"
    recent_memories: int | None = None


class VideoRecord(_Entry):
    """What became of a video.

    Attributes:
        name: Of the video, and of the folder of its results.
        source: Path or URL.
        frames: Number of frames tracked.
        objects: Number of objects.
        milliseconds: Time from opening it to its last result.
        error: Why it failed; None if it is done.
    """

    name: str
    source: str
    status: Literal["done", "failed"]
    frames: int = 0
    objects: int = 0
    milliseconds: float = 0.0
    error: str | None = None


class Place(Protocol):
    """A folder, here or behind a URL. Its methods raise SinkError."""

    def read(self, name: str) -> bytes | None:
        """Read a file; None if there is none."""
        ...

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        ...

    def is_empty(self) -> bool:
        """Return whether it holds nothing, or does not exist."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file or folder, if it exists."""
        ...

    def new_folder(self, name: str) -> Any:
        """A context manager of a local folder that is put in place if the block succeeds."""
        ...


class LocalPlace:
    """A folder of this machine or of storage that is mounted."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SinkError(f"{self._path / name} cannot be read: {reason_of(error)}") from error

    def write(self, name: str, text: str) -> None:
        """See `Place`."""
        make_folder(self._path)
        write_text(self._path / name, text)

    def is_empty(self) -> bool:
        """See `Place`."""
        remove_leftovers(self._path)
        return not self._path.is_dir() or not any(self._path.iterdir())

    def remove(self, name: str) -> None:
        """See `Place`."""
        path = self._path / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(f"{path} cannot be deleted: {reason_of(error)}") from error

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        target = self._path / name
        make_folder(target.parent)
        with atomic_folder(target, error=SinkError, staging=self._path) as folder:
            yield folder


class UrlPlace:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._system, self._path = file_system(self._url, SinkError)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            with translated(f"{self._url}/{name}", SinkError):
                return bytes(self._system.cat_file(f"{self._path}/{name}"))
        except SinkError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, name: str, text: str) -> None:
        """See `Place`; object stores put files in place whole."""
        with translated(f"{self._url}/{name}", SinkError):
            self._system.makedirs(self._path, exist_ok=True)
            self._system.pipe_file(f"{self._path}/{name}", text.encode())

    def is_empty(self) -> bool:
        """See `Place`."""
        with translated(self._url, SinkError):
            self._system.invalidate_cache()
            return not self._system.exists(self._path) or not self._system.ls(self._path)

    def remove(self, name: str) -> None:
        """See `Place`."""
        path = f"{self._path}/{name}"
        with translated(f"{self._url}/{name}", SinkError):
            if self._system.exists(path):
                self._system.rm(path, recursive=True)

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """See `Place`. The record is copied last: without it, the video is not finished."""
        with scratch_folder() as folder:
            yield folder
            self.remove(name)
            files = sorted(
                (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == RECORD
            )
            with translated(f"{self._url}/{name}", SinkError):
                for file in files:
                    target = f"{self._path}/{name}/{file.relative_to(folder).as_posix()}"
                    self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._system.put_file(str(file), target)


class BatchOutput:
    """The output of a batch; see `open_output`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._place: Place = UrlPlace(path) if is_url(path) else LocalPlace(path)

    def __reduce__(self) -> tuple[type[BatchOutput], tuple[str]]:
        """Pickle the path alone: connections stay in their process."""
        return BatchOutput, (self.path,)

    def record(self, name: str) -> VideoRecord | None:
        """Return the record of a finished video; None for others."""
        content = self._place.read(f"{name}/{RECORD}")
        if content is None:
            return None
        try:
            return VideoRecord.model_validate_json(content)
        except ValidationError as error:
            raise SinkError(
                f"{self.path}/{name}/{RECORD} is damaged; delete it to track the video again"
            ) from error

    @contextmanager
    def new_video(self, name: str) -> Iterator[Path]:
        """Yield a local folder for the results of a video, put in place if the block succeeds."""
        with self._place.new_folder(name) as folder:
            yield folder

    def save_failed(self, record: VideoRecord) -> None:
        """Keep the record of a video that failed, in place of its results."""
        with self.new_video(record.name) as folder:
            write_record(folder, record)

    def write_results(self, records: Iterable[VideoRecord]) -> None:
        """Write results.jsonl."""
        lines = (record.model_dump_json() + "\n" for record in records)
        self._place.write(RESULTS, "".join(lines))

    def prepare(self, settings: BatchSettings) -> None:
        """Create the output, or check that a batch with the same settings began it.

        Raises:
            SinkError: It contains anything else, or cannot be written.
        """
        content = self._place.read(SETTINGS)
        if content is not None:
            self._check_same(content, settings)
        elif not self._place.is_empty():
            raise SinkError(
                f"{self.path} is not empty and contains no batch; choose another folder"
            )
        else:
            self._place.write(SETTINGS, settings.model_dump_json(indent=1) + "\n")

    def _check_same(self, content: bytes, settings: BatchSettings) -> None:
        try:
            existing = BatchSettings.model_validate_json(content)
        except ValidationError as error:
            raise SinkError(
                f"{self.path}/{SETTINGS} is not from a batch of this sam2_edge; choose another "
                "folder"
            ) from error
        check_same(f"{self.path} contains a batch", existing, settings, "choose another folder")


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_same(what: str, existing: BaseModel, settings: BaseModel, remedy: str) -> None:
    """Raise SinkError, beginning with `what`, if an output was begun with other settings."""
    values = settings.model_dump()
    for name, value in existing.model_dump().items():
        if value != values[name]:
            raise SinkError(
                f"{what} with {name} {_listed(value)}, this one has {_listed(values[name])}; "
                f"{remedy}"
            )


def write_record(folder: Path, record: VideoRecord) -> None:
    """Write the record of a video into the folder of its results."""
    write_text(folder / RECORD, record.model_dump_json(indent=1) + "\n")
