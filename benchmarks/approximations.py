"""Accuracy and speed of the approximations: options that are faster and not exact.

    python benchmarks/approximations.py [nano] [--clips 20] [--frames 48] [--threads N]
                                        [--json FILE] [--only TEXT]

J&F on held-out clips from one click per object, mean IoU with the masks of the exact bundle on the
same clips, and the time of the whole frame with a full memory, interleaved with the exact bundle on
the same frames. --only: the variants with this text in their name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sam2_edge import Bundle, VideoTracker
from sam2_edge.evaluation.bench.runner import run_interleaved
from sam2_edge.evaluation.bench.targets import BundleTarget
from sam2_edge.evaluation.clips import bench_clip
from sam2_edge.evaluation.metrics import mean_accuracy, object_accuracy, region_similarity
from sam2_edge.evaluation.synthetic import heldout_clips, track_clip
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import Calibration, ExportOptions
from sam2_edge.models.checkpoints import load_model
from sam2_edge.runtime.backends import open_backend
from sam2_edge.synthetic import SyntheticClip, clip
from sam2_edge.synthetic.dataset import write_dataset

Masks = list[list[np.ndarray]]
"""By clip and object: one mask per frame."""


def variants(model: str, folder: Path) -> Iterator[tuple[str, Callable[[], Bundle], int | None]]:
    """Name, a function that makes the bundle, and recent memories of each variant, the exact one
    first.
    """
    loaded = load_model(model)
    exact = cache(partial(export_bundle, loaded, folder / "exact"))
    yield "exact", exact, None
    for recent in (4, 3, 2, 1):
        yield f"recent memories {recent}", exact, recent
    for tokens in (128, 64, 32):
        target = folder / f"tokens {tokens}"
        few = cache(partial(export_bundle, loaded, target, ExportOptions(memory_tokens=tokens)))
        yield f"memory tokens {tokens}", few, None
        if tokens == 64:
            yield f"memory tokens {tokens}, recent memories 3", few, 3
    yield "int8", partial(int8, model, folder), None
    for size in (224, 192):
        smaller = load_model(model, image_size=size)
        yield f"image size {size}", partial(export_bundle, smaller, folder / str(size)), None


def int8(model: str, folder: Path) -> Bundle:
    """The bundle with an INT8 encoder, calibrated on a clip of its own."""
    write_dataset(folder / "seen", [clip(7, frames=64)])
    calibration = Calibration(str(folder / "seen" / "JPEGImages" / "00000"))
    return export_bundle(
        load_model(model), folder / "int8", ExportOptions(precision="int8", calibration=calibration)
    )


def tracked(bundle: Bundle, recent: int | None, clips: list[SyntheticClip], threads: int) -> Masks:
    """The masks of every object of the clips."""
    backend = open_backend(bundle, "cpu", threads=threads)
    found: Masks = []
    for drawn in clips:
        tracker = VideoTracker(bundle, backend=backend, recent_memories=recent)
        frames = track_clip(tracker, drawn, "click")
        found += [[f[o.object_id].mask for f in frames] for o in frames[0].objects]
    return found


def truth(clips: list[SyntheticClip]) -> Masks:
    """The true masks, in the order of `tracked`."""
    return [
        [drawn.mask(t, i + 1) for t in range(len(drawn.frames))]
        for drawn in clips
        for i in range(drawn.present.shape[1])
    ]


def speed(
    exact: Bundle, bundle: Bundle, recent: int | None, frames: int, threads: int
) -> tuple[float, float]:
    """Median time of the exact bundle over that of the other, and milliseconds of the other."""
    with ExitStack() as stack:
        clicked = bench_clip(None, exact.manifest.image_size, frames, 1, stack)
    first = BundleTarget(exact, backend="cpu", threads=threads, staged=False)
    other = BundleTarget(
        bundle, backend="cpu", threads=threads, staged=False, recent_memories=recent
    )
    first.name, other.name = "exact", "other"
    found = run_interleaved([first, other], clicked.pictures, clicked.prompts)
    return found.ratio("other", "exact").median, float(np.median(found.whole("other")))


def main() -> None:
    """Print a row per variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    clips = list(heldout_clips(arguments.clips))
    true = truth(clips)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        exact, exact_masks = None, None
        for name, make, recent in variants(arguments.model, Path(folder)):
            if exact is not None and arguments.only not in name:
                continue
            bundle = make()
            masks = tracked(bundle, recent, clips, arguments.threads)
            if exact is None:
                exact, exact_masks = bundle, masks
            scores = [object_accuracy(m, t) for m, t in zip(masks, true, strict=True)]
            alike = [
                region_similarity(a, b)
                for ours, theirs in zip(masks, exact_masks or masks, strict=True)
                for a, b in zip(ours, theirs, strict=True)
            ]
            ratio, milliseconds = speed(exact, bundle, recent, arguments.frames, arguments.threads)
            row = {
                "variant": name,
                "j_and_f": round(mean_accuracy(scores).j_and_f, 4),
                "iou_with_exact": round(float(np.mean(alike)), 4),
                "times_as_fast": round(ratio, 3),
                "milliseconds": round(milliseconds, 2),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
