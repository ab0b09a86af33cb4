"""Results of an evaluation: records of its videos, and the folder that stores them.

settings.json         settings that determine the results
Annotations/NAME/     masks of a video, written atomically
records/NAME.json     its scores, written after the masks: a video with this file is done
results.csv           a line per object
summary.json          scores over all objects
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from sam2_edge.batch.results import check_same
from sam2_edge.bundle.storage import atomic_folder
from sam2_edge.errors import SinkError
from sam2_edge.evaluation.metrics import Accuracy, mean_accuracy
from sam2_edge.evaluation.prompting import PromptKind
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.evaluation.vos.protocols import Score
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.sinks.files import make_folder, write_text

COLUMNS = ("video", "object", "J", "F", "J&F", "frames")
DIGITS = 6
"""Digits after the decimal point in results.csv."""

MASKS, RECORDS = "Annotations", "records"
SETTINGS, RESULTS, SUMMARY = "settings.json", "results.csv", "summary.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvalSettings(_Entry):
    """Settings that determine the results; a folder never mixes different settings.

    `bundle_sha256` is the hash of the manifest, which contains the hash of every file.
    """

    sam2_edge_version: str
    dataset: str
    layout: LayoutName
    bundle: str
    bundle_sha256: str
    prompt: PromptKind
    backend: BackendName
    memory_policy: MemoryPolicyName = "original"


class ObjectRecord(_Entry):
    """One object of a video.

    Attributes:
        object: Its name in the data set.
        prompt: Kind of its prompt; None if all its masks are empty.
        prompt_frame: Stem of the prompted frame's file name; None if there is no prompt.
        score: None without ground truth, or if no frame is scored.
    """

    object: str
    prompt: PromptKind | None
    prompt_frame: str | None
    score: Score | None


class VideoRecord(_Entry):
    """One video: its name, number of frames and objects."""

    video: str
    frames: int
    objects: tuple[ObjectRecord, ...]


@dataclass(frozen=True, slots=True)
class EvalFolder:
    """The folder of a resumable evaluation, created by `open_folder`.

    Its methods raise SinkError if a file cannot be read or written.
    """

    path: Path

    @property
    def masks(self) -> Path:
        """Folder of the masks, in the format of the data sets' servers and evaluators."""
        return self.path / MASKS

    def record(self, video: str) -> VideoRecord | None:
        """Return the record of a finished video; None for others."""
        path = self._record_path(video)
        if not path.is_file() or not (self.masks / video).is_dir():
            return None
        try:
            return VideoRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise SinkError(f"{path} is damaged; delete it to evaluate the video again") from error

    def new_masks(self, video: str) -> AbstractContextManager[Path]:
        """Return a temporary folder for a video's masks, put in place if the block succeeds."""
        # Staged outside `masks`, which must only contain what evaluators expect.
        return atomic_folder(self.masks / video, error=SinkError, staging=self.path)

    def save_record(self, record: VideoRecord) -> None:
        """Write the record of a video, after its masks."""
        write_text(self._record_path(record.video), record.model_dump_json(indent=1) + "\n")

    def finish(self, settings: EvalSettings, records: Sequence[VideoRecord]) -> dict[str, Any]:
        """Write results.csv and summary.json, and return the summary."""
        figures = summary(settings, records)
        write_text(self.path / RESULTS, results_csv(records))
        write_text(self.path / SUMMARY, json.dumps(figures, indent=1) + "\n")
        return figures

    def _record_path(self, video: str) -> Path:
        return self.path / RECORDS / f"{video}.json"


def open_folder(path: Path, settings: EvalSettings, *, overwrite: bool = False) -> EvalFolder:
    """Create the folder of an evaluation, or open one with the same settings to resume it.

    Args:
        path: The folder.
        settings: Settings of the evaluation.
        overwrite: Whether to first delete an existing evaluation, regardless of its settings.

    Raises:
        SinkError: If the folder contains anything else or an evaluation with other settings, or
            cannot be created.
    """
    settings_path = path / SETTINGS
    if settings_path.is_file():
        existing = _read_settings(settings_path)
        if overwrite:
            _clear(path)
        else:
            remedy = "choose another folder or pass --overwrite"
            check_same(f"{path} contains an evaluation", existing, settings, remedy)
    elif path.is_dir() and any(path.iterdir()):
        raise SinkError(f"{path} is not empty and contains no evaluation; choose another folder")
    for name in (MASKS, RECORDS):
        make_folder(path / name)
    write_text(settings_path, settings.model_dump_json(indent=1) + "\n")
    return EvalFolder(path)


def results_csv(records: Iterable[VideoRecord]) -> str:
    """Format a line per object with `COLUMNS`; J, F and J&F are 0 to 1, or empty if unscored.

    Names that a spreadsheet would run as a formula begin with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        for entry in record.objects:
            names = (_as_text(record.video), _as_text(entry.object))
            writer.writerow([*names, *_cells(entry.score)])
    return text.getvalue()


def summary(settings: EvalSettings, records: Sequence[VideoRecord]) -> dict[str, Any]:
    """Return the settings, and the scores over all objects.

    "j", "f" and "j_and_f" are means over objects, 0 to 1; "j_recall", "j_decay", "f_recall" and
    "f_decay" are defined as in DAVIS. Without scores all are None. "clicked_instead" lists the
    objects whose masks were too small for the requested prompt.
    """
    objects = [(record.video, entry) for record in records for entry in record.objects]
    scores = [entry.score for _, entry in objects if entry.score is not None]
    return {
        **settings.model_dump(),
        "videos": len(records),
        "frames": sum(record.frames for record in records),
        "objects": len(objects),
        "scored_objects": len(scores),
        **_overall(scores),
        "clicked_instead": [
            f"{video}/{entry.object}"
            for video, entry in objects
            if entry.prompt not in (None, settings.prompt)
        ],
    }


def _as_text(name: str) -> str:
    """Mark a name that a spreadsheet would run as a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _cells(score: Score | None) -> list[str]:
    if score is None:
        return ["", "", "", "0"]
    accuracy = Accuracy(score.j.mean, score.f.mean)
    figures = (accuracy.j, accuracy.f, accuracy.j_and_f)
    return [*(f"{figure:.{DIGITS}f}" for figure in figures), str(score.frames)]


def _overall(scores: Sequence[Score]) -> dict[str, float | None]:
    if not scores:
        names = ("j_and_f", "j", "f", "j_recall", "j_decay", "f_recall", "f_decay")
        return dict.fromkeys(names)
    overall = mean_accuracy([Accuracy(score.j.mean, score.f.mean) for score in scores])
    return {
        "j_and_f": overall.j_and_f,
        "j": overall.j,
        "f": overall.f,
        "j_recall": float(np.mean([score.j.recall for score in scores])),
        "j_decay": float(np.mean([score.j.decay for score in scores])),
        "f_recall": float(np.mean([score.f.recall for score in scores])),
        "f_decay": float(np.mean([score.f.decay for score in scores])),
    }


def _read_settings(path: Path) -> EvalSettings:
    try:
        return EvalSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        # Even --overwrite must not empty a folder that is not an evaluation's.
        raise SinkError(
            f"{path} is not from an evaluation of this sam2_edge; choose another folder"
        ) from error


def _clear(path: Path) -> None:
    """Delete the files of an evaluation, and nothing else."""
    try:
        for name in (MASKS, RECORDS):
            if (path / name).is_dir():
                shutil.rmtree(path / name)
        for name in (RESULTS, SUMMARY, SETTINGS):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise SinkError(f"{path} cannot be emptied: {error.strerror}") from error
