"""`sam2-edge build-engines`: build TensorRT engines from a bundle of ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sam2_edge.bundle import load_bundle
from sam2_edge.cli.options import BUNDLE_PATH, overwrite_option
from sam2_edge.cli.progress import ExportProgress
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import DEFAULT_MAX_OBJECTS, EngineOptions
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _parse_capabilities(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[tuple[int, int], ...]:
    """Parse "8.6,8.9" as pairs of numbers."""
    if value is None:
        return ()
    try:
        pairs = [tuple(map(int, part.split("."))) for part in value.split(",")]
        return tuple((major, minor) for major, minor in pairs)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of compute capabilities; give them as 8.6,8.9"
        ) from error


def engine_options(function: _Function) -> _Function:
    """Add --compute-capability and --max-objects to a command."""
    capability = click.option(
        "--compute-capability",
        "compute_capabilities",
        callback=_parse_capabilities,
        metavar="X.Y[,X.Y]",
        help="GPUs that TensorRT-RTX builds for. [this machine's GPU]",
    )
    objects = click.option(
        "--max-objects",
        type=click.IntRange(min=1),
        default=DEFAULT_MAX_OBJECTS,
        show_default=True,
        help="Maximum number of objects per run of an engine.",
    )
    return capability(objects(function))


_EXAMPLES = """\b
Example:
  sam2-edge export sam2.1-hiera-tiny --target cuda --output tiny
  sam2-edge build-engines tiny --target tensorrt --output tiny-engines
"""


@click.command(name="build-engines", epilog=_EXAMPLES)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option("--output", type=BUNDLE_PATH, required=True, help="Folder to write.")
@click.option(
    "--target",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    required=True,
    help="TensorRT builds for this machine's GPU, TensorRT-RTX for any.",
)
@engine_options
@overwrite_option
def build_engines_command(
    bundle: Path,
    *,
    output: Path,
    target: TensorRtVariant,
    compute_capabilities: tuple[tuple[int, int], ...],
    max_objects: int,
    overwrite: bool,
) -> None:
    """Build TensorRT engines from the ONNX graphs of BUNDLE.

    Export BUNDLE with --target cuda: graphs for CPUs become slower engines. PyTorch is not
    required. Each engine is run and compared with ONNX Runtime: here if this machine has the GPU,
    otherwise when the bundle is first opened.
    """
    options = EngineOptions(target, compute_capabilities, max_objects)
    with ExportProgress() as progress:
        engines = build_engines(
            load_bundle(bundle), output, options, overwrite=overwrite, on_progress=progress.update
        )
    progress.summarize(output, engines)
