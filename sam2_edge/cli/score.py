"""`sam2-edge score`: J and F of masks against ground truth."""

from __future__ import annotations

from pathlib import Path

import click

_EXAMPLES = """\b
Example:
  sam2-edge score masks clips/Annotations/00000
"""


@click.command(epilog=_EXAMPLES)
@click.argument("masks", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
def score(masks: Path, truth: Path) -> None:
    """Score MASKS against TRUTH: J and F per object.

    Both are folders of indexed PNG files with the same names, as written by `track --masks`. As in
    DAVIS, the first and last frames are not scored.
    """
    from sam2_edge.evaluation.mask_folders import folder_accuracy

    for object_id, mean in folder_accuracy(masks, truth).items():
        click.echo(f"object {object_id}: J&F {mean.j_and_f:.3f} (J {mean.j:.3f}, F {mean.f:.3f})")
