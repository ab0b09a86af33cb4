"""`sam2-edge segment`: segment objects in a single image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam2_edge.cli.options import (
    PATH,
    PromptCommand,
    backend_options,
    bundle_option,
    json_option,
    overwrite_option,
    prompt_options,
)
from sam2_edge.cli.output import new_table, results, show_table
from sam2_edge.errors import PromptError, printable

if TYPE_CHECKING:
    from sam2_edge.runtime.backends import BackendName
    from sam2_edge.runtime.prompts import Prompt
    from sam2_edge.runtime.results import FrameResult, ObjectResult
    from sam2_edge.runtime.segmenter import Segmentation

_EXAMPLES = """\b
Examples:
  sam2-edge segment photo.jpg --bundle nano --point 320,240 --overlay overlay.png
  sam2-edge segment photo.jpg --bundle nano --box 10,10,90,80 --json | jq '.[0].box'
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLES)
@click.argument("image", type=PATH)
@bundle_option
@prompt_options
@click.option(
    "--multimask", is_flag=True, help="Predict three masks per object, not just the best one."
)
@click.option("--overlay", type=PATH, help="Write the overlay image here.")
@click.option("--masks", type=PATH, help="Write one PNG per mask here.")
@json_option
@overwrite_option
@backend_options
def segment(
    image: Path,
    *,
    bundle: Path,
    prompts: Sequence[Prompt],
    multimask: bool,
    overlay: Path | None,
    masks: Path | None,
    json_file: Path | None,
    overwrite: bool,
    backend: BackendName,
    threads: int | None,
) -> None:
    """Segment the prompted objects in IMAGE.

    Masks are written as OBJECT.png, or OBJECT_RANK.png with --multimask; foreground is 255.
    """
    if not prompts:
        raise PromptError("no prompt is given; give --point, --box or --mask")
    from sam2_edge.runtime.segmenter import ImageSegmenter
    from sam2_edge.runtime.sinks import files
    from sam2_edge.runtime.sinks.overlay import draw
    from sam2_edge.runtime.sources.image_file import read_image

    files.check_outputs([image], [overlay, masks, json_file])
    files.check_new_folder(masks, overwrite=overwrite)
    files.check_new_file(overlay, overwrite=overwrite)
    files.check_image_suffix(overlay)
    files.check_new_file(json_file, overwrite=overwrite)
    picture = read_image(image)
    segmenter = ImageSegmenter(bundle, backend=backend, threads=threads)
    segmenter.set_image(picture)
    found = {
        prompt.object_id: segmenter.predict(
            points=prompt.points,
            labels=prompt.labels,
            box=prompt.box,
            mask=prompt.mask,
            multimask=multimask,
        )
        for prompt in prompts
    }
    if masks is not None:
        _write_masks(masks, found, ranked=multimask)
    names = {prompt.object_id: prompt.name for prompt in prompts if prompt.name}
    if overlay is not None:
        files.write_image(overlay, draw(picture, _as_frame(found, picture.shape[:2], names)))
    records = _records(found, picture.shape[:2], names)
    if json_file is not None:
        files.write_text(json_file, json.dumps(records, indent=1) + "\n")
    _show(records, silent=json_file == files.STANDARD_OUTPUT)


def _write_masks(folder: Path, found: dict[int, Segmentation], *, ranked: bool) -> None:
    from sam2_edge.runtime.sinks.files import make_folder, write_image

    make_folder(folder)
    for object_id, result in found.items():
        for rank, mask in enumerate(result.masks):
            name = f"{object_id}_{rank}.png" if ranked else f"{object_id}.png"
            write_image(folder / name, mask.astype("uint8") * 255)


def _records(
    found: dict[int, Segmentation], size: tuple[int, int], names: dict[int, str]
) -> list[dict[str, Any]]:
    """Return the JSON record of every mask; the best of each object is first."""
    records = []
    for object_id, result in found.items():
        for rank, score in enumerate(result.scores):
            one = _as_result(object_id, result, size, rank)
            centroid = one.centroid
            records.append(
                {
                    "object": object_id,
                    "name": printable(names.get(object_id, "")) or None,
                    "rank": rank,
                    "iou": round(float(score), 6),
                    "box": one.box,
                    "area": one.area,
                    "centroid": None if centroid is None else [round(v, 2) for v in centroid],
                    "rle": one.to_rle(),
                }
            )
    return records


def _show(records: Sequence[dict[str, Any]], *, silent: bool) -> None:
    table = new_table("object", "rank", "predicted IoU", "pixels", "box")
    for record in records:
        box = ",".join(map(str, record["box"] or ()))
        figures = (record["object"], record["rank"], f"{record['iou']:.3f}", record["area"], box)
        table.add_row(*map(str, figures))
    show_table(results(silent=silent), table)


def _as_result(
    object_id: int, result: Segmentation, size: tuple[int, int], rank: int = 0
) -> ObjectResult:
    from sam2_edge.runtime.results import ObjectResult

    return ObjectResult(object_id, result.logits[rank], float(result.scores[rank]), 1.0, size)


def _as_frame(
    found: dict[int, Segmentation], size: tuple[int, int], names: dict[int, str]
) -> FrameResult:
    """Return the best masks as a frame's result, with every object present."""
    from sam2_edge.runtime.results import FrameResult

    objects = tuple(_as_result(object_id, result, size) for object_id, result in found.items())
    return FrameResult(0, objects, size, 0.0, names)
