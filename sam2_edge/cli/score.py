"""`sam2-edge score`: J and F of masks against the truth."""

from __future__ import annotations

from pathlib import Path

import click

from sam2_edge.evaluation.mask_folders import folder_accuracy


@click.command()
@click.argument("masks", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
def score(masks: Path, truth: Path) -> None:
    """Score MASKS against TRUTH: J and F per object.

    Both are folders of indexed PNG files with the same names, such as `track --masks` writes. As in
    DAVIS, the first and the last frame are not scored.
    """
    for object_id, found in folder_accuracy(masks, truth).items():
        click.echo(
            f"object {object_id}: J&F {found.j_and_f:.3f} (J {found.j:.3f}, F {found.f:.3f})"
        )
