"""Data sets in the layout of DAVIS: written from synthetic clips, and masks scored against truth.

JPEGImages/NAME/00000.jpg     frames
Annotations/NAME/00000.png    indexed masks: the pixel value is the object id
prompts/NAME.json             a click on each object where it is first seen, as `track` takes them
clips.json                    seed, presence and occlusion of every clip
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SinkError, SourceError, without_traceback
from sam2_edge.evaluation.metrics import Accuracy, object_accuracy
from sam2_edge.runtime.sinks.files import check_new_folder, write_image, write_text
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.synthetic import SyntheticClip, center_click

FRAMES, MASKS, PROMPTS = "JPEGImages", "Annotations", "prompts"
INDEX = "clips.json"


def write_dataset(folder: Path, clips: Iterable[SyntheticClip], *, overwrite: bool = False) -> None:
    """Write clips as they come; the index comes last, so a folder with an index is whole.

    Raises SinkError when the folder is not empty, unless `overwrite` is set, or cannot be written.
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


def folder_accuracy(masks: Path, truth: Path) -> dict[int, Accuracy]:
    """J and F of each object that the first true mask shows, from two folders of indexed PNG files.

    Raises SourceError for folders whose files do not pair by name, or that hold other sizes.
    """
    names = _png_names(truth)
    if names != _png_names(masks):
        raise SourceError(
            f"{masks} and {truth} hold different file names; give the masks of the same clip"
        )
    ours, theirs = ([read_indexed_png(f / name) for name in names] for f in (masks, truth))
    if len(names) < 3 or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        raise SourceError(
            f"{masks} and {truth} must hold three masks or more, of equal sizes; the first and the "
            "last frame do not count"
        )
    return {
        int(i): object_accuracy([m == i for m in ours], [m == i for m in theirs])
        for i in np.unique(theirs[0])
        if i
    }


def read_indexed_png(path: Path) -> NDArray[np.uint8]:
    """Pixel values of an indexed or gray PNG of at most 8 bits, [H,W] uint8, 0..255.

    Raises SourceError when it cannot be read, is in color or has more bits.
    """
    try:
        with Image.open(path) as image:
            indexed = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: a chunk is damaged
        raise SourceError(f"{path} cannot be read ({error}); write it again") from error
    if indexed.ndim != 2:
        raise SourceError(f"{path} is a picture in color; give an indexed mask")
    if indexed.dtype not in (np.uint8, np.bool_):
        raise SourceError(f"{path} has {indexed.dtype} pixels; give an indexed mask of 8 bits")
    return indexed.astype(np.uint8)


def _write_clip(folder: Path, name: str, drawn: SyntheticClip) -> None:
    frames, masks = folder / FRAMES / name, folder / MASKS / name
    try:
        for path in (frames, masks, folder / PROMPTS):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{folder} cannot be filled: {error.strerror}; choose another") from error
    for index, (frame, mask) in enumerate(zip(drawn.frames, drawn.masks, strict=True)):
        write_image(frames / f"{index:05d}.jpg", frame)
        write_indexed_png(masks / f"{index:05d}.png", mask)
    prompts = [
        {"frame": int(first), "object": i + 1, "points": [center_click(drawn.mask(first, i + 1))]}
        for i, first in enumerate(drawn.present.argmax(axis=0))
        if drawn.present[first, i]
    ]
    write_text(folder / PROMPTS / f"{name}.json", json.dumps(prompts) + "\n")


def _png_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def main() -> None:
    """Print J and F per object from two folders of masks."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m sam2_edge.evaluation.vos.synthetic_dataset MASKS TRUTH")
    masks, truth = (Path(argument) for argument in sys.argv[1:])
    for object_id, found in folder_accuracy(masks, truth).items():
        sys.stdout.write(
            f"object {object_id}: J&F {found.j_and_f:.3f} (J {found.j:.3f}, F {found.f:.3f})\n"
        )


if __name__ == "__main__":
    with without_traceback():
        main()
