"""Compares `sam2-edge eval` with a published evaluator, vos-benchmark, on the same masks.

    pip install --no-deps vos-benchmark==0.1.0 && pip install tqdm scikit-image
    sam2-edge eval DATASET BUNDLE --output OUTPUT
    python benchmarks/eval_against.py DATASET OUTPUT

DATASET has the layout of DAVIS or MOSE, with a true mask for every frame. J and F of every object
are compared to the 6 digits of OUTPUT/results.csv. vos-benchmark skips the frames before either
mask shows an object, which DAVIS counts as correct, so it differs in videos with an object that
appears late.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from vos_benchmark.benchmark import VideoEvaluator

from sam2_edge.evaluation.vos.datasets import open_dataset
from sam2_edge.evaluation.vos.results import MASKS, RESULTS, SUMMARY

LAYOUTS = ("davis", "mose")
ROUNDING = 0.5e-6
"""Half of the last digit of the table."""

Figures = dict[tuple[str, str], tuple[float, float]]
"""J and F, 0..1, by video and object."""


def ours(output: Path) -> Figures:
    """The evaluation's figures, for the objects with a score."""
    with (output / RESULTS).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["J"]]
    return {(row["video"], row["object"]): (float(row["J"]), float(row["F"])) for row in rows}


def theirs(dataset: Path, output: Path, wanted: Figures) -> Figures:
    """The published evaluator's figures, for the same objects."""
    found: Figures = {}
    for video in open_dataset(dataset, videos=sorted({name for name, _ in wanted})).videos:
        truth = next(iter(video.masks[""].values())).parent.parent
        _, j, f = VideoEvaluator(str(truth), str(output / MASKS))(video.name)
        found |= {(video.name, str(i)): (j[i] / 100, f[i] / 100) for i in j}
    return {key: found[key] for key in wanted}


def main() -> None:
    """Print both sides and the largest difference; exit code 1 if it exceeds the rounding."""
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/eval_against.py DATASET OUTPUT")
    dataset, output = map(Path, sys.argv[1:])
    layout = json.loads((output / SUMMARY).read_text(encoding="utf-8"))["layout"]
    if layout not in LAYOUTS:
        sys.exit(f"{output} has layout {layout}; give one of {', '.join(LAYOUTS)}")
    own = ours(output)
    published = theirs(dataset, output, own)
    worst = 0.0
    print("video/object                J         F    theirs J         F")
    for key, (j, f) in own.items():
        their_j, their_f = published[key]
        worst = max(worst, abs(j - their_j), abs(f - their_f))
        print(f"{'/'.join(key):20s} {j:.6f}  {f:.6f}    {their_j:.6f}  {their_f:.6f}")
    print(f"{len(own)} objects, largest difference {worst:.1e}")
    sys.exit(0 if worst <= 1.01 * ROUNDING else 1)


if __name__ == "__main__":
    main()
