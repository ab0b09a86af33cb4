"""TensorRT engines of every graph, built by TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, save_model
from transformers import Sam2VideoModel

from sam2_edge import BackendError, Bundle, ExportError, load_bundle
from sam2_edge.bundle.contract import (
    Geometry,
    Graph,
    MemoryRounding,
    Precision,
    graph_specs,
)
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import (
    PRECISION_MODES,
    Calibration,
    ExportOptions,
    PrecisionMode,
)
from sam2_edge.export.tensorrt.builder import EngineRequest, build_engine
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import (
    EngineOptions,
    check_engine_options,
    check_precisions,
)
from sam2_edge.export.tensorrt.profiles import engine_profiles, engine_shapes
from sam2_edge.export.tensorrt.reference import write_references
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.random_init import random_model
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.backends.engine_check import (
    REFERENCE_FILE,
    References,
    check_engine,
    load_references,
)
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from tests.helpers import sam3
from tests.helpers.engines import as_engines
from tests.helpers.models import frames_of_a_clip, loaded
from tests.helpers.once import once_per_run
from tests.helpers.real_engines import RealEngines
from tools.fp16_emulation import emulate_fp16

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
        assert entry.engine.activation_bytes
    assert {g: e.parity for g, e in engines.manifest.graphs.items()} == {
        g: e.parity for g, e in graphs.manifest.graphs.items()
    }
    references = load_references(engines)
    assert references.graphs[Graph.MASK_DECODER].keys() == {"smallest", "largest"}
    assert references.graphs[Graph.MASK_DECODER]["largest"].rows == (0, 7)
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


@pytest.mark.slow
def test_every_graph_of_sam3_becomes_an_engine_with_fused_attention(tmp_path: Path) -> None:
    model = random_model(sam3.small_config(), sam3.SEED)
    graphs = export_bundle(
        loaded(model), tmp_path / "onnx", ExportOptions(precision="fp16", target="gpu")
    )

    engines = build_engines(graphs, tmp_path / "engines", RTX)

    for graph, attentions in ((Graph.IMAGE_ENCODER, 2), (Graph.MEMORY_ATTENTION, 2)):
        content = engines.graph_path(graph).read_bytes()
        assert content.count(b"struct _gemm_mha_v2_params_t ") == attentions


def test_the_packed_graphs_of_the_bundled_model_become_engines(tmp_path: Path) -> None:
    engines = build_engines(load_bundle("nano"), tmp_path / "engines", RTX)
    assert all(e.engine and not e.data for e in engines.manifest.graphs.values())


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealEngines:
    return RealEngines(once_per_run(tmp_path_factory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "graph", "precision"),
    [
        *((1024, graph, "fp16") for graph in Graph),
        *((512, graph, "fp32") for graph in Graph),
        (512, Graph.IMAGE_ENCODER, "int8"),
    ],
)
def test_every_graph_of_real_size_becomes_an_engine(
    size: int, graph: Graph, precision: Precision, real: RealEngines
) -> None:
    path, engine = real.engine(size, graph, precision)

    assert engine.compute_capabilities == ((8, 6),)
    if graph is not Graph.MASK_BITS:  # it has no weights
        whole = real.bundle(512, "fp32").path.glob(f"{graph.value}.onnx*")
        share = path.stat().st_size / sum(file.stat().st_size for file in whole)
        assert share > {"fp32": 0.9, "fp16": 0.45, "int8": 0.22}[precision]


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 1024])
@pytest.mark.parametrize(
    ("graph", "attentions"),
    [
        (Graph.IMAGE_ENCODER, 12),  # one per block: 1 + 2 + 7 + 2
        (Graph.MEMORY_ATTENTION, 8),  # 4 layers, to the image itself and to the memory
        (Graph.MASK_DECODER, 7),  # 2 layers of 3, and the last one
    ],
)
def test_every_attention_is_a_fused_kernel(
    size: int, graph: Graph, attentions: int, real: RealEngines
) -> None:
    path, _ = real.engine(size, graph, "fp16")
    # Once in the source code of each kernel, which engines of TensorRT-RTX contain.
    assert path.read_bytes().count(b"struct _gemm_mha_v2_params_t ") == attentions


@pytest.mark.slow
def test_the_activation_memory_of_a_bundle_stays_in_its_budget(real: RealEngines) -> None:
    sizes = [real.engine(1024, graph, "fp16")[1].activation_bytes for graph in Graph]
    assert all(sizes)
    assert 100 < max(size or 0 for size in sizes) / 2**20 <= 600


@pytest.mark.parametrize(
    ("image_size", "objects", "attended"),
    [(256, 8, 8), (512, 8, 4), (512, 1, 2), (896, 8, 2), (1024, 8, 1), (2048, 8, 1)],
)
def test_memory_attention_takes_as_many_objects_as_its_memory_allows(
    image_size: int, objects: int, attended: int
) -> None:
    options = EngineOptions("tensorrt-rtx", max_objects=objects)
    profiles = engine_profiles(Geometry(image_size), options)
    assert profiles[Graph.MEMORY_ATTENTION]["B"] == (1, 1, attended)


def test_profiles_cover_a_filling_bank_and_more_conditioning_frames() -> None:
    geometry = Geometry(256)
    profiles = engine_profiles(geometry, RTX)
    assert profiles == {
        Graph.IMAGE_ENCODER: {},
        Graph.MEMORY_ATTENTION: {
            "R": (1, 7, 1024),
            "M": (1, 7, 10),
            "B": (1, 1, 8),
            "P": (1, 16, 19),
        },
        Graph.MASK_PROMPT: {"B": (1, 1, 8)},
        Graph.MASK_DECODER: {"B": (1, 1, 8), "N": (1, 1, 16)},
        Graph.MEMORY_ENCODER: {"B": (1, 1, 8)},
        Graph.MASK_BITS: {"B": (1, 1, 4), "H": (1, 720, 4096), "K": (1, 160, 512)},
    }
    spec = graph_specs(geometry)[Graph.MEMORY_ATTENTION]
    shapes = engine_shapes(spec, profiles[Graph.MEMORY_ATTENTION])
    assert shapes["memory"] == ((1, 64, 16, 16), (7, 64, 16, 16), (1024, 64, 16, 16))
    assert shapes["memory_rows"] == ((1, 1), (7, 1), (10, 8))


@pytest.mark.parametrize(
    ("variant", "precisions", "rounding", "message"),
    [
        ("tensorrt-rtx", {"fp16", "fp32"}, "none", "no float32 products for .* 7.5; .* fp16"),
        ("tensorrt-rtx", {"fp16"}, "bfloat16", "rounded to bfloat16, .* --memory-rounding none"),
    ],
)
def test_what_turing_lacks_is_refused_before_long_work(
    variant: TensorRtVariant, precisions: set[Precision], rounding: MemoryRounding, message: str
) -> None:
    options = EngineOptions(variant, ((8, 6), (7, 5)))
    with pytest.raises(ExportError, match=message):
        check_precisions(options, precisions, rounding=rounding)
    check_precisions(EngineOptions(variant, ((8, 6),)), precisions, rounding=rounding)


def test_float16_engines_are_built_for_turing(small_half: Bundle, tmp_path: Path) -> None:
    options = EngineOptions("tensorrt-rtx", ((7, 5),))
    engines = build_engines(small_half, tmp_path / "engines", options)
    assert all(e.engine and e.engine.activation_bytes for e in engines.manifest.graphs.values())


@pytest.fixture(scope="session")
def small_half(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small model in float16, for GPUs."""
    target = tmp_path_factory.mktemp("bundles") / "half"
    return export_bundle(loaded(small_model), target, ExportOptions(precision="fp16", target="gpu"))


def test_the_check_of_engines_leaves_room_for_float16(small_half: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider computes float16 graphs in float32, which engines do not."""
    profiles = engine_profiles(small_half.manifest.geometry, RTX)
    profiles[Graph.MASK_BITS] = {"B": (1, 1, 2), "H": (1, 40, 60), "K": (1, 5, 8)}
    write_references(small_half, profiles, tmp_path / REFERENCE_FILE)
    references = References.model_validate_json((tmp_path / REFERENCE_FILE).read_bytes())
    engines = as_engines(small_half)
    sessions = {}
    for graph, entry in engines.manifest.graphs.items():
        assert entry.engine
        entry.engine.profile.clear()
        entry.engine.profile.update(profiles[graph])
        onnx.save(emulate_fp16(onnx.load(engines.graph_path(graph))), tmp_path / "rounded.onnx")
        sessions[graph] = ort.InferenceSession(tmp_path / "rounded.onnx")

    def run(graph: Graph, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        session = sessions[graph]
        half = {name: x.astype(np.float32) for name, x in inputs.items() if x.dtype == np.float16}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs | half), strict=True))

    for graph in Graph:
        assert check_engine(engines, graph, references, run) < 0.6


def test_graphs_for_cpus_become_engines_with_a_warning(
    small_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_engines(small_bundle, tmp_path / "engines", RTX)
    assert "attention is not fused" in caplog.text
    assert "export with --target cuda" in caplog.text


def test_int8_graphs_for_cpus_are_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    graphs = dict(small_bundle.manifest.graphs)
    graphs[Graph.IMAGE_ENCODER] = graphs[Graph.IMAGE_ENCODER].model_copy(
        update={"precision": "int8"}
    )
    manifest = small_bundle.manifest.model_copy(update={"graphs": graphs})
    with pytest.raises(ExportError, match="INT8 graphs in the form for CPUs"):
        build_engines(Bundle(small_bundle.path, manifest), tmp_path / "engines", RTX)
    assert list(tmp_path.iterdir()) == []


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
