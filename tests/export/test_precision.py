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
from sam2_edge.bundle.contract import (
    FeatureDtype,
    Feeds,
    Graph,
    GraphTarget,
    MemoryRounding,
    graph_specs,
)
from sam2_edge.evaluation.synthetic import heldout_clips, scores, summary
from sam2_edge.export import precision as precision_module
from sam2_edge.export.fp16 import tensor_types
from sam2_edge.export.int8_search import trial_bundle
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import (
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


def score(tracker: VideoTracker, clips: list[SyntheticClip]) -> float:
    return summary(list(scores(clips, "click", tracker)))["j_and_f"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mixed", "fp16"])
def test_float16_loses_no_object(
    mode: PrecisionMode,
    nano_bundle: Bundle,
    full_score: float,
    clips: list[SyntheticClip],
    tmp_path: Path,
) -> None:
    options = ExportOptions(precision=mode, target="gpu")
    half_bundle = export_bundle(load_model("nano"), tmp_path / mode, options)
    emulated = {g: emulate_fp16(onnx.load(half_bundle.graph_path(g))) for g in Graph}
    (tmp_path / "tried").mkdir()
    tried = trial_bundle(nano_bundle, tmp_path / "tried", emulated)

    for graph in Graph:
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
        ExportOptions(precision="fp16", target="gpu", calibration=Calibration(source, frames=16)),
    )
    for graph, entry in bundle.manifest.graphs.items():
        assert entry.precision == "fp16", graph
        assert entry.calibration is not None
        assert (entry.calibration.source, len(entry.calibration.frames)) == ("camera", 16)
        assert (entry.calibration.method, entry.calibration.ranges) == (None, {})
    assert any("row_weights" in feeds for feeds in seen)  # seeded: it runs on GPUs only
    assert any(len(feeds["memory_rows"]) == 7 for feeds in seen if "memory_rows" in feeds)
    VideoTracker(bundle).track(np.zeros((64, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def half_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Every graph in float16, for a GPU."""
    target = tmp_path_factory.mktemp("half") / "fp16"
    return export_bundle(loaded(small_model), target, ExportOptions(precision="fp16", target="gpu"))


def test_graphs_for_a_gpu_pass_float16_on(half_bundle: Bundle) -> None:
    manifest = half_bundle.manifest
    assert (manifest.target, manifest.feature_dtype) == ("gpu", "float16")
    assert manifest.memory.rounding == "none"  # float16 is finer than bfloat16
    passed = {"high_res_0", "high_res_1", "embedding", "unconditioned", "conditioned", "memory"}
    for graph, spec in graph_specs(manifest.geometry).items():
        halves = {t.name for t in (*spec.inputs, *spec.outputs) if t.dtype == "float16"}
        assert halves == {t.name for t in (*spec.inputs, *spec.outputs)} & passed
        nodes = onnx.load(half_bundle.graph_path(graph)).graph.node
        cast = {n.input[0] for n in nodes if n.op_type == "Cast"}
        cast |= {n.output[0] for n in nodes if n.op_type == "Cast"}
        assert cast.isdisjoint(halves), graph


def test_float16_graphs_have_nothing_that_capability_7_5_lacks(half_bundle: Bundle) -> None:
    """TensorRT builds no float32 products for it, and no bfloat16."""
    for graph in Graph:
        model = onnx.shape_inference.infer_shapes(onnx.load(half_bundle.graph_path(graph)))
        types = tensor_types(model.graph)
        products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
        for node in products:
            assert {types[name] for name in node.input} == {onnx.TensorProto.FLOAT16}, node.name
        assert onnx.TensorProto.BFLOAT16 not in types.values()


@pytest.mark.parametrize(
    ("target", "precision", "dtype", "rounding"),
    [
        ("cpu", "fp16", "float32", "bfloat16"),
        ("gpu", "fp32", "float32", "bfloat16"),
        ("gpu", "mixed", "float16", "none"),
        ("gpu", "fp16", "float16", "none"),
    ],
)
def test_only_float16_on_a_gpu_changes_what_graphs_pass_on(
    target: GraphTarget, precision: PrecisionMode, dtype: FeatureDtype, rounding: MemoryRounding
) -> None:
    options = ExportOptions(precision=precision, target=target)
    assert (options.feature_dtype, options.rounding) == (dtype, rounding)


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
