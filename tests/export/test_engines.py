"""TensorRT engines of every graph, built by TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save_model
from transformers import Sam2VideoModel

from sam2_edge import BackendError, Bundle, ExportError, load_bundle
from sam2_edge.bundle.contract import Geometry, Graph, Precision, graph_specs
from sam2_edge.calibration.frames import collect_frames
from sam2_edge.export.int8_search import plan_int8
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import (
    PRECISION_MODES,
    Calibration,
    ExportOptions,
    PrecisionMode,
    convert_to_fp16,
    convert_to_int8,
)
from sam2_edge.export.tensorrt.builder import EngineRequest, build_engine
from sam2_edge.export.tensorrt.bundle import (
    EngineOptions,
    build_engines,
    check_engine_options,
    engine_profile,
    engine_shapes,
)
from sam2_edge.export.validate import check_structure, example_feeds
from sam2_edge.models.checkpoints import load_model
from sam2_edge.runtime.backends.cuda.driver import device_info
from tests.helpers.models import frames_of_a_clip, loaded

RTX = EngineOptions("tensorrt-rtx", ((8, 6),))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", PRECISION_MODES["gpu"])
def test_every_graph_of_nano_becomes_an_engine(mode: PrecisionMode, tmp_path: Path) -> None:
    calibration = None
    if mode == "int8":
        calibration = Calibration(frames_of_a_clip(tmp_path / "data"), frames=16)
    graphs = export_bundle(
        load_model("nano"),
        tmp_path / "onnx",
        ExportOptions(precision=mode, target="gpu", calibration=calibration),
    )
    steps: list[tuple[Graph, str]] = []

    engines = build_engines(
        graphs,
        tmp_path / "engines",
        RTX,
        on_progress=lambda graph, step: steps.append((graph, step)),
    )

    for graph, entry in engines.manifest.graphs.items():
        assert entry.backend == "tensorrt-rtx"
        assert entry.precision == PRECISION_MODES["gpu"][mode][graph]
        assert entry.engine is not None
        assert entry.engine.compute_capabilities == ((8, 6),)
        assert engines.graph_path(graph).stat().st_size > 100_000
        assert (graph, "done") in steps
    assert {g: e.parity for g, e in engines.manifest.graphs.items()} == {
        g: e.parity for g, e in graphs.manifest.graphs.items()
    }
    assert {p.name for p in tmp_path.iterdir()} - {"data"} == {"onnx", "engines"}


@pytest.mark.parametrize("mode", ["fp32", "fp16"])
def test_memory_attention_with_fewer_tokens_becomes_an_engine(
    mode: PrecisionMode, small_model: Sam2VideoModel, tmp_path: Path
) -> None:
    graphs = export_bundle(
        loaded(small_model),
        tmp_path / "onnx",
        ExportOptions(precision=mode, target="gpu", memory_tokens=24),
    )
    engines = build_engines(graphs, tmp_path / "engines", RTX)
    assert engines.manifest.geometry.memory_tokens == 24
    entry = engines.manifest.graphs[Graph.MEMORY_ATTENTION]
    assert entry.engine is not None
    assert entry.engine.profile["M"] == (1, 7, 10)
    assert entry.inputs[-1].axes == ("M", "B", 24)


def test_the_packed_graphs_of_the_bundled_model_become_engines(tmp_path: Path) -> None:
    engines = build_engines(load_bundle("nano"), tmp_path / "engines", RTX)
    assert all(e.engine and not e.data for e in engines.manifest.graphs.values())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SAM 2.1 tiny at 1024 pixels."""
    loaded = load_model("sam2.1-hiera-tiny", random_seed=1)
    return export_bundle(loaded, tmp_path_factory.mktemp("tiny") / "fp32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "precision"),
    sorted({pair for precisions in PRECISION_MODES["gpu"].values() for pair in precisions.items()}),
)
def test_every_graph_of_real_size_becomes_an_engine(
    graph: Graph, precision: Precision, tiny: Bundle, tmp_path: Path
) -> None:
    geometry, path = tiny.manifest.geometry, tmp_path / f"{graph.value}.onnx"
    spec = graph_specs(geometry)[graph]
    for file in tiny.path.glob(f"{path.name}*"):
        shutil.copy2(file, tmp_path)
    inputs = example_feeds(spec, geometry)
    if precision == "fp16":
        convert_to_fp16(path, inputs)
    if precision == "int8":
        source = frames_of_a_clip(tmp_path / "data")
        frames = collect_frames(source, tmp_path, size=geometry.image_size, count=16)
        plan = plan_int8(tiny, frames, method="minmax", target="gpu", budget=None)
        convert_to_int8(path, plan, "tensorrt", inputs[:1])
    check_structure(path, spec)
    profile = engine_profile(geometry, RTX)

    engine = build_engine(
        EngineRequest(
            graph=path,
            engine=path.with_suffix(".engine"),
            variant="tensorrt-rtx",
            compute_capabilities=((8, 6),),
            profile=profile,
            shapes=engine_shapes(spec, profile),
            timing_cache=tmp_path / "cache",
        ),
        lambda _: None,
    )

    assert engine.compute_capabilities == ((8, 6),)
    weights = sum(p.stat().st_size for p in tiny.path.glob(f"{path.name}*"))
    share = path.with_suffix(".engine").stat().st_size / weights
    assert share > {"fp32": 0.9, "fp16": 0.45, "int8": 0.22}[precision]


def test_the_profile_covers_a_filling_bank_and_more_conditioning_frames() -> None:
    geometry = Geometry(256)
    profile = engine_profile(geometry, RTX)
    assert profile == {"M": (1, 7, 10), "P": (1, 16, 19), "B": (1, 1, 8), "N": (1, 1, 16)}
    shapes = engine_shapes(graph_specs(geometry)[Graph.MEMORY_ATTENTION], profile)
    assert shapes["memory"] == (
        (1, 1, 64, 16, 16),
        (7, 1, 64, 16, 16),
        (10, 8, 64, 16, 16),
    )


def request(path: Path, shape: tuple[int, ...]) -> EngineRequest:
    return EngineRequest(
        graph=path,
        engine=path.with_suffix(".engine"),
        variant="tensorrt-rtx",
        compute_capabilities=((8, 6),),
        profile={},
        shapes={"x": (shape, shape, shape)},
        timing_cache=path.parent / "cache",
    )


def write(path: Path, *, domain: str, operator: str, output: tuple[int | str, ...]) -> Path:
    """One operator on x [1,4,64] three times, or once."""
    inputs = ["x"] * (3 if domain else 1)
    attributes = {"num_heads": 4} if domain else {}
    node = helper.make_node(operator, inputs, ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 64))],
        [helper.make_tensor_value_info("y", TensorProto.INT64, output)]
        if not domain
        else [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    save_model(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_a_crash_of_the_builder_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "g.onnx",
        domain="com.microsoft",
        operator="MultiHeadAttention",
        output=(1, 4, 64),
    )
    with pytest.raises(
        ExportError, match=r"g\.onnx was not built: the builder was ended by signal"
    ):
        build_engine(request(path, (1, 4, 64)), lambda _now: None)
    assert not (tmp_path / "g.engine").exists()


def test_a_graph_that_tensorrt_refuses_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(
        ExportError, match=r"tensorrt-rtx engine of g\.onnx was not built: Could not parse"
    ):
        build_engine(request(path, (1, 4, 64)), lambda _now: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions("tensorrt-rtx", ((8, 7),)), "cannot build for SM87; it knows SM75, SM80"),
        (
            EngineOptions("tensorrt-rtx", ((8, 6),), max_objects=0),
            "max_objects is 0; give 1 or more",
        ),
    ],
)
def test_impossible_engine_options_are_refused(options: EngineOptions, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_engine_options(options)


def test_without_a_gpu_the_target_gpus_must_be_named() -> None:
    try:
        device_info()
    except BackendError:
        with pytest.raises(ExportError, match=r"name the GPUs to build for: --compute-capability"):
            check_engine_options(EngineOptions("tensorrt-rtx"))
    else:
        check_engine_options(EngineOptions("tensorrt-rtx"))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="it is installed")
def test_missing_classic_tensorrt_is_reported_with_a_remedy() -> None:
    with pytest.raises(BackendError, match="tensorrt cannot be imported .* comes with JetPack"):
        check_engine_options(EngineOptions("tensorrt"))
