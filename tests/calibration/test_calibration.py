"""INT8: what is quantized, with which ranges, from which frames."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from transformers import Sam2VideoModel

from sam2_edge import Bundle, ExportError, SourceError, VideoTracker
from sam2_edge.bundle.contract import Feeds, Graph, graph_specs
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.qdq import RECIPES, QdqTarget, quantizable_layers, quantize_model
from sam2_edge.calibration.ranges import METHODS, OPERATORS, Method, collect_ranges
from sam2_edge.calibration.recording import record_inputs
from sam2_edge.export import precision
from sam2_edge.export.int8_search import layer_errors, plan_int8
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import Calibration, ExportOptions, PrecisionMode
from tests.helpers.models import IMAGE_SIZE, frames_of_a_clip, loaded


@pytest.fixture
def encoder(full_bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(full_bundle.graph_path(Graph.IMAGE_ENCODER))


@pytest.fixture
def frames(tmp_path: Path) -> CalibrationFrames:
    kept = tmp_path / "kept"
    kept.mkdir()
    return collect_frames(
        frames_of_a_clip(tmp_path / "data", frames=20), kept, size=IMAGE_SIZE, count=16
    )


def test_frames_are_as_the_encoder_sees_them_and_numbered(frames: CalibrationFrames) -> None:
    inputs = list(frames)
    assert frames.source == "data"
    assert frames.numbers == tuple(range(16))
    assert {(x["image"].shape, x["image"].dtype.name) for x in inputs} == {
        ((1, IMAGE_SIZE, IMAGE_SIZE, 3), "uint8")
    }
    assert np.any(inputs[0]["image"] != inputs[15]["image"])


def test_frames_are_taken_evenly(tmp_path: Path) -> None:
    folder = frames_of_a_clip(tmp_path / "data", frames=49)
    found = collect_frames(folder, tmp_path, size=64, count=16)
    assert found.numbers == tuple(range(0, 48, 3))


def test_too_few_frames_and_frames_of_one_color_are_refused(tmp_path: Path) -> None:
    folder = frames_of_a_clip(tmp_path / "data", frames=16)
    with pytest.raises(SourceError, match="8 calibration frames; give 16 or more"):
        collect_frames(folder, tmp_path, size=64, count=8)
    cv2.imwrite(str(folder / "000.png"), np.full((50, 50, 3), 7, np.uint8))
    with pytest.raises(SourceError, match=r"15 frames .*\(1 more are of one color\), 16 are"):
        collect_frames(folder, tmp_path, size=64, count=16)


def test_layers_with_weights_are_quantized_but_for_the_first_and_last(
    encoder: onnx.ModelProto,
) -> None:
    names = quantizable_layers(encoder)
    nodes = {n.name: n for n in encoder.graph.node}
    weights = {t.name for t in encoder.graph.initializer}
    assert len(names) > 20
    assert all(nodes[n].op_type in OPERATORS and nodes[n].input[1] in weights for n in names)
    first = next(n for n in encoder.graph.node if n.op_type == "Conv")
    assert first.name not in names
    weighted = [n for n in nodes.values() if n.op_type in OPERATORS and n.input[1] in weights]
    assert weighted[-1].name not in names


@pytest.mark.parametrize("method", METHODS)
def test_ranges_hold_what_was_seen(
    method: Method, encoder: onnx.ModelProto, frames: CalibrationFrames
) -> None:
    node = next(n for n in encoder.graph.node if n.name == quantizable_layers(encoder)[3])
    name = node.input[0]
    watched = onnx.ModelProto()
    watched.CopyFrom(encoder)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = ort.InferenceSession(watched.SerializeToString())
    seen = np.concatenate([session.run([name], dict(f))[0].ravel() for f in frames])

    least, most = collect_ranges(encoder, frames, method)[name]

    if method == "minmax":
        assert (least, most) == pytest.approx((seen.min(), seen.max()), rel=1e-5)
    assert ((seen >= least) & (seen <= most)).mean() > (1.0 - 1e-9 if method == "minmax" else 0.98)
    assert max(-least, most) <= np.abs(seen).max() * 1.01


@pytest.mark.parametrize("target", RECIPES)
def test_a_quantized_graph_is_near_the_float_one(
    target: QdqTarget, encoder: onnx.ModelProto, frames: CalibrationFrames
) -> None:
    names = quantizable_layers(encoder)
    made = quantize_model(encoder, collect_ranges(encoder, frames, "minmax"), names, target)

    onnx.checker.check_model(made, full_check=True)
    feeds = dict(next(iter(frames)))
    wanted = ort.InferenceSession(encoder.SerializeToString()).run(None, feeds)
    got = ort.InferenceSession(made.SerializeToString()).run(None, feeds)
    for a, b in zip(got, wanted, strict=True):
        error = np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))
        assert 1e-4 < error < 0.1
    weights = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert len([t for t in weights if len(t.dims) >= 2]) == len(names)


def test_nothing_changes_where_no_layer_is_quantized(
    encoder: onnx.ModelProto, frames: CalibrationFrames
) -> None:
    made = quantize_model(encoder, collect_ranges(encoder, frames, "minmax"), [], "tensorrt")
    feeds = dict(next(iter(frames)))
    results = [
        ort.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (encoder, made)
    ]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_layer_that_loses_most_comes_first(
    encoder: onnx.ModelProto, frames: CalibrationFrames
) -> None:
    names = quantizable_layers(encoder)[2:8]
    ranges = collect_ranges(encoder, frames, "minmax")
    spoilt = {n.name: n.input[0] for n in encoder.graph.node}[names[4]]
    ranges[spoilt] = tuple(300 * limit for limit in ranges[spoilt])

    errors = layer_errors(encoder, ranges, names, islice(frames, 2), "tensorrt")

    assert set(errors) == set(names)
    assert next(iter(errors)) == names[4]
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert 0 < min(errors.values()) < 0.05 < max(errors.values())


@pytest.mark.parametrize("budget", [0.5, 0.01])
def test_layers_are_left_out_until_masks_are_as_good(
    budget: float, nano_bundle: Bundle, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    frames = collect_frames(frames_of_a_clip(tmp_path / "data"), kept, size=256, count=16)

    plan = plan_int8(nano_bundle, frames, method="minmax", qdq_target="cpu", budget=budget, clips=2)

    *missed, last = plan.trials
    assert plan.reference is not None
    assert plan.reference - last.j_and_f <= budget
    assert all(plan.reference - trial.j_and_f > budget for trial in missed)
    assert [t.left_out for t in plan.trials] == [0, 1, 2, 4, 8, 16, 32][: len(plan.trials)]
    assert plan.left_out == tuple(islice(plan.errors, last.left_out))
    assert set(plan.layers).isdisjoint(plan.left_out)
    assert budget < 0.5 or not missed


def test_an_int8_bundle_says_what_it_was_calibrated_with(
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


def test_every_graph_is_recorded_as_the_tracker_runs_it(
    full_bundle: Bundle, frames: CalibrationFrames, tmp_path: Path
) -> None:
    recording = record_inputs(full_bundle, frames, tmp_path)
    found = {graph: list(recording.inputs(graph)) for graph in Graph}

    for graph, spec in graph_specs(full_bundle.manifest.geometry).items():
        assert found[graph], graph
        for feeds in found[graph]:
            assert {n: x.dtype.name for n, x in feeds.items()} == {
                s.name: s.dtype for s in spec.inputs
            }
            assert all(np.isfinite(x).all() for x in feeds.values())
    attention, decoder = found[Graph.MEMORY_ATTENTION], found[Graph.MASK_DECODER]
    assert attention[0]["memory"].shape[:2] == (1, 2)
    assert attention[-1]["memory"].shape[:2] == (7, 2)
    assert attention[-1]["pointers"].shape[0] == 15  # all that 16 frames leave
    labels = {tuple(feeds["point_labels"].ravel()) for feeds in decoder}
    assert labels == {(1,), (2, 3), (-1,), (1, 0), (-1, -1)}
    assert {int(f["has_mask"][0]) for f in decoder} == {0, 1}
    assert {int(b) for f in found[Graph.MEMORY_ENCODER] for b in f["binarize"]} == {0, 1}


def test_float16_is_calibrated_with_true_inputs(
    small_model: Sam2VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Feeds] = []
    plain = precision.overflowing_nodes

    def watched(model: onnx.ModelProto, inputs: Iterable[Feeds]) -> set[str]:
        seen.extend(kept := list(inputs))
        return plain(model, kept)

    monkeypatch.setattr(precision, "overflowing_nodes", watched)
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


@pytest.fixture
def network_camera(tmp_path: Path) -> Iterator[str]:
    """The URL of a stream of 250 frames, from a server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    writer = cv2.VideoWriter(
        str(folder / "live.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48)
    )
    rng = np.random.default_rng(0)
    for _ in range(250):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live.avi"
        server.shutdown()


def test_frames_come_from_a_camera_by_its_url(network_camera: str, tmp_path: Path) -> None:
    found = collect_frames(network_camera, tmp_path, size=64, count=16)
    assert found.source == network_camera
    assert found.numbers == tuple(range(0, 240, 15))


def test_a_camera_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="97 cannot be opened as a camera; check that it is"):
        collect_frames("97", tmp_path, size=64, count=16)


@pytest.mark.parametrize(
    ("precision", "calibration", "message"),
    [
        ("int8", None, "int8 needs frames to calibrate with; give --calibrate"),
        ("fp32", Calibration("clip"), "fp32 is not calibrated; leave out --calibrate"),
        ("fp16", Calibration("clip", budget=0.005), "a budget is for int8, not for fp16"),
        ("int8", Calibration("clip", budget=5), "a budget of 5 of J&F; give 0 to 1"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(
    precision: PrecisionMode, calibration: Calibration | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        ExportOptions(precision=precision, calibration=calibration)
