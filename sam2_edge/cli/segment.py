"""`sam2-edge segment`: segment objects in a single image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from sam2_edge.cli.options import (
    PATH,
    PromptCommand,
    backend_options,
    bundle_option,
    json_option,
    overwrite_option,
    prompt_options,
)
from sam2_edge.errors import PromptError
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult, encode_rle
from sam2_edge.runtime.segmenter import ImageSegmenter, Segmentation
from sam2_edge.runtime.sinks.files import (
    check_new_file,
    check_new_folder,
    check_outputs,
    make_folder,
    write_image,
    write_text,
)
from sam2_edge.runtime.sinks.overlay import draw
from sam2_edge.runtime.sources.image_file import read_image


@click.command(cls=PromptCommand)
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
        raise PromptError("no prompt is given; give a point, a box or a mask")
    check_outputs([image], [overlay, masks, json_file])
    check_new_folder(masks, overwrite=overwrite)
    check_new_file(overlay, overwrite=overwrite)
    check_new_file(json_file, overwrite=overwrite)
    picture = read_image(image)
    segmenter = ImageSegmenter(bundle, backend=backend, threads=threads)
    segmenter.set_image(picture)
    results = {
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
        make_folder(masks)
    records = []
    table = Table("object", "rank", "predicted IoU", "pixels")
    for object_id, result in results.items():
        for rank, (mask, score) in enumerate(zip(result.masks, result.scores, strict=True)):
            table.add_row(str(object_id), str(rank), f"{score:.3f}", str(int(mask.sum())))
            rle = encode_rle(mask)
            records.append(
                {"object": object_id, "rank": rank, "iou": round(float(score), 6), "rle": rle}
            )
            if masks is not None:
                name = f"{object_id}_{rank}.png" if multimask else f"{object_id}.png"
                write_image(masks / name, mask.astype(np.uint8) * 255)
    Console(stderr=True).print(table)
    if overlay is not None:
        names = {prompt.object_id: prompt.name for prompt in prompts if prompt.name}
        frame = _as_frame(results, picture.shape[:2], names)
        write_image(overlay, draw(picture, frame))
    if json_file is not None:
        write_text(json_file, json.dumps(records, indent=1) + "\n")


def _as_frame(
    results: dict[int, Segmentation], size: tuple[int, int], names: dict[int, str]
) -> FrameResult:
    """Return the best masks as a frame's result, with every object present."""
    objects = tuple(
        ObjectResult(object_id, result.logits[0], float(result.scores[0]), 1.0, size)
        for object_id, result in results.items()
    )
    return FrameResult(0, objects, size, 0.0, names)
