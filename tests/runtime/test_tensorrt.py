"""TensorRT and TensorRT-RTX on the late device: contexts, scratch memory, graphs and kernels."""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sam2_edge import BackendError, Bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.export.validate import example_feeds
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.backends.contexts import MAX_OWN_CONTEXTS, PATIENCE
from sam2_edge.runtime.backends.cuda.commands import WARM_RUNS
from sam2_edge.runtime.backends.cuda.memory import DeviceTensor
from sam2_edge.runtime.backends.tensorrt import TensorRt
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from tests.helpers.engines import as_engines
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.tensorrt import Module

VARIANTS: tuple[TensorRtVariant, ...] = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> TensorRtVariant:
    return request.param


@pytest.fixture
def module(
    late_device: LateDevice, variant: TensorRtVariant, monkeypatch: pytest.MonkeyPatch
) -> Module:
    module = Module(late_device, rtx=variant == "tensorrt-rtx")
    module.install(monkeypatch)
    return module


@pytest.fixture
def engines(full_bundle: Bundle, variant: TensorRtVariant, tmp_path: Path) -> Bundle:
    """In a folder of its own, since kernels are kept beside it."""
    folder = Path(shutil.copytree(full_bundle.path, tmp_path / "bundle"))
    bundle = as_engines(full_bundle, variant, objects=40)
    return Bundle(folder, bundle.manifest)


@pytest.fixture
def backend(module: Module, engines: Bundle) -> Iterator[TensorRt]:
    assert module.contexts is not None
    with TensorRt(engines, "tensorrt-rtx" if module.rtx else "tensorrt") as backend:
        yield backend


def masks(bundle: Bundle, objects: int = 1, seed: int = 0) -> np.ndarray:
    size = bundle.manifest.image_size
    return np.random.default_rng(seed).random((objects, 1, size, size), np.float32).round()


def run(backend: TensorRt, mask: np.ndarray) -> np.ndarray:
    """One frame: an upload, a run and a download."""
    tensors = backend.run(Graph.MASK_PROMPT, {"mask": backend.upload(mask)})
    return backend.download(tensors["mask_logits"])


def test_every_graph_equals_the_cpu(backend: TensorRt, full_bundle: Bundle) -> None:
    cpu = open_backend(full_bundle, "cpu", threads=1)
    geometry = full_bundle.manifest.geometry
    for graph, spec in graph_specs(geometry).items():
        for feeds in example_feeds(spec, geometry):
            got = backend.run(graph, {name: backend.upload(x) for name, x in feeds.items()})
            want = cpu.run(graph, feeds)
            assert list(got) == [output.name for output in spec.outputs]
            for name, tensor in got.items():
                np.testing.assert_array_equal(backend.download(tensor), want[name])


def test_outputs_are_written_where_the_caller_wants(backend: TensorRt, full_bundle: Bundle) -> None:
    low = full_bundle.manifest.geometry.mask_size
    rows = backend.empty((3, 1, low, low))
    mask = backend.upload(masks(full_bundle))
    given = backend.run(Graph.MASK_PROMPT, {"mask": mask}, {"mask_input": rows[1:2]})
    assert given["mask_input"].address == rows[1].address
    want = run_cpu(full_bundle, masks(full_bundle), "mask_input")
    np.testing.assert_array_equal(backend.download(rows)[1:2], want)


def test_tensors_at_addresses_that_tensorrt_refuses_are_copied(
    backend: TensorRt, full_bundle: Bundle
) -> None:
    mask, low = masks(full_bundle), full_bundle.manifest.geometry.mask_size

    def shifted(values: np.ndarray) -> DeviceTensor:
        whole = backend.upload(np.concatenate([[0], values.ravel()]).astype(np.float32))
        return DeviceTensor(whole.address + 4, values.shape, values.dtype, whole.block)

    given, target = shifted(mask), shifted(np.zeros((1, 1, low, low), np.float32))
    found = backend.run(Graph.MASK_PROMPT, {"mask": given}, {"mask_input": target})
    assert found["mask_input"] is target
    wanted = run_cpu(full_bundle, mask, "mask_input")
    np.testing.assert_array_equal(backend.download(target), wanted)


def run_cpu(bundle: Bundle, mask: np.ndarray, output: str = "mask_logits") -> np.ndarray:
    return open_backend(bundle, "cpu", threads=1).run(Graph.MASK_PROMPT, {"mask": mask})[output]


def test_engines_share_scratch_memory_for_the_shapes_in_use(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    assert module.device.counts.device_blocks == 0  # nothing before the first run
    run(backend, masks(full_bundle))
    one = backend._scratch.size
    run(backend, masks(full_bundle, 5))
    assert backend._scratch.size == 5 * one
    run(backend, masks(full_bundle, 2))
    assert backend._scratch.size == 5 * one
    assert {context._scratch[1] for context in module.contexts} <= {0, 5 * one}


def test_graphs_are_dropped_when_scratch_memory_moves(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    wanted = run_cpu(full_bundle, masks(full_bundle))
    for _ in range(WARM_RUNS + 2):
        run(backend, masks(full_bundle))
    captured = module.device.counts.executables
    assert captured == (not module.rtx)
    run(backend, masks(full_bundle, 3))
    assert module.device.counts.executables == 0
    for _ in range(WARM_RUNS + 2):
        np.testing.assert_array_equal(run(backend, masks(full_bundle)), wanted)
    assert module.device.counts.executables == captured


@pytest.mark.parametrize("variant", ["tensorrt-rtx"], indirect=True)
def test_contexts_of_rtx_are_replaced_when_scratch_memory_moves(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    wanted = run_cpu(full_bundle, masks(full_bundle))
    for _ in range(4):
        run(backend, masks(full_bundle))
    used = weakref.WeakSet(context for context in module.contexts if context._streams)
    assert len(used) == 2  # the shared one, and that of the run that repeats
    run(backend, masks(full_bundle, 3))
    assert len(used) == 0
    for _ in range(4):
        np.testing.assert_array_equal(run(backend, masks(full_bundle)), wanted)


def test_scratch_memory_that_does_not_fit_is_an_error_and_smaller_runs_go_on(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    wanted = run_cpu(full_bundle, masks(full_bundle))
    run(backend, masks(full_bundle))
    module.device.settings.memory_bytes = module.device.counts.device_bytes + 2**20
    with pytest.raises(BackendError, match="OUT_OF_MEMORY; the GPU has too little free memory"):
        run(backend, masks(full_bundle, 40))
    np.testing.assert_array_equal(run(backend, masks(full_bundle)), wanted)


@pytest.mark.parametrize("variant", ["tensorrt"], indirect=True)
def test_a_frame_that_repeats_is_one_launch(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    for seed in range(WARM_RUNS + 2):  # scratch memory splits the first frame in two
        run(backend, masks(full_bundle, seed=seed))
    with module.device.counting() as counted:
        got = run(backend, masks(full_bundle, seed=9))
    np.testing.assert_array_equal(got, run_cpu(full_bundle, masks(full_bundle, seed=9)))
    done = {"uploads": 1, "runs": 1, "downloads": 1, "launches": 1, "waits": 1, "enqueues": 0}
    assert {name: counted[name] for name in done} == done


@pytest.mark.parametrize("variant", ["tensorrt"], indirect=True)
def test_a_graph_has_a_context_of_its_own_as_long_as_it_exists(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    shared = len(module.contexts)
    for _ in range(WARM_RUNS + 3):
        run(backend, masks(full_bundle))
    assert len(module.contexts) == shared + 1
    backend.commands.drop_graphs()
    gc.collect()
    assert len(module.contexts) == shared


@pytest.mark.parametrize("variant", ["tensorrt-rtx"], indirect=True)
def test_runs_of_rtx_that_repeat_have_contexts_of_their_own_up_to_a_limit(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    shared = len(module.contexts)
    wanted = run_cpu(full_bundle, masks(full_bundle), "mask_input")
    inputs = [backend.upload(masks(full_bundle)) for _ in range(MAX_OWN_CONTEXTS + 4)]
    low = full_bundle.manifest.geometry.mask_size
    target = backend.empty((1, 1, low, low))

    def round_of_runs() -> None:
        for mask in inputs:
            backend.run(Graph.MASK_PROMPT, {"mask": mask}, {"mask_input": target})
        np.testing.assert_array_equal(backend.download(target), wanted)

    round_of_runs()
    assert len(module.contexts) == shared
    round_of_runs()
    assert len(module.contexts) == shared + MAX_OWN_CONTEXTS
    versions = sorted(context._version for context in module.contexts)
    del inputs[MAX_OWN_CONTEXTS:]
    for _ in range(3):
        round_of_runs()
    assert sorted(context._version for context in module.contexts) == versions
    fresh = backend.upload(masks(full_bundle))
    for mask in [*inputs, *[fresh] * (PATIENCE + 2)]:  # nothing waits for them in between
        backend.run(Graph.MASK_PROMPT, {"mask": mask}, {"mask_input": target})
    np.testing.assert_array_equal(backend.download(target), wanted)
    assert len(module.contexts) == shared + MAX_OWN_CONTEXTS


@pytest.mark.parametrize("variant", ["tensorrt-rtx"], indirect=True)
def test_kernels_are_kept_as_soon_as_they_are_compiled(
    backend: TensorRt, engines: Bundle, full_bundle: Bundle
) -> None:
    folder = engines.path.with_name("bundle.kernels")
    run(backend, masks(full_bundle))
    (file,) = folder.glob("mask_prompt-*")
    assert file.read_text().count("mask") == 1
    saved = file.stat().st_mtime_ns
    for _ in range(8):
        run(backend, masks(full_bundle))
    assert file.stat().st_mtime_ns == saved  # nothing new
    run(backend, masks(full_bundle, 2))
    assert file.read_text().count("mask") == 2
    contexts = backend._runtime.module.contexts
    (kernels,) = {c._config.cache.kernels.add for c in contexts if "mask" in c._shapes}
    kernels("mask, but better")  # compiled in the background
    backend.close()
    assert file.read_text().count("mask") == 3
    with TensorRt(engines, "tensorrt-rtx") as again:
        before = file.stat().st_mtime_ns
        run(again, masks(full_bundle))
    assert file.stat().st_mtime_ns == before


def test_everything_goes_before_the_stream(
    module: Module, engines: Bundle, variant: TensorRtVariant, full_bundle: Bundle
) -> None:
    backend = TensorRt(engines, variant)
    tensors = [run(backend, masks(full_bundle)) for _ in range(WARM_RUNS + 2)]
    held = backend.upload(masks(full_bundle))
    backend.run(Graph.MASK_PROMPT, {"mask": held})  # still queued
    backend.close()
    backend.close()
    gc.collect()
    assert tensors
    counts = module.device.counts.as_dict()
    kinds = ("device_blocks", "host_blocks", "streams", "executables", "graphs")
    assert {kind: counts[kind] for kind in kinds} == dict.fromkeys(kinds, 0)
    assert len(module.contexts) == len(module.engines) == 0
    with pytest.raises(BackendError, match="closed"):
        backend.upload(masks(full_bundle))
    with pytest.raises(BackendError, match="closed"):
        backend.run(Graph.MASK_PROMPT, {"mask": held})


def test_a_process_has_one_logger(
    module: Module, engines: Bundle, variant: TensorRtVariant, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        TensorRt(engines, variant).close()
    first, second = module.loggers
    assert first is second
    with caplog.at_level(logging.DEBUG):
        first.log(module.ILogger.ERROR, "broken")
        first.log(module.ILogger.INFO, "fine")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("ERROR", "broken"),
        ("DEBUG", "fine"),
    ]


def test_a_constructor_that_fails_leaves_nothing(
    module: Module, engines: Bundle, variant: TensorRtVariant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.late_device.tensorrt.RawSession", _fail)
    with pytest.raises(BackendError, match="cannot be loaded by tensorrt"):
        TensorRt(engines, variant)
    gc.collect()
    assert module.device.counts.streams == 0


def _fail(_content: bytes) -> None:
    raise ValueError("not an engine")


def test_a_refused_run_is_an_error(
    backend: TensorRt, full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.helpers.late_device.tensorrt.IExecutionContext.execute_async_v3", lambda *_: False
    )
    with pytest.raises(BackendError, match="mask_prompt failed on the GPU"):
        run(backend, masks(full_bundle))


def test_a_failed_capture_leaves_plain_runs_and_no_graph(
    backend: TensorRt, module: Module, full_bundle: Bundle
) -> None:
    module.device.fail("cuStreamEndCapture", times=100)
    wanted = run_cpu(full_bundle, masks(full_bundle))
    for _ in range(12):
        np.testing.assert_array_equal(run(backend, masks(full_bundle)), wanted)
    counts = module.device.counts
    assert (counts.graphs, counts.executables) == (0, 0)
