"""Lists the functions of sam2_edge that a frame or an export passes through, with call counts.

    python tools/trace_calls.py frame
    python tools/trace_calls.py export

`frame` traces a steady-state frame of a camera loop with one object of the bundled model, from the
camera to the mask. `export` traces `sam2-edge export nano --precision fp16 --target tensorrt-rtx`.
docs/architecture.md has the totals.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sam2_edge
from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.cli.main import main as run_command

PACKAGE = f"{Path(sam2_edge.__file__).parent}{os.sep}"

STEADY_FRAME = 24
"""By this frame the memory bank is full."""


class Trace:
    """Counts calls of the package's functions, in all threads that start later, while enabled."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.enabled = False
        threading.setprofile(self._record)
        sys.setprofile(self._record)

    def _record(self, frame: FrameType, event: str, _argument: Any) -> None:
        if not self.enabled or event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            self.calls[code.co_filename.removeprefix(PACKAGE), code.co_name] += 1

    def print(self) -> None:
        """Print the totals, then a line per function in the order of first calls."""
        sys.setprofile(None)
        files = {file for file, _ in self.calls}
        print(f"{len(self.calls)} functions in {len(files)} files")
        for (file, name), count in self.calls.items():
            print(f"{count:5} {file} {name}")


class NoiseCamera:
    """A camera that shows noise."""

    ends = False

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def read(self) -> NDArray[np.uint8]:
        """Return the next frame."""
        return self._random.integers(0, 255, (240, 320, 3), np.uint8)

    def close(self) -> None:
        """Release nothing."""


def trace_frame(trace: Trace) -> None:
    """Trace one frame of a camera loop, once the memory bank is full."""
    loop = CameraLoop(NoiseCamera, VideoTracker("nano", threads=1), every_frame=True)
    loop.prompt(1, box=(50, 50, 150, 150))
    for tracked in loop:
        trace.enabled = tracked.result.index == STEADY_FRAME
        if tracked.result.index == STEADY_FRAME + 1:
            trace.enabled = True
            _ = tracked.result.objects[0].mask
            trace.enabled = False
            loop.close()


def trace_export(trace: Trace) -> None:
    """Trace the export of the bundled model to engines."""
    with TemporaryDirectory() as folder:
        options = ["--precision", "fp16", "--target", "tensorrt-rtx", "--compute-capability", "8.6"]
        sys.argv = ["sam2-edge", "export", "nano", "--output", f"{folder}/engines", *options]
        trace.enabled = True
        try:
            run_command()
        except SystemExit as done:
            trace.enabled = False
            if done.code:
                raise


if __name__ == "__main__":
    if sys.argv[1:] not in (["frame"], ["export"]):
        sys.exit(__doc__)
    recording = Trace()
    (trace_frame if sys.argv[1] == "frame" else trace_export)(recording)
    recording.print()
