"""Real inputs of every graph, recorded while the tracker follows objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Feeds, Graph
from sam2_edge.calibration.frames import CalibrationFrames
from sam2_edge.runtime.backends import Tensor
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.memory.rows import used_rows
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.tracker import VideoTracker

TRACKED_FRAMES = 18
"""Frames that fill the bank of SAM 2: 7 memories and 16 pointers."""

REFINED_FRAME = 8

_CLICKED, _BOXED, _MASKED = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded inputs on disk, read one at a time."""

    folder: Path

    def has(self, graph: Graph) -> bool:
        """Whether the graph ran; packed masks are made on GPUs only."""
        return any(self.folder.glob(f"{graph.value}-*.npz"))

    def inputs(self, graph: Graph) -> Iterator[Feeds]:
        """Inputs of one graph, in the order of recording."""
        for path in sorted(self.folder.glob(f"{graph.value}-*.npz")):
            with np.load(path) as arrays:
                yield {name: arrays[name] for name in arrays.files}


def record_inputs(bundle: Bundle, frames: CalibrationFrames, folder: Path) -> Recording:
    """Track over the first frames and write the inputs of each graph on four of them to `folder`.

    These are the first, with a click, a box and a mask; the second; one on which the click is
    refined; and the last, with a full memory (one pointer short if there are only 16 frames). The
    prompts are in the middle of the frame, as the objects are not known.

    Args:
        bundle: Float32 ONNX graphs.
        frames: Calibration frames.
        folder: An existing folder.
    """
    recorder = _Recorder(bundle, folder)
    tracker = VideoTracker(bundle, backend=recorder)
    last = min(TRACKED_FRAMES, len(frames.numbers)) - 1
    for index, feeds in enumerate(frames):
        recorder.recording = index in (0, 1, REFINED_FRAME, last)
        picture = feeds["image"][0][..., ::-1]
        tracker.track(picture, _first_prompts(bundle.manifest.image_size) if index == 0 else ())
        if index == 0:
            tracker.remove(_MASKED)  # its prompt is recorded; tracking it shows nothing new
        if index == REFINED_FRAME:
            middle = bundle.manifest.image_size // 2
            tracker.prompt(_CLICKED, points=[(middle, middle), (0, 0)], labels=[1, 0])
        if index == last:
            break
    return Recording(folder)


class _Recorder(OnnxRuntimeCpu):
    """Writes the inputs of graphs to a folder while `recording` is set."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        super().__init__(bundle)
        self.recording = False
        self._folder = folder
        self._written = 0

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        if self.recording:
            arrays: dict[str, Any] = dict(inputs)
            if graph is Graph.MEMORY_ATTENTION:
                stored = used_rows(arrays["memory"], arrays["memory_rows"])
                arrays["memory"], arrays["memory_rows"] = stored
            np.savez(self._folder / f"{graph.value}-{self._written:04d}.npz", **arrays)
            self._written += 1
        return super().run(graph, inputs, outputs)


def _first_prompts(size: int) -> list[Prompt]:
    near, far = size // 4, size - size // 4
    mask = np.zeros((size, size), np.uint8)
    mask[near:far, near:far] = 1
    return [
        Prompt(_CLICKED, points=[(size // 2, size // 2)]),
        Prompt(_BOXED, box=(near, near, far, far)),
        Prompt(_MASKED, mask=mask),
    ]
