"""Engines are checked on the device: right after the build, or when a bundle is first opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import pytest

from sam2_edge import BackendError, Bundle, ExportError, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.bundle.storage import file_entry
from sam2_edge.export.tensorrt import bundle as engine_bundle
from sam2_edge.export.tensorrt.builder import EngineRequest
from sam2_edge.export.tensorrt.options import EngineOptions
from sam2_edge.export.tensorrt.reference import write_references
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.backends.engine_check import REFERENCE_FILE
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from tests.helpers.engines import VERSION, as_engines
from tests.helpers.faulty_engines import Fault, spoil
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.tensorrt import Module

FAULTS: tuple[Fault, ...] = ("other sizes", "rows differ")


@pytest.fixture
def classic(late_device: LateDevice, monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module(late_device, rtx=False)
    module.install(monkeypatch)
    return module


@pytest.fixture(scope="module")
def references(full_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of reference outputs for the profiles of `engines`."""
    path = tmp_path_factory.mktemp("references") / REFERENCE_FILE
    engines = as_engines(full_bundle, objects=3)
    profiles = {g: e.engine.profile for g, e in engines.manifest.graphs.items() if e.engine}
    write_references(full_bundle, profiles, path)
    return path


Engines = Callable[[TensorRtVariant], Bundle]


@pytest.fixture
def engines(full_bundle: Bundle, references: Path, tmp_path: Path) -> Engines:
    """A bundle of engines that were built elsewhere."""
    folder = Path(shutil.copytree(full_bundle.path, tmp_path / "bundle"))
    shutil.copy(references, folder)

    def of(variant: TensorRtVariant) -> Bundle:
        manifest = as_engines(full_bundle, variant, objects=3).manifest
        reference = file_entry(folder, REFERENCE_FILE)
        return Bundle(folder, manifest.model_copy(update={"reference": reference}))

    return of


@pytest.mark.parametrize("variant", ["tensorrt", "tensorrt-rtx"])
def test_the_engines_of_another_machine_are_checked_once(
    variant: TensorRtVariant,
    engines: Engines,
    late_device: LateDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Module(late_device, rtx=variant == "tensorrt-rtx").install(monkeypatch)
    bundle = engines(variant)
    with late_device.counting() as first, open_backend(bundle):
        pass
    with late_device.counting() as second, open_backend(bundle):
        pass
    assert first["runs"] > 15
    assert second["runs"] == 0
    assert len(list((bundle.path.parent / "bundle.checked").iterdir())) == 1


def test_other_engines_or_another_gpu_are_checked_again(
    engines: Engines, classic: Module, late_device: LateDevice
) -> None:
    bundle = engines("tensorrt")
    open_backend(bundle).close()
    late_device.settings.name = b"Another Device"
    with late_device.counting() as again, open_backend(bundle):
        pass
    assert again["runs"] > 15
    assert not classic.contexts


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_computes_wrongly_is_refused_every_time(
    fault: Fault, engines: Engines, classic: Module, late_device: LateDevice
) -> None:
    bundle = engines("tensorrt")
    spoil(bundle.graph_path(Graph.MEMORY_ENCODER), "memory", fault)
    for _ in range(2):
        with pytest.raises(BackendError, match="memory_encoder.* computes wrongly on this GPU"):
            open_backend(bundle)
    assert not (bundle.path.parent / "bundle.checked").exists()
    assert not classic.contexts
    assert late_device.counts.device_bytes == 0


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[Fault]:
    """A builder whose engines are the ONNX files, with the fault that is put into this list."""
    faults: list[Fault] = []

    def build(request: EngineRequest, _on_progress: Callable[[str], None]) -> EngineEntry:
        for file in request.graph.parent.glob(f"{request.graph.name}*"):
            shutil.copy(file, request.engine.with_name(file.name))
        if faults and request.graph.stem == "memory_encoder":
            spoil(request.engine.with_name(request.graph.name), "memory", faults[0])
        request.engine.with_name(request.graph.name).rename(request.engine)
        return EngineEntry(
            variant=request.variant,
            version=VERSION,
            compute_capabilities=((8, 6),),
            profile=request.profile,
        )

    monkeypatch.setattr(engine_bundle, "build_engine", build)
    return faults


@pytest.mark.usefixtures("builder")
def test_engines_are_checked_where_they_are_built(
    full_bundle: Bundle, classic: Module, tmp_path: Path
) -> None:
    target = tmp_path / "engines"
    steps: list[tuple[Graph, str]] = []
    built = engine_bundle.build_engines(
        full_bundle,
        target,
        EngineOptions("tensorrt", max_objects=2),
        on_progress=lambda graph, step: steps.append((graph, step)),
    )
    assert (Graph.MASK_BITS, "checking") in steps
    assert load_bundle(target).manifest.reference == built.manifest.reference
    assert len(list((tmp_path / "engines.checked").iterdir())) == 1
    with classic.device.counting() as counted, open_backend(built):
        pass
    assert counted["runs"] == 0


@pytest.mark.usefixtures("builder")
def test_kernels_that_the_check_compiles_are_kept(
    full_bundle: Bundle,
    late_device: LateDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = Module(late_device, rtx=True)
    module.install(monkeypatch)
    monkeypatch.setattr(module, "ComputeCapability", Enum("Known", ["SM86"]), raising=False)
    before = {path.name for path in tmp_path.iterdir()}
    engine_bundle.build_engines(
        full_bundle, tmp_path / "engines", EngineOptions("tensorrt-rtx", max_objects=1)
    )
    made = {path.name for path in tmp_path.iterdir()} - before
    assert made == {"engines", "engines.checked", "engines.kernels"}
    assert len(list((tmp_path / "engines.kernels").iterdir())) == len(Graph)


def test_engines_for_another_gpu_are_not_checked_here(
    full_bundle: Bundle, builder: list[Fault], classic: Module, tmp_path: Path
) -> None:
    builder.append("rows differ")
    classic.device.settings.minor = 9
    engine_bundle.build_engines(
        full_bundle, tmp_path / "engines", EngineOptions("tensorrt", max_objects=2)
    )
    assert not (tmp_path / "engines.checked").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_left_of_engines_that_compute_wrongly(
    fault: Fault, full_bundle: Bundle, builder: list[Fault], classic: Module, tmp_path: Path
) -> None:
    builder.append(fault)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises((BackendError, ExportError), match="memory_encoder.* computes wrongly"):
        engine_bundle.build_engines(
            full_bundle, tmp_path / "engines", EngineOptions("tensorrt", max_objects=2)
        )
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not classic.contexts
