"""What an evaluation keeps of each video, and the table and figures that follow from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from sam2_edge.evaluation.metrics import Accuracy, mean_accuracy
from sam2_edge.evaluation.prompting import PromptKind
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.evaluation.vos.protocols import Score
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName

COLUMNS = ("video", "object", "J", "F", "J&F", "frames")
DIGITS = 6
"""Digits after the point in the table."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvalSettings(_Entry):
    """What the figures hang on; results of different settings are never mixed in a folder.

    dataset: its folder, resolved. bundle_sha256: of the manifest, which has that of every file.
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

    prompt, prompt_frame: how and on which frame, by name, it was prompted; None if no mask of it
    has a pixel. score: None without truth, or where no frame counts.
    """

    object: str
    prompt: PromptKind | None
    prompt_frame: str | None
    score: Score | None


class VideoRecord(_Entry):
    """One video; frames: their number."""

    video: str
    frames: int
    objects: tuple[ObjectRecord, ...]


def results_csv(records: Iterable[VideoRecord]) -> str:
    """A line per object with `COLUMNS`; J, F and J&F 0..1, empty without a score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        for found in record.objects:
            writer.writerow([record.video, found.object, *_figures(found.score)])
    return text.getvalue()


def summary(settings: EvalSettings, records: Sequence[VideoRecord]) -> dict[str, Any]:
    """The settings, and figures over all objects with a score, each 0..1 (decay -1..1).

    "j", "f", "j_and_f": means over objects. "j_recall", "j_decay", "f_recall", "f_decay": as DAVIS
    has them. All are None without scores. "clicked_instead": objects whose mask was too small for a
    mask prompt.
    """
    objects = [(record.video, found) for record in records for found in record.objects]
    scores = [found.score for _, found in objects if found.score is not None]
    return {
        **settings.model_dump(),
        "videos": len(records),
        "frames": sum(record.frames for record in records),
        "objects": len(objects),
        "scored_objects": len(scores),
        **_overall(scores),
        "clicked_instead": [
            f"{video}/{found.object}"
            for video, found in objects
            if found.prompt not in (None, settings.prompt)
        ],
    }


def _figures(score: Score | None) -> list[str]:
    if score is None:
        return ["", "", "", "0"]
    accuracy = _accuracy(score)
    figures = (accuracy.j, accuracy.f, accuracy.j_and_f)
    return [*(f"{figure:.{DIGITS}f}" for figure in figures), str(score.frames)]


def _overall(scores: Sequence[Score]) -> dict[str, float | None]:
    if not scores:
        names = ("j_and_f", "j", "f", "j_recall", "j_decay", "f_recall", "f_decay")
        return dict.fromkeys(names)
    whole = mean_accuracy([_accuracy(score) for score in scores])
    return {
        "j_and_f": whole.j_and_f,
        "j": whole.j,
        "f": whole.f,
        "j_recall": float(np.mean([score.j.recall for score in scores])),
        "j_decay": float(np.mean([score.j.decay for score in scores])),
        "f_recall": float(np.mean([score.f.recall for score in scores])),
        "f_decay": float(np.mean([score.f.decay for score in scores])),
    }


def _accuracy(score: Score) -> Accuracy:
    return Accuracy(score.j.mean, score.f.mean)
