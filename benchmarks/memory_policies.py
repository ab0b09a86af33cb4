"""Memory policies with nano, interleaved on held-out clips with look-alikes and occlusions.

    python benchmarks/memory_policies.py --json FILE [--first 0] [--clips 40] [--lookalikes 4]

A tracker per policy tracks every object from one click; the trackers take turns on every frame, so
that the ratios of their times do not depend on other load. Clips in which no object is hidden or
leaves are skipped. A run adds its clips to FILE, which may hold those of earlier runs, and prints
the figures of all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sam2_edge import VideoTracker, load_bundle
from sam2_edge.evaluation.metrics import Accuracy
from sam2_edge.evaluation.synthetic import (
    OCCLUDED_SHARE,
    SIZE,
    ObjectScore,
    first_prompts,
    score_object,
    summary,
)
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.results import FrameResult
from sam2_edge.synthetic import SyntheticClip, clip

POLICIES = get_args(MemoryPolicyName)
UNCOUNTED_FRAMES = 8
"""First frames of a clip whose times do not count, as the memory is filling."""


def clips(first: int, count: int, frames: int, lookalikes: int) -> Iterator[SyntheticClip]:
    """`count` clips in which an object is hidden or out of sight, after the first `first`."""
    seed = found = 0
    while found < first + count:
        # Without photographs a clip has the same occlusions and is drawn much faster.
        options: dict[str, Any] = {
            "frames": frames,
            "objects": 2,
            "split": "heldout",
            "lookalikes": lookalikes,
        }
        sketch = clip(seed, size=SIZE, photographs=False, **options)
        hidden = (sketch.occluded > OCCLUDED_SHARE).any() or not sketch.present.all()
        if hidden:
            found += 1
            if found > first:
                yield clip(seed, size=SIZE, **options)
        seed += 1


def track(
    trackers: dict[str, VideoTracker], drawn: SyntheticClip
) -> tuple[dict[str, list[ObjectScore]], dict[str, list[float]]]:
    """Scores of every object and milliseconds of every counted frame, by policy."""
    results: dict[str, list[FrameResult]] = {policy: [] for policy in trackers}
    times: dict[str, list[float]] = {policy: [] for policy in trackers}
    prompts = first_prompts(drawn, "click")
    for tracker in trackers.values():
        tracker.reset()
    for index, frame in enumerate(drawn.frames):
        for turn in range(len(POLICIES)):
            policy = POLICIES[(index + turn) % len(POLICIES)]
            start = time.perf_counter()
            result = trackers[policy].track(frame, prompts if index == 0 else ())
            if index >= UNCOUNTED_FRAMES:
                times[policy].append(1e3 * (time.perf_counter() - start))
            results[policy].append(result)
    scores = {
        policy: [score_object(drawn, object_id, frames) for object_id in (1, 2)]
        for policy, frames in results.items()
    }
    return scores, times


def record(
    drawn: SyntheticClip, scores: dict[str, list[ObjectScore]], times: dict[str, list[float]]
) -> dict[str, Any]:
    """The entry of a clip in the file."""
    original = np.array(times["original"])
    return {
        "seed": drawn.seed,
        "policies": {
            policy: {
                "ms": round(float(np.median(times[policy])), 3),
                "times_original": round(float(np.median(np.array(times[policy]) / original)), 4),
                "objects": [
                    {
                        "j": round(s.accuracy.j, 5),
                        "f": round(s.accuracy.f, 5),
                        "presence": round(s.presence, 5),
                        "occluded": s.occluded,
                    }
                    for s in found
                ],
            }
            for policy, found in scores.items()
        },
    }


def figures(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over objects by policy, with wins and losses against the original, and times."""
    scores = {
        policy: [
            ObjectScore(r["seed"], i, Accuracy(o["j"], o["f"]), o["presence"], o["occluded"])
            for r in records
            for i, o in enumerate(r["policies"][policy]["objects"])
        ]
        for policy in POLICIES
    }
    found = {}
    for policy in POLICIES:
        change = np.array(
            [
                mine.accuracy.j_and_f - theirs.accuracy.j_and_f
                for mine, theirs in zip(scores[policy], scores["original"], strict=True)
            ]
        )
        ratios = [r["policies"][policy]["times_original"] for r in records]
        found[policy] = summary(scores[policy]) | {
            "better_by_0.05": int((change > 0.05).sum()),
            "worse_by_0.05": int((change < -0.05).sum()),
            "largest_gain": float(change.max()),
            "largest_loss": float(change.min()),
            "standard_error_of_gain": float(change.std(ddof=1) / np.sqrt(len(change))),
            "times_original": float(np.median(ratios)),
        }
    return found


def main() -> None:
    """Track the clips and add them to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--first", type=int, default=0, help="clips to skip")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--lookalikes", type=int, default=4)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    about = {n: getattr(options, n) for n in ("bundle", "frames", "lookalikes", "threads")}
    kept: dict[str, Any] = {"about": about, "clips": []}
    if options.json.exists():
        kept = json.loads(options.json.read_text())
        if kept["about"] != about:
            parser.error(f"{options.json} is of {kept['about']}; give another file")
    backend = open_backend(load_bundle(options.bundle), "cpu", threads=options.threads)
    trackers = {
        policy: VideoTracker(options.bundle, backend=backend, memory_policy=policy)
        for policy in POLICIES
    }
    done = {entry["seed"] for entry in kept["clips"]}
    for drawn in clips(options.first, options.clips, options.frames, options.lookalikes):
        if drawn.seed in done:
            continue
        kept["clips"].append(record(drawn, *track(trackers, drawn)))
        kept["figures"] = figures(kept["clips"])
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    for policy, values in figures(kept["clips"]).items():
        print(policy, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))


if __name__ == "__main__":
    main()
