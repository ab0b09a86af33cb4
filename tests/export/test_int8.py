"""INT8 in the export: sensitivity of layers, the budget, and what a bundle records."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import onnx
import pytest
from transformers import Sam2VideoModel

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.qdq import quantizable_layers
from sam2_edge.calibration.ranges import collect_ranges
from sam2_edge.export.int8_search import layer_errors, plan_int8
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import Calibration, ExportOptions
from tests.helpers.models import frames_of_a_clip, loaded

TRIAL = re.compile(r"J&F ([\d.]+) \(([\d.]+)\) with (\d+) layers in float")


def test_the_most_sensitive_layer_comes_first(
    encoder: onnx.ModelProto, calibration_frames: CalibrationFrames
) -> None:
    names = quantizable_layers(encoder)[2:8]
    ranges = collect_ranges(encoder, calibration_frames, "minmax")
    wide = {n.name: n.input[0] for n in encoder.graph.node}[names[4]]
    ranges[wide] = tuple(300 * limit for limit in ranges[wide])

    errors = layer_errors(encoder, ranges, names, islice(calibration_frames, 2), "gpu")

    assert set(errors) == set(names)
    assert next(iter(errors)) == names[4]
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert 0 < min(errors.values()) < 0.05 < max(errors.values())


@pytest.mark.parametrize("budget", [0.5, 0.01])
def test_layers_stay_in_float_until_the_budget_is_met(
    budget: float, nano_bundle: Bundle, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    frames = collect_frames(frames_of_a_clip(tmp_path / "data"), kept, size=256, count=16)

    steps: list[str] = []

    plan = plan_int8(
        nano_bundle,
        frames,
        method="minmax",
        target="cpu",
        budget=budget,
        clips=2,
        on_progress=steps.append,
    )

    found = [TRIAL.fullmatch(step) for step in steps]
    trials = [(float(m[2]) - float(m[1]), int(m[3])) for m in found if m]
    *missed, (lost, count) = trials
    assert lost <= budget + 1e-4  # rounded for display
    assert all(lost > budget - 1e-4 for lost, _ in missed)
    assert [n for _, n in trials] == [0, 1, 2, 4, 8, 16, 32][: len(trials)]
    assert plan.left_out == tuple(islice(plan.errors, count))
    assert set(plan.layers).isdisjoint(plan.left_out)
    assert budget < 0.5 or not missed


def test_an_int8_bundle_records_its_calibration(
    small_model: Sam2VideoModel, tmp_path: Path
) -> None:
    source = frames_of_a_clip(tmp_path / "camera")
    bundle = export_bundle(
        loaded(small_model),
        tmp_path / "int8",
        ExportOptions(precision="int8", calibration=Calibration(source, "percentile", frames=16)),
    )
    precisions = {g: e.precision for g, e in bundle.manifest.graphs.items()}
    assert precisions[Graph.IMAGE_ENCODER] == "int8"
    assert set(precisions.values()) == {"int8", "fp32"}
    entry = bundle.manifest.graphs[Graph.IMAGE_ENCODER].calibration
    assert entry is not None
    assert (entry.source, entry.method, entry.frames) == ("camera", "percentile", tuple(range(16)))
    assert len(entry.ranges) > 10
    assert all(least < most for least, most in entry.ranges.values())
