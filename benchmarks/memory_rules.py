"""Memory rules with nano, on held-out clips with look-alikes and occlusions, in turns.

    python benchmarks/memory_rules.py --json FILE [--first 0] [--clips 40] [--lookalikes 4]

Every object is followed from one click by a tracker of each rule; the trackers take turns on every
frame, so that the ratios of their times do not hang on what else the machine does. Clips in which
no object is hidden or leaves are passed over. A run adds its clips to FILE, where earlier runs of
other clips may have left theirs, and prints the figures of all.
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
from sam2_edge.evaluation import synthetic
from sam2_edge.evaluation.metrics import Accuracy
from sam2_edge.evaluation.synthetic import SIZE, ObjectScore, Seen, first_prompts, summary
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.synthetic import SyntheticClip, clip

RULES = get_args(MemoryPolicyName)
UNCOUNTED_FRAMES = 8
"""First frames of a clip whose times are left out: memory is filling."""


def clips(first: int, count: int, frames: int, lookalikes: int) -> Iterator[SyntheticClip]:
    """`count` clips in which an object is hidden or away, after the first `first` such clips."""
    seed = found = 0
    while found < first + count:
        # Small and without photographs: who is hidden is the same, and drawn in no time.
        options: dict[str, Any] = {
            "frames": frames,
            "objects": 2,
            "split": "heldout",
            "lookalikes": lookalikes,
        }
        sketch = clip(seed, size=SIZE, photographs=False, **options)
        hidden = (sketch.occluded > synthetic.OCCLUDED_SHARE).any() or not sketch.present.all()
        if hidden:
            found += 1
            if found > first:
                yield clip(seed, size=SIZE, **options)
        seed += 1


def follow(
    trackers: dict[str, VideoTracker], drawn: SyntheticClip
) -> tuple[dict[str, list[ObjectScore]], dict[str, list[float]]]:
    """Scores of every object and milliseconds of every counted frame, by rule."""
    seen: dict[str, list[dict[int, Seen]]] = {rule: [] for rule in trackers}
    times: dict[str, list[float]] = {rule: [] for rule in trackers}
    prompts = first_prompts(drawn, "click")
    for tracker in trackers.values():
        tracker.reset()
    for index, frame in enumerate(drawn.frames):
        for turn in range(len(RULES)):
            rule = RULES[(index + turn) % len(RULES)]
            start = time.perf_counter()
            result = trackers[rule].track(frame, prompts if index == 0 else ())
            if index >= UNCOUNTED_FRAMES:
                times[rule].append(1e3 * (time.perf_counter() - start))
            seen[rule].append({o.object_id: Seen(o.mask, o.present) for o in result.objects})
    scores = {
        rule: [synthetic._score(drawn, o, [f[o + 1] for f in frames]) for o in range(2)]
        for rule, frames in seen.items()
    }
    return scores, times


def record(
    drawn: SyntheticClip, scores: dict[str, list[ObjectScore]], times: dict[str, list[float]]
) -> dict[str, Any]:
    """What is kept of a clip."""
    original = np.array(times["original"])
    return {
        "seed": drawn.seed,
        "rules": {
            rule: {
                "ms": round(float(np.median(times[rule])), 3),
                "times_original": round(float(np.median(np.array(times[rule]) / original)), 4),
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
            for rule, found in scores.items()
        },
    }


def figures(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over objects by rule, with wins and losses against the original, and times."""
    scores = {
        rule: [
            ObjectScore(r["seed"], i, Accuracy(o["j"], o["f"]), o["presence"], o["occluded"])
            for r in records
            for i, o in enumerate(r["rules"][rule]["objects"])
        ]
        for rule in RULES
    }
    found = {}
    for rule in RULES:
        change = np.array(
            [
                mine.accuracy.j_and_f - theirs.accuracy.j_and_f
                for mine, theirs in zip(scores[rule], scores["original"], strict=True)
            ]
        )
        ratios = [r["rules"][rule]["times_original"] for r in records]
        found[rule] = summary(scores[rule]) | {
            "better_by_0.05": int((change > 0.05).sum()),
            "worse_by_0.05": int((change < -0.05).sum()),
            "largest_gain": float(change.max()),
            "largest_loss": float(change.min()),
            "standard_error_of_gain": float(change.std(ddof=1) / np.sqrt(len(change))),
            "times_original": float(np.median(ratios)),
        }
    return found


def main() -> None:
    """Follow the clips and add them to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--first", type=int, default=0, help="clips to pass over")
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
        rule: VideoTracker(options.bundle, backend=backend, memory_policy=rule) for rule in RULES
    }
    done = {entry["seed"] for entry in kept["clips"]}
    for drawn in clips(options.first, options.clips, options.frames, options.lookalikes):
        if drawn.seed in done:
            continue
        kept["clips"].append(record(drawn, *follow(trackers, drawn)))
        kept["figures"] = figures(kept["clips"])
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    for rule, values in figures(kept["clips"]).items():
        print(rule, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))


if __name__ == "__main__":
    main()
