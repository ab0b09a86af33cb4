"""Writes synthetic clips as a data set in the layout of DAVIS.

JPEGImages/NAME/00000.jpg     frames
Annotations/NAME/00000.png    indexed masks: pixel values are object ids
prompts/NAME.json             a click on each object in its first frame, for `track --prompts`
clips.json                    seed, presence and occlusion of every clip
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sam2_edge.runtime.sinks.files import check_new_folder, make_folder, write_image, write_text
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.synthetic import SyntheticClip, center_click

FRAMES, MASKS, PROMPTS = "JPEGImages", "Annotations", "prompts"
INDEX = "clips.json"


def write_dataset(folder: Path, clips: Iterable[SyntheticClip], *, overwrite: bool = False) -> None:
    """Write clips to a folder. The index is written last: a folder with an index is complete.

    Raises:
        SinkError: If the folder is not empty and `overwrite` is not set, or cannot be written.
    """
    check_new_folder(folder, overwrite=overwrite)
    records = []
    for number, drawn in enumerate(clips):
        name = f"{number:05d}"
        _write_clip(folder, name, drawn)
        records.append(
            {
                "name": name,
                "seed": drawn.seed,
                "present": drawn.present.tolist(),
                "occluded": np.round(drawn.occluded.astype(float), 4).tolist(),
            }
        )
    write_text(folder / INDEX, json.dumps(records) + "\n")


def _write_clip(folder: Path, name: str, drawn: SyntheticClip) -> None:
    frames, masks = folder / FRAMES / name, folder / MASKS / name
    for path in (frames, masks, folder / PROMPTS):
        make_folder(path)
    for index, (frame, mask) in enumerate(zip(drawn.frames, drawn.masks, strict=True)):
        write_image(frames / f"{index:05d}.jpg", frame)
        write_indexed_png(masks / f"{index:05d}.png", mask)
    prompts = [
        {"frame": int(first), "object": i + 1, "points": [center_click(drawn.mask(first, i + 1))]}
        for i, first in enumerate(drawn.present.argmax(axis=0))
        if drawn.present[first, i]
    ]
    write_text(folder / PROMPTS / f"{name}.json", json.dumps(prompts) + "\n")
