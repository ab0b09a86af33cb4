"""Host time per frame of the GPU path: what the CPU does while the engines do nothing.

    python -m benchmarks.host_time [--frame 1280x720] [--objects 1 4] [--model-size 1024]

Tracks random pictures on the late device of the tests, with stand-ins for TensorRT whose engines
compute nothing; they have the tensors of nano for an input of the given size. Prints milliseconds
of one core per frame, medians over the last half of the frames, in which memories are full and
frames are CUDA graphs:

    prepare   checking and resizing the frame, which other threads do
    track     `VideoTracker.track` without the stand-ins' own Python, with their copies
    mask      the masks at the size of the frame

What NVIDIA's driver and TensorRT themselves take of the CPU is not in it. Run it in the folder of
the repository; a C compiler is needed.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge import Bundle, Prompt, VideoTracker, load_bundle
from sam2_edge.bundle.contract import Geometry, Graph, graph_specs
from sam2_edge.runtime.backends.tensorrt import TensorRt
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from tests.helpers.engines import as_engines
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device import tensorrt as stand_ins
from tests.helpers.late_device.sessions import view

STAGES = ("prepare", "track", "mask")


class EmptyEngine:
    """Takes the place of `RawSession`: knows the tensors of a graph, whose file holds its name."""

    def __init__(self, content: bytes, geometry: Geometry) -> None:
        spec = graph_specs(geometry)[Graph(content.decode())]
        tensors = (*spec.inputs, *spec.outputs)
        self.inputs = {tensor.name for tensor in spec.inputs}
        self.dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in tensors}
        self.axes = {
            tensor.name: tuple(axis if isinstance(axis, int) else -1 for axis in tensor.axes)
            for tensor in tensors
        }


class StandInTime:
    """CPU time of the stand-ins' own Python, which real engines would not need."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method whose time is added up."""

        @wraps(method)
        def timed(*arguments: Any) -> Any:
            self._depth += 1
            start = time.thread_time()
            try:
                return method(*arguments)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.thread_time() - start

        return timed

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let engines compute nothing but that objects are present, and count the stand-ins."""
        patch.setattr(stand_ins._Run, "__call__", self.counted(_find_objects))
        context = stand_ins.IExecutionContext
        for name in (
            "set_input_shape",
            "set_tensor_address",
            "set_device_memory",
            "update_device_memory_size_for_shapes",
            "execute_async_v3",
        ):
            patch.setattr(context, name, self.counted(getattr(context, name)))


def _find_objects(run: stand_ins._Run) -> None:
    if "object_score" in run._session.dtypes.keys() - run._session.inputs:
        address, shape = run._tensors["object_score"]
        view(address, shape or (1,), np.float32)[...] = 1


def measure(
    tracker: VideoTracker,
    stand_in: StandInTime,
    *,
    size: tuple[int, int],
    objects: int,
    frames: int,
) -> dict[str, float]:
    """Return median milliseconds per stage."""
    width, height = size
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(4)]
    prompts = [
        Prompt(i + 1, points=[((i + 0.5) * width / objects, height / 2)]) for i in range(objects)
    ]
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for index in range(frames):
        start = time.thread_time()
        prepared = tracker.prepare(pictures[index % len(pictures)])
        times["prepare"].append(time.thread_time() - start)
        start, stand_in.seconds = time.thread_time(), 0.0
        result = tracker.track(prepared, prompts if index == 0 else ())
        times["track"].append(time.thread_time() - start - stand_in.seconds)
        start = time.thread_time()
        masks = [entry.mask for entry in result.objects]
        times["mask"].append(time.thread_time() - start)
        assert [mask.shape for mask in masks] == [(height, width)] * objects
    return {name: 1e3 * float(np.median(spent[frames // 2 :])) for name, spent in times.items()}


def engines_of(folder: Path, variant: TensorRtVariant, model_size: int) -> Bundle:
    """Write a bundle of engines for `EmptyEngine`, in nano's sizes but for that of the input."""
    manifest = load_bundle("nano").manifest.model_copy(update={"image_size": model_size})
    for graph, entry in manifest.graphs.items():
        (folder / entry.file).write_text(graph.value)
    return as_engines(Bundle(folder, manifest), variant)


def run(variant: TensorRtVariant, arguments: argparse.Namespace, objects: int) -> dict[str, float]:
    """Open a backend on a late device of its own, and measure."""
    stand_in = StandInTime()
    width, height = map(int, arguments.frame.split("x"))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        engines = engines_of(Path(folder), variant, arguments.model_size)
        device = LateDevice(Path(folder))
        device.install(patch)
        stand_ins.Module(device, rtx=variant == "tensorrt-rtx").install(patch)
        geometry = engines.manifest.geometry
        patch.setattr(stand_ins, "RawSession", lambda content: EmptyEngine(content, geometry))
        stand_in.install(patch)
        with VideoTracker(engines, backend=TensorRt(engines, variant)) as tracker:
            found = measure(
                tracker, stand_in, size=(width, height), objects=objects, frames=arguments.frames
            )
        assert device.errors == []
    return found


def main() -> None:
    """Measure every variant and number of objects, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--frame", default="1280x720", help="WIDTHxHEIGHT")
    parser.add_argument("--model-size", type=int, default=1024, help="side of the model's input")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="print where track spends its time")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{arguments.frame} frames, model of {arguments.model_size} pixels, ms of one core")
    print(f"{'engines':14}{'objects':>8}" + "".join(f"{stage:>9}" for stage in STAGES))
    for variant in ("tensorrt", "tensorrt-rtx"):
        for objects in arguments.objects:
            profile = cProfile.Profile(time.thread_time)
            if arguments.profile:
                profile.enable()
            found = run(variant, arguments, objects)
            profile.disable()
            print(f"{variant:14}{objects:8}" + "".join(f"{found[stage]:9.2f}" for stage in STAGES))
            if arguments.profile:
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
