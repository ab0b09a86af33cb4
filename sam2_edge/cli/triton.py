"""`sam2-edge triton`: a model repository for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sam2_edge.cli.options import BUNDLE_PATH, PATH, overwrite_option
from sam2_edge.cli.output import notes
from sam2_edge.triton.repository import DEFAULT_NAME, check_new_model, write_triton_repository

_EXAMPLE = """\b
Example:
  sam2-edge triton tiny --repository models
  tritonserver --model-repository models
"""


@click.command(epilog=_EXAMPLE)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option(
    "--repository", type=PATH, required=True, help="Model repository to add the model to."
)
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Name of the model.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    help="Where the model runs; gpu: on every GPU. [what BUNDLE is for]",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on the CPU, or on each GPU, among which streams are divided.",
)
@overwrite_option
def triton(
    bundle: Path,
    *,
    repository: Path,
    name: str,
    device: Literal["cpu", "gpu"] | None,
    instances: int,
    overwrite: bool,
) -> None:
    """Write BUNDLE as a model of Triton Inference Server.

    The model tracks a stream for each correlation id. TritonTracker, in sam2_edge.client, is its
    client. Limits are in config.pbtxt.
    """
    from sam2_edge.bundle import load_bundle

    check_new_model(repository, name, overwrite=overwrite)
    target = write_triton_repository(
        load_bundle(bundle),
        repository,
        name=name,
        device=device,
        instances=instances,
        overwrite=overwrite,
    )
    notes().print(f"wrote {target}; start it with: tritonserver --model-repository {repository}")
