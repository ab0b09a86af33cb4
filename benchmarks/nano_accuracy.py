"""Accuracy of a bundle on held-out synthetic clips, by prompt, through ONNX Runtime and PyTorch.

    python benchmarks/nano_accuracy.py [--bundle nano] [--clips 100] [--pytorch] [--json FILE]

Every figure of the model card comes from here.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

from sam2_edge import VideoTracker, load_bundle
from sam2_edge.evaluation.synthetic import (
    first_prompts,
    heldout_clips,
    scores,
    summary,
)
from sam2_edge.evaluation.tracker import Tracker


def pytorch_tracker(name: str) -> Tracker:
    """Transformers' model, with the memory settings of the bundle."""
    from sam2_edge.evaluation.pytorch import PyTorchTracker
    from sam2_edge.models.checkpoints import load_model

    model, manifest = load_model(name).model, load_bundle(name).manifest
    return PyTorchTracker(model, manifest)


def show(title: str, figures: dict[str, float], seconds: float) -> dict[str, Any]:
    """Print one line of figures and return them as a record."""
    line = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
    print(f"{title:18} {line}  ({seconds:.0f} s)", flush=True)
    return {"title": title, **{k: round(v, 4) for k, v in figures.items()}}


def main() -> None:
    """Measure every kind of prompt on the same clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kinds", default="click,box,mask")
    parser.add_argument("--pytorch", action="store_true", help="one click through PyTorch as well")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clips = list(islice(heldout_clips(arguments.clips), arguments.clips))
    assert all(len(first_prompts(c, "click")) == c.present.shape[1] for c in clips)
    tracker = VideoTracker(arguments.bundle, threads=arguments.threads)
    runs: list[tuple[Any, Tracker, str]] = [
        (kind, tracker, "") for kind in arguments.kinds.split(",") if kind
    ]
    if arguments.pytorch:
        runs.append(("click", pytorch_tracker(arguments.bundle), " (PyTorch)"))
    results = []
    for kind, used, note in runs:
        start = time.perf_counter()
        found = list(scores(clips, kind, used))
        results.append(show(kind + note, summary(found), time.perf_counter() - start))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
