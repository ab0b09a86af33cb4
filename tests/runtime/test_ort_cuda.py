"""ONNX Runtime's CUDA provider, with a stand-in for it on the late device."""

from __future__ import annotations

import logging
import sys

import numpy as np
import onnxruntime as ort
import pytest

from sam2_edge import BackendError, Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import open_backend, ort_cuda
from sam2_edge.runtime.backends.ort_cuda import MAX_BINDINGS, MAX_GRAPHS, WARM_RUNS
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.onnxruntime import CudaProvider


@pytest.fixture
def provider(late_device: LateDevice, monkeypatch: pytest.MonkeyPatch) -> CudaProvider:
    provider = CudaProvider(late_device)
    provider.install(monkeypatch)
    return provider


def a_mask(bundle: Bundle, seed: int = 0) -> np.ndarray:
    size = bundle.manifest.image_size
    return np.random.default_rng(seed).random((1, 1, size, size), np.float32).round()


def prompt_mask(backend, bundle: Bundle, seed: int = 0) -> np.ndarray:
    mask = backend.upload(a_mask(bundle, seed))
    return backend.download(backend.run(Graph.MASK_PROMPT, {"mask": mask})["mask_logits"])


def test_libraries_that_are_not_found_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: sys.stdout.write("Failed"), raising=False)
    ort_cuda._load_libraries.__wrapped__()
    assert capsys.readouterr().out == ""


def test_runs_do_not_wait_and_reuse_their_bindings(
    provider: CudaProvider, full_bundle: Bundle
) -> None:
    cpu = open_backend(full_bundle, "cpu")
    with open_backend(full_bundle, "cuda") as backend:
        wanted = [prompt_mask(cpu, full_bundle, seed) for seed in range(9)]
        with provider.device.counting() as counted:
            got = [prompt_mask(backend, full_bundle, seed) for seed in range(9)]
        np.testing.assert_array_equal(got, wanted)
        assert (counted["runs"], counted["waits"]) == (9, 9)  # those of the downloads
        assert provider.bindings == 1
        assert provider.captured(Graph.MASK_PROMPT.value) == 1
    provider.device.check()
    assert provider.device.counts.device_blocks == provider.device.counts.streams == 0


def test_options_of_the_provider(provider: CudaProvider, full_bundle: Bundle) -> None:
    open_backend(full_bundle, "cuda").close()
    assert len(provider.settings) == len(full_bundle.manifest.graphs)
    for settings in provider.settings:
        assert settings["use_tf32"] == "0"
        assert settings["cudnn_conv_algo_search"] == "HEURISTIC"
        assert settings["enable_cuda_graph"] == "1"


def test_a_graph_is_replayed_only_with_the_addresses_of_its_capture(
    provider: CudaProvider, full_bundle: Bundle
) -> None:
    cpu = open_backend(full_bundle, "cpu")
    with open_backend(full_bundle, "cuda") as backend:
        masks = [a_mask(full_bundle, seed) for seed in range(3)]
        tensors = [backend.upload(mask) for mask in masks]
        targets = [backend.empty((1, 1, *2 * [masks[0].shape[-1] // 4])) for _ in masks]
        for _ in range(2 * WARM_RUNS + 1):
            for mask, tensor, target in zip(masks, tensors, targets, strict=True):
                backend.run(Graph.MASK_PROMPT, {"mask": tensor}, {"mask_input": target})
                want = cpu.run(Graph.MASK_PROMPT, {"mask": mask})["mask_input"]
                np.testing.assert_array_equal(backend.download(target), want)
        assert provider.captured(Graph.MASK_PROMPT.value) == 3


def test_bindings_and_graphs_are_bounded(provider: CudaProvider, full_bundle: Bundle) -> None:
    with open_backend(full_bundle, "cuda") as backend:
        tensors = [backend.upload(a_mask(full_bundle)) for _ in range(MAX_BINDINGS + 8)]
        for _ in range(WARM_RUNS + 2):
            for tensor in tensors[: MAX_GRAPHS + 4]:
                backend.run(Graph.MASK_PROMPT, {"mask": tensor})
        assert provider.captured(Graph.MASK_PROMPT.value) == MAX_GRAPHS
        for tensor in tensors:
            backend.run(Graph.MASK_PROMPT, {"mask": tensor})
        assert len(backend._sessions[Graph.MASK_PROMPT]._bindings) == MAX_BINDINGS
        before = provider.bindings
        backend.run(Graph.MASK_PROMPT, {"mask": tensors[0]})
        assert provider.bindings == before  # those with graphs stay


@pytest.mark.parametrize("fault", ["refuses_graphs", "fails_to_capture"])
def test_it_runs_without_cuda_graphs_where_they_are_refused(
    provider: CudaProvider, full_bundle: Bundle, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    setattr(provider, fault, True)
    with caplog.at_level(logging.WARNING), open_backend(full_bundle, "cuda") as backend:
        wanted = prompt_mask(open_backend(full_bundle, "cpu"), full_bundle)
        for _ in range(WARM_RUNS + 4):
            np.testing.assert_array_equal(prompt_mask(backend, full_bundle), wanted)
    assert provider.settings[-1]["enable_cuda_graph"] == "0"
    warnings = [r.getMessage() for r in caplog.records if "without CUDA graphs" in r.getMessage()]
    assert len(warnings) == (fault == "fails_to_capture")
    provider.device.check()


def test_libraries_of_pip_are_loaded_before_the_first_session(
    provider: CudaProvider,
    full_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sessions_at_call = []

    def preload() -> None:
        print("Failed to load libcudnn.so.9")  # noqa: T201 # as ONNX Runtime does
        sessions_at_call.append(len(provider.settings))

    monkeypatch.setattr(ort, "preload_dlls", preload, raising=False)
    ort_cuda._load_libraries.cache_clear()
    for _ in range(2):
        open_backend(full_bundle, "cuda").close()
    assert sessions_at_call == [0]
    assert capsys.readouterr().out == ""  # which is for results


def test_a_provider_that_does_not_start_is_an_error(
    provider: CudaProvider, full_bundle: Bundle
) -> None:
    provider.starts = False
    with pytest.raises(BackendError, match="did not start"):
        open_backend(full_bundle, "cuda")
    assert provider.device.counts.streams == 0


def test_a_failing_run_names_graph_and_shapes(
    provider: CudaProvider, full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_backend(full_bundle, "cuda") as backend:
        monkeypatch.setattr(provider.device, "enqueue", lambda *_: False)
        with pytest.raises(BackendError, match=r"mask_prompt failed on mask \(1, 1, "):
            prompt_mask(backend, full_bundle)
