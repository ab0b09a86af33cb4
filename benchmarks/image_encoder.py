"""Time of image encoders: transformers' own, ours in PyTorch, and the exported graph.

    python benchmarks/image_encoder.py [edgetam ...] [--image-size 1024] [--threads 2] [--runs 15]

Weights are random. All ways of all models take turns in one process on the same picture; the first
two turns are not counted. On a busy machine, compare processor times with one thread: they vary by
3 %, wall time several times over. PyTorch's large tensors return to the operating system after
every operator; MALLOC_MMAP_THRESHOLD_=4294967296 and MALLOC_TRIM_THRESHOLD_=8589934592 in the
environment spare it that.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam2_edge.bundle.contract import Graph
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.graphs import graph_modules
from sam2_edge.runtime.backends import open_backend

WARM_UP, SEED = 2, 1


def ways_of(name: str, image_size: int, threads: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """Calls that encode one picture, by way."""
    loaded = load_model(name, random_seed=SEED, image_size=image_size)
    backend = open_backend(export_bundle(loaded, folder / name), threads=threads)
    picture = np.random.default_rng(SEED).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    image = torch.from_numpy(picture)
    pixels = torch.randn(1, 3, image_size, image_size)
    module = graph_modules(loaded.model)[Graph.IMAGE_ENCODER]
    return {
        f"{name}, transformers": lambda: loaded.model.get_image_features(pixels),
        f"{name}, our module": lambda: module(image),
        f"{name}, ONNX Runtime": lambda: backend.run(Graph.IMAGE_ENCODER, {"image": picture}),
    }


def main() -> None:
    """Time every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["edgetam", "sam2.1-hiera-tiny"])
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        ways = {}
        for name in arguments.models:
            ways |= ways_of(name, arguments.image_size, arguments.threads, Path(folder))
        for _ in range(WARM_UP + arguments.runs):
            for way, encode in ways.items():
                start, processor = time.perf_counter(), time.process_time()
                encode()
                times[way].append((time.perf_counter() - start, time.process_time() - processor))
    for way, taken in times.items():
        wall, processor = 1e3 * np.median(taken[WARM_UP:], axis=0)
        print(f"{way:36} median {wall:7.1f} ms, of the processor {processor:7.1f} ms")


if __name__ == "__main__":
    main()
