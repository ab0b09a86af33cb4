"""What a precision does to masks over whole clips: nano in float16 against nano in float32."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import onnx
import pytest

from sam2_edge import Bundle, VideoTracker
from sam2_edge.evaluation.synthetic import heldout_clips, scores, summary
from sam2_edge.export.int8_search import trial_bundle
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import PRECISION_MODES, ExportOptions, PrecisionMode
from sam2_edge.models.checkpoints import load_model
from sam2_edge.synthetic import SyntheticClip
from tools.fp16_emulation import emulate_fp16

MAX_LOST = 0.005
"""J&F that a policy may cost on held-out clips."""

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
@pytest.mark.parametrize("policy", ["mixed", "fp16"])
def test_float16_loses_no_object(
    policy: PrecisionMode,
    nano_bundle: Bundle,
    half_bundle: Bundle,
    full_score: float,
    clips: list[SyntheticClip],
    tmp_path: Path,
) -> None:
    halves = [g for g, p in PRECISION_MODES["tensorrt"][policy].items() if p == "fp16"]
    emulated = {g: emulate_fp16(onnx.load(half_bundle.graph_path(g))) for g in halves}
    tried = trial_bundle(nano_bundle, tmp_path, emulated)

    for graph in halves:
        types = {t.data_type for t in onnx.load(tried.graph_path(graph)).graph.initializer}
        assert onnx.TensorProto.FLOAT16 not in types  # a CPU would compute those in float32
    assert full_score - score(VideoTracker(tried, threads=1), clips) <= MAX_LOST
