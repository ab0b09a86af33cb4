"""`sam2-edge synth`: short clips with exact masks, to try and to measure trackers with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from sam2_edge.evaluation.vos.synthetic_dataset import write_dataset
from sam2_edge.synthetic import Split, SyntheticClip, clip


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--clips", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the first."
)
@click.option("--frames", default=32, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--size", default=256, show_default=True, type=click.IntRange(16, 2048), help="Pixels."
)
@click.option(
    "--objects", default=2, show_default=True, type=click.IntRange(1, 20), help="Per clip."
)
@click.option(
    "--split",
    type=click.Choice(["train", "heldout"]),
    default="heldout",
    show_default=True,
    help="Which textures and photographs; the bundled model never saw the held-out ones.",
)
@click.option("--no-photographs", is_flag=True, help="Generated textures only.")
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

    The folder is laid out as DAVIS. Textured objects move, deform, occlude each other and leave the
    frame. The same options give the same clips.
    """
    console = Console(stderr=True)

    def made() -> Iterator[SyntheticClip]:
        for number in track(range(clips), description="clips", console=console):
            yield clip(
                seed + number,
                frames=frames,
                size=size,
                objects=objects,
                split=split,
                photographs=not no_photographs,
            )

    write_dataset(folder, made(), overwrite=overwrite)
    where = escape(str(folder))
    console.print(f"{where}: {clips} clips of {frames} frames with {objects} objects")
    console.print(
        f"try: sam2-edge track {where}/JPEGImages/00000 --bundle nano "
        f"--prompts {where}/prompts/00000.json --video overlay.mp4"
    )
