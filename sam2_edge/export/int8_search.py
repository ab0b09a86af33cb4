"""Which layers to leave out of INT8 so that masks stay as good as in float32."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.calibration.frames import CalibrationFrames
from sam2_edge.calibration.qdq import QdqTarget, candidates, quantized
from sam2_edge.calibration.ranges import Method, collect_ranges
from sam2_edge.calibration.sensitivity import layer_errors
from sam2_edge.errors import ExportError
from sam2_edge.evaluation.synthetic import heldout_clips, scores, track_with
from sam2_edge.export.trial import trial_bundle
from sam2_edge.runtime.tracker import VideoTracker

SENSITIVITY_FRAMES = 4
"""Calibration frames on which each layer is tried alone."""

CLIPS = 20
"""Synthetic clips of two objects and 32 frames on which masks are scored."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """One try: how many of the most sensitive layers stayed in float, and J&F on the clips."""

    left_out: int
    j_and_f: float


@dataclass(frozen=True, slots=True)
class Search:
    """What was found. errors: of each layer quantized alone, worst first (see `layer_errors`).
    left_out: the layers to leave in float. reference: J&F in float32. trials: in order.
    """

    errors: dict[str, float]
    left_out: tuple[str, ...]
    reference: float
    trials: tuple[Trial, ...]


def search_int8(
    bundle: Bundle,
    frames: CalibrationFrames,
    *,
    method: Method,
    engine: QdqTarget,
    budget: float,
    clips: int = CLIPS,
    watch: Callable[[str], None] = _log.info,
) -> Search:
    """Leave 0, 1, 2, 4, 8 ... of the most sensitive layers of the image encoder in float, until J&F
    on synthetic clips falls by at most `budget` against `bundle`, whose graphs are in float32.

    Raises ExportError when it does not hold with any layer in INT8.
    """
    model = onnx.load(bundle.graph_path(Graph.IMAGE_ENCODER))
    nodes = candidates(model)
    watch("collecting ranges")
    ranges = collect_ranges(model, frames, method)
    watch(f"trying {len(nodes)} layers alone")
    some = islice(frames, SENSITIVITY_FRAMES)
    errors = layer_errors(model, ranges, nodes, some, engine)
    watch("scoring float32")
    reference = _score(bundle, clips)
    trials = []
    for count in _counts(len(nodes)):
        left_out = tuple(islice(errors, count))
        kept = [node for node in nodes if node not in left_out]
        with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
            changed = {Graph.IMAGE_ENCODER: quantized(model, ranges, kept, engine)}
            trial = Trial(count, _score(trial_bundle(bundle, Path(folder), changed), clips))
        trials.append(trial)
        watch(f"J&F {trial.j_and_f:.4f} ({reference:.4f}) with {count} layers in float")
        if reference - trial.j_and_f <= budget:
            return Search(errors, left_out, reference, tuple(trials))
    best = max(trial.j_and_f for trial in trials)
    raise ExportError(
        f"J&F in INT8 is {best:.4f} at best, in float32 {reference:.4f}: more than the budget of "
        f"{budget} is lost whichever layers stay in float; allow more, give other calibration "
        "frames or choose fp16"
    )


def _counts(nodes: int) -> Iterator[int]:
    yield 0
    count = 1
    while count < nodes:
        yield count
        count *= 2


def _score(bundle: Bundle, clips: int) -> float:
    """Mean J&F with one click per object."""
    found = scores(heldout_clips(clips), "click", track_with(VideoTracker(bundle, backend="cpu")))
    return float(np.mean([score.accuracy.j_and_f for score in found]))
