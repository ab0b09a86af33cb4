"""Precision modes: what they cost on whole clips, and the calibration that they require."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import Sam2VideoModel

from sam2_edge import Bundle, ExportError, VideoTracker
from sam2_edge.bundle.contract import Feeds
from sam2_edge.evaluation.synthetic import heldout_clips, scores, summary
from sam2_edge.export import precision as precision_module
from sam2_edge.export.int8_search import trial_bundle
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import (
    PRECISION_MODES,
    Calibration,
    ExportOptions,
    PrecisionMode,
)
from sam2_edge.models.checkpoints import load_model
from sam2_edge.synthetic import SyntheticClip
from tests.helpers.models import frames_of_a_clip, loaded
from tools.fp16_emulation import emulate_fp16

MAX_LOST = 0.005
"""Largest loss of J&F on held-out clips."""

CLIPS = 5


@pytest.fixture(scope="module")
def clips() -> list[SyntheticClip]:
    return list(islice(heldout_clips(CLIPS), CLIPS))


@pytest.fixture(scope="module")
def full_score(nano_bundle: Bundle, clips: list[SyntheticClip]) -> float:
    return score(VideoTracker(nano_bundle, threads=1), clips)


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(
        load_model("nano"),
        tmp_path_factory.mktemp("half") / "fp16",
        ExportOptions(precision="fp16", memory_rounding="none"),
    )


def score(tracker: VideoTracker, clips: list[SyntheticClip]) -> float:
    return summary(list(scores(clips, "click", tracker)))["j_and_f"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mixed", "fp16"])
def test_float16_loses_no_object(
    mode: PrecisionMode,
    nano_bundle: Bundle,
    half_bundle: Bundle,
    full_score: float,
    clips: list[SyntheticClip],
    tmp_path: Path,
) -> None:
    halves = [g for g, p in PRECISION_MODES["tensorrt"][mode].items() if p == "fp16"]
    emulated = {g: emulate_fp16(onnx.load(half_bundle.graph_path(g))) for g in halves}
    tried = trial_bundle(nano_bundle, tmp_path, emulated)

    for graph in halves:
        types = {t.data_type for t in onnx.load(tried.graph_path(graph)).graph.initializer}
        assert onnx.TensorProto.FLOAT16 not in types  # a CPU would compute those in float32
    assert full_score - score(VideoTracker(tried, threads=1), clips) <= MAX_LOST


def test_float16_is_calibrated_with_recorded_inputs(
    small_model: Sam2VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Feeds] = []
    plain = precision_module.overflowing_nodes

    def watched(model: onnx.ModelProto, inputs: Iterable[Feeds]) -> set[str]:
        seen.extend(kept := list(inputs))
        return plain(model, kept)

    monkeypatch.setattr(precision_module, "overflowing_nodes", watched)
    source = frames_of_a_clip(tmp_path / "camera")
    bundle = export_bundle(
        loaded(small_model),
        tmp_path / "fp16",
        ExportOptions(precision="fp16", calibration=Calibration(source, frames=16)),
    )
    for graph, entry in bundle.manifest.graphs.items():
        assert entry.precision == "fp16", graph
        assert entry.calibration is not None
        assert (entry.calibration.source, len(entry.calibration.frames)) == ("camera", 16)
        assert (entry.calibration.method, entry.calibration.ranges) == (None, {})
    assert any(feeds["memory"].shape[0] == 7 for feeds in seen if "memory" in feeds)
    VideoTracker(bundle).track(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("precision", "calibration", "message"),
    [
        ("int8", None, "int8 needs frames to calibrate with; give --calibrate"),
        ("fp32", Calibration("clip"), "fp32 is not calibrated; leave out --calibrate"),
        ("fp16", Calibration("clip", budget=0.005), "a budget is for int8, not for fp16"),
        ("int8", Calibration("clip", budget=5), "a budget of 5 of J&F; give 0 to 1"),
    ],
)
def test_calibration_that_does_not_match_the_precision_is_refused(
    precision: PrecisionMode, calibration: Calibration | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        ExportOptions(precision=precision, calibration=calibration)
