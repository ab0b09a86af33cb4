"""`sam2-edge export`: export a PyTorch SAM 2 as a bundle of ONNX graphs or TensorRT engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from sam2_edge.bundle.contract import MemoryRounding
from sam2_edge.bundle.storage import check_new_bundle
from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.calibration.frames import DEFAULT_FRAMES
from sam2_edge.cli.build_engines import engine_options
from sam2_edge.cli.export_checks import check_image_size, check_model
from sam2_edge.cli.options import BUNDLE_PATH, PATH, overwrite_option
from sam2_edge.cli.progress import ExportProgress
from sam2_edge.errors import ExportError
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import (
    EngineOptions,
    check_engine_options,
    check_precisions,
)
from sam2_edge.export.tensorrt.reference import add_references
from sam2_edge.extras import naming_the_extra
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from sam2_edge.runtime.sources.camera import is_camera
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.triton.repository import DEFAULT_NAME, check_new_model, write_triton_repository

_VARIANTS: dict[str, TensorRtVariant] = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}
"""By target; the other targets are ONNX graphs."""


_EXAMPLE = """\b
Example:
  sam2-edge export sam2.1-hiera-tiny --output tiny
"""


@click.command(epilog=_EXAMPLE)
@click.argument("model")
@click.option("--output", type=BUNDLE_PATH, required=True, help="Folder to write.")
@click.option(
    "--target",
    type=click.Choice(["onnx", "cuda", "tensorrt", "tensorrt-rtx"]),
    default="onnx",
    show_default=True,
    help="ONNX graphs for CPUs; ONNX graphs for NVIDIA GPUs, from which build-engines builds too; "
    "or engines of TensorRT or TensorRT-RTX.",
)
@click.option(
    "--image-size", type=int, help="Side of the model input, pixels. [as trained: 1024, nano 256]"
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed", "fp16", "int8"]),
    help="mixed: image encoder and memory attention in float16; fp16: every graph in float16; "
    "int8: image encoder in INT8, requires --calibrate. [fp32 for onnx, otherwise fp16]",
)
@click.option(
    "--calibrate",
    metavar="SOURCE",
    help="Representative video, folder of images, or camera (number or URL). Required for int8; "
    "for mixed and fp16 it reveals values that overflow float16.",
)
@click.option(
    "--calibration-method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How INT8 ranges are derived from the observed values.",
)
@click.option(
    "--calibration-frames",
    type=click.IntRange(min=1),
    default=DEFAULT_FRAMES,
    show_default=True,
    help="Number of frames, spread evenly over SOURCE.",
)
@click.option(
    "--int8-budget",
    type=float,
    help="Keep layers in float until J&F on synthetic clips drops by at most this, such as 0.005.",
)
@click.option(
    "--memory-rounding",
    type=click.Choice(["bfloat16", "none"]),
    default="bfloat16",
    show_default=True,
    help="Rounding of stored memory: bfloat16 as in the published predictor, or none.",
)
@click.option(
    "--memory-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Attend to N tokens of each memory, some closest to the object and some evenly spread: "
    "faster, but not exact. [all]",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Original .pt file of MODEL.")
@click.option("--random-init", type=int, metavar="SEED", help="Use random weights, for tests.")
@click.option(
    "--triton-repository",
    type=PATH,
    metavar="DIR",
    help="Also write a model of Triton Inference Server into DIR; see sam2-edge triton.",
)
@engine_options
@overwrite_option
@click.pass_context
def export(
    ctx: click.Context,
    model: str,
    *,
    output: Path,
    target: Literal["onnx", "cuda", "tensorrt", "tensorrt-rtx"],
    image_size: int | None,
    precision: Literal["fp32", "mixed", "fp16", "int8"] | None,
    calibrate: str | None,
    calibration_method: Literal["minmax", "percentile", "entropy"],
    calibration_frames: int,
    int8_budget: float | None,
    memory_rounding: MemoryRounding,
    memory_tokens: int | None,
    checkpoint: Path | None,
    random_init: int | None,
    triton_repository: Path | None,
    compute_capabilities: tuple[tuple[int, int], ...],
    max_objects: int,
    overwrite: bool,
) -> None:
    """Export MODEL as a bundle of ONNX graphs or engines.

    Every graph is compared with PyTorch.

    MODEL is a name such as sam2.1-hiera-tiny (downloaded from the Hugging Face Hub unless
    --checkpoint is given), nano for the model bundled with sam2_edge, a folder in Hugging Face
    format, or an original .pt checkpoint.
    """
    _check_options(ctx)
    check_model(model, checkpoint, random_init)
    check_image_size(model, image_size)
    check_new_bundle(output, overwrite=overwrite)
    if triton_repository is not None:
        check_new_model(triton_repository, DEFAULT_NAME, overwrite=overwrite)
    if precision is None:
        precision = "fp32" if target == "onnx" else "fp16"
    engines = None
    variant = _VARIANTS.get(target)
    if variant is not None:
        engines = EngineOptions(variant, compute_capabilities, max_objects)
        check_engine_options(engines)
    with _needing_the_extra():
        from sam2_edge.export.precision import Calibration, ExportOptions
    calibration = None
    if calibrate is not None:
        if not is_camera(calibrate):
            open_source(calibrate)
        calibration = Calibration(calibrate, calibration_method, calibration_frames, int8_budget)
    options = ExportOptions(
        precision=precision,
        target="cpu" if target == "onnx" else "gpu",
        calibration=calibration,
        memory_rounding=memory_rounding,
        memory_tokens=memory_tokens,
    )
    if engines is not None:
        check_precisions(engines, set(options.precisions.values()), rounding=options.rounding)
    with _needing_the_extra():  # PyTorch takes seconds to import, so that checks come before
        from sam2_edge.export.pipeline import export_bundle
        from sam2_edge.models.checkpoints import load_model
    with _keeping_nothing(), ExportProgress() as progress, scratch_folder() as scratch:
        progress.update("model", "loading")
        loaded = load_model(
            model, checkpoint=checkpoint, random_seed=random_init, image_size=image_size
        )
        progress.update("model", f"{loaded.name} from {loaded.source}", finished=True)
        graphs = output if engines is None else scratch / "graphs"
        bundle = export_bundle(
            loaded, graphs, options, overwrite=overwrite, on_progress=progress.update
        )
        if target == "cuda":
            # For engines that will be built elsewhere, with the default limits.
            bundle = add_references(bundle, EngineOptions("tensorrt"))
        if engines is not None:
            bundle = build_engines(
                bundle, output, engines, overwrite=overwrite, on_progress=progress.update
            )
        if triton_repository is not None:
            write_triton_repository(bundle, triton_repository, overwrite=overwrite)
    progress.summarize(output, bundle)


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    try:
        with naming_the_extra():
            yield
    except ModuleNotFoundError as error:
        raise ExportError(
            "export needs PyTorch and transformers; install them with: pip install "
            f"'sam2_edge[export]' ({error})"
        ) from error


@contextmanager
def _keeping_nothing() -> Iterator[None]:
    """Say of an interruption that nothing was kept: a bundle appears when it is complete."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt("nothing was kept") from interruption


def _check_options(ctx: click.Context) -> None:
    """Raise ExportError for an option that has no effect."""
    values = ctx.params
    int8 = ("--precision int8", values["precision"] == "int8")
    engines = ("--target tensorrt or tensorrt-rtx", values["target"] in _VARIANTS)
    required = {
        "calibration_frames": ("--calibrate", values["calibrate"] is not None),
        "calibration_method": int8,
        "int8_budget": int8,
        "compute_capabilities": engines,
        "max_objects": engines,
    }
    for parameter in ctx.command.params:
        name = parameter.name or ""
        option, present = required.get(name, ("", True))
        if not present and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ExportError(
                f"{parameter.opts[0]} has no effect without {option}; add that or leave it out"
            )
