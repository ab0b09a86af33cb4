"""One suite for all backends; GPU backends are skipped if there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from sam2_edge import BackendError, Bundle, ExportError, ImageSegmenter, Prompt, VideoTracker
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import EngineOptions, check_engine_options
from sam2_edge.export.validate import example_feeds
from sam2_edge.runtime.backends import Backend, OpenedName, choose_backend, open_backend
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info
from sam2_edge.runtime.backends.cuda.memory import DeviceTensor
from sam2_edge.runtime.backends.tensorrt import check_engine_fits
from tests.helpers.clips import moving_shapes
from tests.helpers.late_device.backends import LATE_NAMES, late_backend

CLICK = (32, 38)
TOLERANCE = 1e-3
"""Relative to the largest value, as between ONNX Runtime and PyTorch."""

NAMES = [
    *(
        pytest.param(name, marks=() if name == "cpu" else pytest.mark.gpu)
        for name in get_args(OpenedName)
    ),
    *(f"late {name}" for name in LATE_NAMES),
]
"""Backends of this machine, and those of a GPU on a stand-in for it."""


@pytest.fixture(params=NAMES)
def opened(
    request: pytest.FixtureRequest,
    full_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Backend, Bundle]]:
    """A backend and the bundle it was opened for."""
    late, name = request.param.startswith("late "), request.param.removeprefix("late ")
    if late:
        device = request.getfixturevalue("late_device")
        bundle = late_backend(name, device, monkeypatch, objects=4).bundle(full_bundle)
    else:
        bundle = _built(full_bundle, name, tmp_path)
    with open_backend(bundle, name) as backend:
        yield backend, bundle


def _built(bundle: Bundle, name: OpenedName, folder: Path) -> Bundle:
    """Return a bundle for a backend of this machine."""
    try:
        if name != "cpu":
            device_info()
        if name.startswith("tensorrt"):
            check_engine_options(EngineOptions(name))
    except (BackendError, ExportError) as error:
        pytest.skip(str(error))
    if name == "cuda" and "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    if name.startswith("tensorrt"):
        return build_engines(bundle, folder / "engines", EngineOptions(name))
    return bundle


@pytest.fixture
def backend(opened: tuple[Backend, Bundle]) -> Backend:
    return opened[0]


def features(full_bundle: Bundle, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    size = full_bundle.manifest.image_size
    image = np.random.default_rng(seed).integers(0, 256, (1, size, size, 3), np.uint8)
    return {"image": image}


def test_every_graph_agrees_with_onnxruntime_on_the_cpu(
    backend: Backend, full_bundle: Bundle
) -> None:
    reference = open_backend(full_bundle, "cpu")
    geometry = full_bundle.manifest.geometry
    for graph, spec in graph_specs(geometry).items():
        for feeds in example_feeds(spec, geometry):
            got = backend.run(graph, {name: backend.upload(x) for name, x in feeds.items()})
            wanted = reference.run(graph, {n: reference.upload(x) for n, x in feeds.items()})
            assert list(got) == [output.name for output in spec.outputs]
            for output in spec.outputs:
                if output.dtype != "float32":
                    continue
                a, b = backend.download(got[output.name]), reference.download(wanted[output.name])
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, atol=TOLERANCE * max(1.0, np.abs(b).max()))


def test_an_output_is_not_reused_while_it_is_held(backend: Backend, full_bundle: Bundle) -> None:
    def run(seed: int):
        image = features(full_bundle, seed)["image"]
        return backend.run(Graph.IMAGE_ENCODER, {"image": backend.upload(image)})["embedding"]

    first = run(0)
    before = backend.download(first)
    others = [run(seed) for seed in range(1, 6)]
    np.testing.assert_array_equal(backend.download(first), before)
    assert np.abs(backend.download(others[-1]) - before).max() > 0


def test_rows_and_prefixes_are_views(backend: Backend) -> None:
    numbers = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    tensor = backend.upload(numbers)
    np.testing.assert_array_equal(backend.download(tensor[:2]), numbers[:2])
    np.testing.assert_array_equal(backend.download(tensor[1:3]), numbers[1:3])
    np.testing.assert_array_equal(backend.download(tensor[3][1]), numbers[3, 1])
    (last,) = np.flatnonzero([False, False, False, True])  # not an int of Python
    np.testing.assert_array_equal(backend.download(tensor[last]), numbers[3])

    backend.copy(backend.upload(np.full(2, 9, np.float32)), tensor[2][0])
    changed = numbers.copy()
    changed[2, 0] = 9
    np.testing.assert_array_equal(backend.download(tensor), changed)


def test_uploads_and_downloads_are_copies(backend: Backend) -> None:
    tensor = backend.empty((3,))
    backend.copy(backend.upload(np.array([1, 2, 3], np.float32)), tensor)
    mine = backend.download(tensor)
    mine[:] = 0
    np.testing.assert_array_equal(backend.download(tensor), [1, 2, 3])


def test_inputs_that_do_not_fit_are_refused(backend: Backend, full_bundle: Bundle) -> None:
    image = features(full_bundle)["image"][:, :-32]
    with pytest.raises(BackendError, match="image_encoder"):
        backend.run(Graph.IMAGE_ENCODER, {"image": backend.upload(image)})


def test_outputs_are_written_to_rows_that_the_caller_gives(
    backend: Backend, full_bundle: Bundle
) -> None:
    geometry = full_bundle.manifest.geometry
    mask = np.zeros((1, 1, geometry.image_size, geometry.image_size), np.float32)
    mask[..., :20, :] = 1
    low = geometry.mask_size
    rows = backend.upload(np.full((3, 1, low, low), 7, np.float32))
    inputs = {"mask": backend.upload(mask)}
    wanted = backend.download(backend.run(Graph.MASK_PROMPT, inputs)["mask_logits"])
    given = backend.run(Graph.MASK_PROMPT, inputs, {"mask_logits": rows[1:2]})
    np.testing.assert_array_equal(backend.download(given["mask_logits"]), wanted)
    got = backend.download(rows)
    np.testing.assert_array_equal(got[1:2], wanted)
    assert (got[[0, 2]] == 7).all()


def test_a_clip_is_tracked_as_on_the_cpu(
    opened: tuple[Backend, Bundle], full_bundle: Bundle
) -> None:
    """Long enough for graphs to be captured in the steady state, which a frame repeats 3 times."""
    backend, bundle = opened
    name = backend.name.removeprefix("onnxruntime-")
    frames = moving_shapes(64).frames
    with VideoTracker(bundle, backend=name) as ours:
        trackers = [ours, VideoTracker(full_bundle, backend="cpu")]
        for index, frame in enumerate(frames):
            logits = []
            for tracker in trackers:
                prompts = [Prompt(2, box=(70, 60, 110, 100))] if index in (6, 44) else []
                found = tracker.track(frame, prompts)
                logits.append([result.logits for result in found.objects])
                if index == 0:
                    tracker.prompt(1, points=[CLICK])
                if index == 54:
                    tracker.remove(1)
            np.testing.assert_allclose(*logits, atol=1e-2)


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_a_gpu_backend_without_engines_or_gpu_is_an_error(
    name: OpenedName, full_bundle: Bundle
) -> None:
    if name == "cuda" and choose_backend(full_bundle) == "cuda":
        pytest.skip("it can run here")
    with pytest.raises(BackendError, match="has no|cannot be imported"):
        open_backend(full_bundle, name)


def test_an_unknown_backend_is_refused(full_bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="no backend 'gpu'; choose one of auto, cpu"):
        ImageSegmenter(full_bundle, backend="gpu")  # type: ignore[arg-type]


def test_onnx_graphs_run_on_the_cpu_without_a_gpu(full_bundle: Bundle) -> None:
    try:
        device_info()
    except BackendError:
        assert choose_backend(full_bundle) == "cpu"


ENTRY = EngineEntry(
    variant="tensorrt-rtx", version="1.7", compute_capabilities=((8, 6),), profile={}
)


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        (
            "1.8",
            (8, 6),
            "x was built with tensorrt-rtx 1.7, but 1.8 is installed; build the engines again",
        ),
        ("1.7", (8, 9), "compute capability 8.6, but card has 8.9; build the engines again"),
    ],
)
def test_an_engine_for_another_version_or_gpu_is_refused(
    version: str, capability: tuple[int, int], message: str
) -> None:
    check_engine_fits(ENTRY, "1.7", DeviceInfo("card", (8, 6), 1), what="x")
    with pytest.raises(BackendError, match=message):
        check_engine_fits(ENTRY, version, DeviceInfo("card", capability, 1), what="x")


def test_views_of_device_memory_are_at_the_right_address() -> None:
    tensor = DeviceTensor(1000, (4, 3, 2), np.dtype(np.float32), None)
    assert (tensor[2].address, tensor[2].shape) == (1000 + 2 * 24, (3, 2))
    assert (tensor[2][1].address, tensor[2][1].nbytes) == (1000 + 2 * 24 + 8, 8)
    assert (tensor[:3].address, tensor[:3].shape) == (1000, (3, 3, 2))
    assert (tensor[1:3].address, tensor[1:3].shape) == (1024, (2, 3, 2))
    for wrong in (4, -1, slice(3, 1), slice(0, 5), slice(0, 4, 2)):
        with pytest.raises(IndexError):
            tensor[wrong]


def test_trackers_of_a_process_share_one_arena() -> None:
    """The second tracker's frames take 19 MB with an arena per session, 1 MB with a shared one."""
    program = """
import numpy as np
from pathlib import Path
from sam2_edge import Prompt, VideoTracker

def resident_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

def taken_by_frames(tracker):
    before = resident_mb()
    for index in range(4):
        tracker.track(np.zeros((256, 256, 3), np.uint8), [Prompt(1, box=[9, 9, 99, 99])][index:])
    return resident_mb() - before

trackers = [VideoTracker("nano", threads=1) for _ in range(2)]
print(*map(taken_by_frames, trackers))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    first, second = map(float, done.stdout.split())
    assert second < 6 < first
