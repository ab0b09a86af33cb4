"""Small data sets in every published layout, from synthetic clips."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.runtime.sinks.files import write_image, write_text
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.synthetic import SyntheticClip, clip

Eval = Callable[..., int]
"""Runs `sam2-edge eval` with a data set, output folder and options; returns the exit code."""

LATE = 2
"""The frame on which object 2 of `late_clip` appears."""

SAV_STEP = 4
"""Frames from one mask of SA-V to the next."""


def late_clip(seed: int, frames: int) -> SyntheticClip:
    """A clip of 64 x 64 pixels with two objects; the masks show the second from frame `LATE` on."""
    drawn = clip(seed, frames=frames, size=64, objects=2, split="heldout", photographs=False)
    masks = drawn.masks.copy()
    masks[:LATE][masks[:LATE] == 2] = 0
    return replace(drawn, masks=masks)


def write_layout(root: Path, layout: LayoutName, clips: dict[str, SyntheticClip]) -> Path:
    """Write clips in a layout: DAVIS, SA-V and LVOS with all true masks, MOSE with the first masks
    only, YouTube-VOS with the first mask of each object only. Returns `root`.
    """
    writers = {"davis": _davis, "sa-v": _sav, "mose": _mose, "lvos": _lvos, "youtube-vos": _youtube}
    writers[layout](root, clips)
    return root


def result_rows(output: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of an evaluation's results.csv, by video and object."""
    with (output / "results.csv").open() as file:
        return {(row["video"], row["object"]): row for row in csv.DictReader(file)}


def file_contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cut_short(path: Path) -> None:
    """Damage a file."""
    path.write_bytes(path.read_bytes()[:-60])


def _write(
    frames: Path, masks: Path, drawn: SyntheticClip, names: list[str], kept: dict[int, np.ndarray]
) -> None:
    """Write frames of a clip under these names, and the indexed masks in `kept`."""
    for folder in (frames, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        write_image(frames / f"{name}.jpg", drawn.frames[t])
        if t in kept:
            write_indexed_png(masks / f"{name}.png", kept[t])


def _five_digits(drawn: SyntheticClip, step: int = 1) -> list[str]:
    return [f"{step * t:05d}" for t in range(len(drawn.frames))]


def _davis(root: Path, clips: dict[str, SyntheticClip]) -> None:
    for name, drawn in clips.items():
        places = (root / "JPEGImages/480p" / name, root / "Annotations/480p" / name)
        _write(*places, drawn, _five_digits(drawn), dict(enumerate(drawn.masks)))
    (root / "ImageSets/2017").mkdir(parents=True)
    write_text(root / "ImageSets/2017/val.txt", "\n".join(clips) + "\n")


def _sav(root: Path, clips: dict[str, SyntheticClip]) -> None:
    for name, drawn in clips.items():
        for i in range(drawn.present.shape[1]):
            kept = {t: (m == i + 1).astype(np.uint8) for t, m in enumerate(drawn.masks)}
            places = (
                root / "JPEGImages_24fps" / name,
                root / "Annotations_6fps" / name / f"{i:03d}",
            )
            every = {t: mask for t, mask in kept.items() if t % SAV_STEP == 0}
            _write(*places, drawn, _five_digits(drawn), every)
    write_text(root / "sav_val.txt", "\n".join(clips) + "\n")


def _mose(root: Path, clips: dict[str, SyntheticClip]) -> None:
    for name, drawn in clips.items():
        places = (root / "JPEGImages" / name, root / "Annotations" / name)
        _write(*places, drawn, _five_digits(drawn), {0: drawn.masks[0]})


def _lvos(root: Path, clips: dict[str, SyntheticClip]) -> None:
    """Frames 1, 6, 11, ...; the meta file ends object 1's range two frames early."""
    videos = {}
    for name, drawn in clips.items():
        numbers = [1 + 5 * t for t in range(len(drawn.frames))]
        places = (root / "JPEGImages" / name, root / "Annotations" / name)
        kept = dict(enumerate(drawn.masks))
        _write(*places, drawn, [f"{number:08d}" for number in numbers], kept)
        ranges = {"1": (numbers[0], numbers[-3]), "2": (numbers[LATE], numbers[-1])}
        videos[name] = {
            "objects": {
                i: {"frame_range": {"start": a, "end": b, "frame_nums": (b - a) // 5 + 1}}
                for i, (a, b) in ranges.items()
            }
        }
    write_text(root / "val_meta.json", json.dumps({"videos": videos}))


def _youtube(root: Path, clips: dict[str, SyntheticClip]) -> None:
    videos = {}
    for name, drawn in clips.items():
        names = _five_digits(drawn, step=5)
        places = (root / "valid/JPEGImages" / name, root / "valid/Annotations" / name)
        late = np.where(drawn.masks[LATE] == 2, 2, 0).astype(np.uint8)
        _write(*places, drawn, names, {0: drawn.masks[0], LATE: late})
        videos[name] = {"objects": {"1": {"frames": names}, "2": {"frames": names[LATE:]}}}
    write_text(root / "valid/meta.json", json.dumps({"videos": videos}))
