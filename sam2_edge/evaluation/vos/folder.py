"""The folder of an evaluation, such that it can go on after an interruption.

settings.json         what the results hang on
Annotations/NAME/     masks of a video, whole or not there
records/NAME.json     its scores, written after the masks: with it the video is done
results.csv           a line per object
summary.json          figures over all objects
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sam2_edge.bundle.storage import PARTIAL, atomic_folder
from sam2_edge.errors import SinkError
from sam2_edge.evaluation.vos.results import EvalSettings, VideoRecord, results_csv, summary
from sam2_edge.runtime.sinks.files import check_new_folder, write_text

MASKS, RECORDS = "Annotations", "records"
SETTINGS, RESULTS, SUMMARY = "settings.json", "results.csv", "summary.json"


@dataclass(frozen=True, slots=True)
class EvalFolder:
    """An evaluation's folder; made by `open_folder`."""

    path: Path

    @property
    def masks(self) -> Path:
        """Where the masks are: what servers and the published evaluators take."""
        return self.path / MASKS

    def record(self, video: str) -> VideoRecord | None:
        """What is known of a video that is done; None for others.

        Raises SinkError for a damaged record.
        """
        path = self._record_path(video)
        if not path.is_file() or not (self.masks / video).is_dir():
            return None
        try:
            return VideoRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise SinkError(
                f"{path} is damaged; delete it, and the video is evaluated anew"
            ) from error

    def new_masks(self, video: str) -> AbstractContextManager[Path]:
        """A temporary folder for the masks of a video, put in place if the block succeeds.

        Raises SinkError when it cannot be made or put in place.
        """
        # Not inside `masks`, which evaluators take as it is.
        return atomic_folder(self.masks / video, error=SinkError, staging=self.path)

    def save_record(self, record: VideoRecord) -> None:
        """Write the record of a video, after its masks.

        Raises SinkError when it cannot be written.
        """
        write_text(self._record_path(record.video), record.model_dump_json(indent=1) + "\n")

    def finish(self, settings: EvalSettings, records: Sequence[VideoRecord]) -> dict[str, Any]:
        """Write the table and the figures of all videos, and return the latter (`summary`).

        Raises SinkError when they cannot be written.
        """
        figures = summary(settings, records)
        write_text(self.path / RESULTS, results_csv(records))
        write_text(self.path / SUMMARY, json.dumps(figures, indent=1) + "\n")
        return figures

    def _record_path(self, video: str) -> Path:
        return self.path / RECORDS / f"{video}.json"


def open_folder(path: Path, settings: EvalSettings, *, overwrite: bool = False) -> EvalFolder:
    """The folder of an evaluation: a new one, or one of the same settings to go on with.

    overwrite: throw away an evaluation that is there first, whatever its settings.

    Raises SinkError for a folder that holds something else or other settings, or cannot be made.
    """
    settings_path = path / SETTINGS
    if settings_path.is_file():
        found = _read_settings(settings_path)
        if overwrite:
            _clear(path)
        else:
            _check_same(path, found, settings)
    elif path.is_dir() and any(path.iterdir()):
        raise SinkError(f"{path} is not empty and holds no evaluation; choose another folder")
    check_new_folder(path, overwrite=True)
    try:
        for name in (MASKS, RECORDS):
            (path / name).mkdir(parents=True, exist_ok=True)
        for leftover in path.glob(f".*{PARTIAL}"):
            shutil.rmtree(leftover)
    except OSError as error:
        raise SinkError(f"{path} cannot be filled: {error.strerror}; choose another") from error
    write_text(settings_path, settings.model_dump_json(indent=1) + "\n")
    return EvalFolder(path)


def _read_settings(path: Path) -> EvalSettings:
    try:
        return EvalSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        # Not even --overwrite may empty a folder that is perhaps not ours.
        raise SinkError(
            f"{path} is not of an evaluation of this sam2_edge; choose another folder"
        ) from error


def _check_same(path: Path, found: EvalSettings, wanted: EvalSettings) -> None:
    given = wanted.model_dump()
    for name, value in found.model_dump().items():
        if value != given[name]:
            raise SinkError(
                f"{path} holds an evaluation with {name} {value}, this one has {given[name]}; "
                "choose another folder or pass --overwrite"
            )


def _clear(path: Path) -> None:
    """Remove what an evaluation writes, and nothing else."""
    try:
        for name in (MASKS, RECORDS):
            if (path / name).is_dir():
                shutil.rmtree(path / name)
        for name in (RESULTS, SUMMARY, SETTINGS):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise SinkError(f"{path} cannot be emptied: {error.strerror}") from error
