"""`sam2-edge synth`: short clips with exact masks, for trying and evaluating trackers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

from sam2_edge.cli.options import PATH, Decorator
from sam2_edge.cli.output import Advance, notes, progress
from sam2_edge.synthetic import Split, SyntheticClip

_EXAMPLES = """\b
Example:
  sam2-edge synth clips --clips 3 --frames 64
"""


def _count_option(name: str, default: int, low: int, high: int | None, text: str) -> Decorator:
    kind = click.IntRange(low, high)
    return click.option(name, type=kind, default=default, show_default=True, help=text)


@click.command(epilog=_EXAMPLES)
@click.argument("folder", type=PATH)
@_count_option("--clips", 1, 1, None, "Number of clips.")
@_count_option("--seed", 0, 0, None, "Seed of the first clip; the others follow it.")
@_count_option("--frames", 32, 1, 10_000, "Frames per clip.")
@_count_option("--size", 256, 16, 2048, "Side of the frames, pixels.")
@_count_option("--objects", 2, 1, 20, "Objects per clip.")
@click.option(
    "--split",
    type=click.Choice(get_args(Split)),
    default="heldout",
    show_default=True,
    help="Textures and photographs to use; the bundled model was not trained on the held-out ones.",
)
@click.option("--no-photographs", is_flag=True, help="Use generated textures only.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
def synth(
    folder: Path,
    *,
    clips: int,
    seed: int,
    frames: int,
    size: int,
    objects: int,
    split: Split,
    no_photographs: bool,
    overwrite: bool,
) -> None:
    """Write synthetic clips with exact masks into FOLDER.

    The folder has the layout of DAVIS. Textured objects move, deform, occlude each other and leave
    the frame. The same options generate the same clips.
    """
    from sam2_edge.synthetic import clip
    from sam2_edge.synthetic.dataset import write_dataset

    def generate(advance: Advance) -> Iterator[SyntheticClip]:
        for number in range(clips):
            yield clip(
                seed + number,
                frames=frames,
                size=size,
                objects=objects,
                split=split,
                photographs=not no_photographs,
            )
            advance("")

    with progress("writing", clips, "clips") as advance:
        write_dataset(folder, generate(advance), overwrite=overwrite)
    console = notes()
    console.print(
        f"{folder}: {clips} clips of {frames} frames with {objects} objects", markup=False
    )
    console.print(
        f"try: sam2-edge track {folder}/JPEGImages/00000 --bundle nano "
        f"--prompts {folder}/prompts/00000.json --video overlay.mp4",
        markup=False,
    )
