"""A real-size model over a real clip: the exported graphs against PyTorch, frame by frame.

    PYTHONPATH=. python benchmarks/real_size.py VIDEO [--reference original] [--frames 20]
    PYTHONPATH=. python benchmarks/real_size.py VIDEO --memory

Weights are random. The runtime and PyTorch alternate on every frame in one process, so that the
ratio of their times does not depend on other load; but idle threads of one spin for a while and
slow the other. With --memory each runs alone in its own process, and its peak resident memory and
time are printed instead. The original predictor (`--reference original`) needs the package sam2
1.1.0 with hydra-core and iopath.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from real_frames import click, frames_of

from sam2_edge import Bundle, Prompt, VideoTracker, load_bundle
from sam2_edge.bundle.contract import MemoryRounding
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceTracker
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.checkpoints import LoadedModel, load_model, load_original
from sam2_edge.models.sam2.family import IMAGE_MEAN, IMAGE_STD
from sam2_edge.models.sam2.key_mapping import from_original
from tools.original_names import to_original

MODEL, SEED = "sam2.1-hiera-tiny", 1


def run_sam2_edge(bundle: Bundle, frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Logits frame by frame from the runtime."""
    tracker = VideoTracker(bundle, clip_frames=len(frames))
    prompts = [Prompt(1, points=[click(bundle.manifest.image_size)])]
    for index, frame in enumerate(frames):
        yield tracker.track(frame, prompts if index == 0 else [])[1].logits


def run_transformers(
    loaded: LoadedModel, frames: list[np.ndarray], rounding: MemoryRounding = "bfloat16"
) -> Iterator[np.ndarray]:
    """Logits frame by frame from transformers' model, with PyTorch's fused attention."""
    model = loaded.model
    model.set_attn_implementation("sdpa")
    tracker = ReferenceTracker(model, clip_frames=len(frames), memory_rounding=rounding)
    point = torch.tensor([click(int(model.config.image_size))], dtype=torch.float32)
    for index, frame in enumerate(frames):
        image = torch.from_numpy(frame[..., ::-1].copy())
        prompts = {1: ReferencePrompt(point, torch.tensor([1]))} if index == 0 else {}
        yield tracker.track(image, prompts)[1].logits.numpy()


def run_original(checkpoint: Path, frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Logits frame by frame from the original predictor, from the same pixels."""
    predictor = original_predictor()
    state = torch.load(checkpoint, weights_only=True)["model"]
    predictor.load_state_dict(state, strict=True)
    size = predictor.image_size
    with tempfile.TemporaryDirectory() as folder:
        for index in range(len(frames)):
            cv2.imwrite(f"{folder}/{index}.jpg", frames[index])
        inference = predictor.init_state(folder)
    pixels = torch.from_numpy(np.stack(frames)[..., ::-1].copy()).float() / 255
    pixels = (pixels - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    inference["images"] = pixels.permute(0, 3, 1, 2).contiguous()
    inference["cached_features"].clear()
    inference["video_height"] = inference["video_width"] = size
    points = np.array([click(size)], np.float32)
    predictor.add_new_points_or_box(inference, 0, 1, points=points, labels=np.array([1], np.int32))
    for index, _, _ in predictor.propagate_in_video(inference):
        outputs = inference["output_dict_per_obj"][0]
        kind = "cond_frame_outputs" if index == 0 else "non_cond_frame_outputs"
        yield outputs[kind][index]["pred_masks"][0, 0].numpy()


def original_predictor() -> Any:
    """The published predictor for `MODEL`, without weights."""
    from sam2.build_sam import build_sam2_video_predictor

    return build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")


def write_original_checkpoint(loaded: LoadedModel, path: Path) -> None:
    """The model's weights as a .pt file under the original names, as Meta's files are."""
    own = loaded.model.state_dict()
    state = to_original(own, original_predictor().state_dict())
    torch.save({"model": state}, path)
    again = from_original(state)
    assert all(torch.equal(again[k], v) for k, v in own.items())


def compare(ours: Iterator[np.ndarray], theirs: Iterator[np.ndarray], count: int) -> None:
    """Take turns on every frame; print differences, times and their ratio."""
    times: dict[str, list[float]] = {"sam2_edge": [], "pytorch": []}
    print("frame  logits in      largest diff  pixels of other sign  sam2_edge s  pytorch s")
    for index in range(count):
        results = {}
        for name, run in (("sam2_edge", ours), ("pytorch", theirs)):
            start = time.perf_counter()
            results[name] = next(run)
            times[name].append(time.perf_counter() - start)
        a, b = results["sam2_edge"], results["pytorch"]
        flips = int(((a > 0) != (b > 0)).sum())
        span = f"{b.min():.1f}..{b.max():.1f}"
        difference = float(np.abs(a - b).max())
        print(
            f"{index:5d}  {span:13s}  {difference:12.2e}  {flips:6d} of {a.size:6d}      "
            f"{times['sam2_edge'][-1]:10.2f}  {times['pytorch'][-1]:9.2f}",
            flush=True,
        )
    ratios = [p / e for e, p in zip(times["sam2_edge"], times["pytorch"], strict=True)]
    steady = ratios[-5:]
    print(f"pytorch / sam2_edge, median over the last 5 frames: {statistics.median(steady):.2f}")
    for name, seconds in times.items():
        print(f"{name}: mean {statistics.mean(seconds[1:]):.2f} s per frame after the first")


def peak_memory(name: str, run: str, arguments: tuple[Any, ...]) -> None:
    """Run one side alone in a fresh process and print its peak resident memory."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_measured, args=(name, run, *arguments))
    process.start()
    process.join()


def _measured(name: str, run: str, source: Path | str, video: str, count: int, size: int) -> None:
    frames = frames_of(video, count, size)
    if run == "sam2_edge":
        results = run_sam2_edge(load_bundle(source), frames)
    elif run == "transformers":
        loaded = load_model(MODEL, random_seed=SEED, image_size=size)
        results = run_transformers(loaded, frames)
    else:
        results = run_original(Path(source), frames)
    times, start = [], time.perf_counter()
    for _ in results:
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    steady = statistics.median(times[-5:])
    print(
        f"{name} alone, {count} frames: peak resident memory {peak_resident_mb()} MB, "
        f"median of the last 5 frames {steady:.2f} s",
        flush=True,
    )


def peak_resident_mb() -> int:
    """This process's own peak; `ru_maxrss` would begin at that of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main() -> None:
    """Export, then compare or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--reference", choices=("transformers", "original"), default="transformers")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--memory-rounding", choices=("bfloat16", "none"), default="bfloat16")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, Python {sys.version[:6]}")
    with tempfile.TemporaryDirectory() as folder:
        size, count = options.image_size, options.frames
        loaded = load_model(MODEL, random_seed=SEED, image_size=size)
        checkpoint = Path(folder) / "random.pt"
        if options.reference == "original":
            write_original_checkpoint(loaded, checkpoint)
            loaded = load_original(checkpoint, image_size=size)
        rounding: MemoryRounding = options.memory_rounding
        bundle = export_bundle(
            loaded, Path(folder) / "bundle", ExportOptions(memory_rounding=rounding)
        )
        frames = frames_of(options.video, count, size)
        if options.memory:
            peak_memory("sam2_edge", "sam2_edge", (bundle.path, options.video, count, size))
            side = options.reference
            peak_memory(side, side, (checkpoint, options.video, count, size))
            return
        if options.reference == "original":
            theirs = run_original(checkpoint, frames)
        else:
            theirs = run_transformers(loaded, frames, rounding)
        compare(run_sam2_edge(bundle, frames), theirs, count)


if __name__ == "__main__":
    main()
