"""`sam2-edge export`: a PyTorch SAM 2 into a bundle of ONNX graphs or TensorRT engines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, MemoryRounding
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import check_new_bundle
from sam2_edge.calibration.frames import DEFAULT_FRAMES
from sam2_edge.errors import ExportError
from sam2_edge.export.tensorrt.bundle import EngineOptions, build_engines, check_engine_options

_SHOWN = {
    "export": "exporting",
    "inputs": "recording inputs",
    "precision": "changing the precision",
    "structure": "checking the structure",
    "numbers": "comparing with PyTorch",
    "done": "done",
}
_EXTRA = "export needs PyTorch and transformers; install them with: pip install 'sam2_edge[export]'"
_WIDTH = 44
"""Of the text on what a builder does, characters."""


def _capabilities(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[tuple[int, int], ...]:
    """Read "8.6,8.9" as pairs of numbers."""
    if value is None:
        return ()
    try:
        pairs = [tuple(map(int, part.split("."))) for part in value.split(",")]
        return tuple((major, minor) for major, minor in pairs)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of compute capabilities; give them as 8.6,8.9"
        ) from error


@click.command()
@click.argument("model")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--target",
    type=click.Choice(["onnx", "tensorrt", "tensorrt-rtx"]),
    default="onnx",
    show_default=True,
    help="ONNX graphs, or engines of TensorRT or TensorRT-RTX.",
)
@click.option("--image-size", type=int, help="Model input, pixels [as trained: 1024, nano 256].")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed", "fp16", "int8"]),
    help="mixed: image encoder and memory attention in float16; fp16: every graph; int8: image "
    "encoder in INT8, needs --calibrate. [fp32]",
)
@click.option(
    "--calibrate",
    metavar="SOURCE",
    help="Video, folder of images, or number or URL of a camera: what will be seen in use. Needed "
    "for int8; shows mixed and fp16 which values are too large for float16.",
)
@click.option(
    "--calibration-method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    help="Which values of a tensor INT8 is to reach. [minmax]",
)
@click.option(
    "--calibration-frames",
    type=int,
    help=f"Frames taken evenly from SOURCE. [{DEFAULT_FRAMES}]",
)
@click.option(
    "--int8-budget",
    type=float,
    help="Leave layers in float until J&F on synthetic clips falls by at most this, such as 0.005.",
)
@click.option(
    "--memory-rounding",
    type=click.Choice(["bfloat16", "none"]),
    help="How memory is stored: bfloat16 as in the published predictor, or in full. [bfloat16]",
)
@click.option(
    "--memory-tokens",
    type=int,
    metavar="N",
    help="Attend to N tokens of each memory, the closest to the object and some evenly spread, "
    "which is faster and not exact. [all]",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Original .pt file for MODEL.")
@click.option("--random-init", type=int, metavar="SEED", help="Random weights, for tests.")
@click.option(
    "--compute-capability",
    "compute_capabilities",
    callback=_capabilities,
    metavar="X.Y[,X.Y]",
    help="GPUs that TensorRT-RTX builds for [the one in this machine].",
)
@click.option("--max-objects", type=int, help="Objects per run of an engine. [8]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that exists.")
def export(
    model: str,
    *,
    output: Path,
    target: Literal["onnx", "tensorrt", "tensorrt-rtx"],
    image_size: int | None,
    precision: Literal["fp32", "mixed", "fp16", "int8"] | None,
    calibrate: str | None,
    calibration_method: Literal["minmax", "percentile", "entropy"] | None,
    calibration_frames: int | None,
    int8_budget: float | None,
    memory_rounding: MemoryRounding | None,
    memory_tokens: int | None,
    checkpoint: Path | None,
    random_init: int | None,
    compute_capabilities: tuple[tuple[int, int], ...],
    max_objects: int | None,
    overwrite: bool,
) -> None:
    """Export MODEL as a bundle of ONNX graphs or engines.

    Export compares every graph with PyTorch.

    MODEL is a name such as sam2.1-hiera-tiny (fetched from the Hugging Face Hub unless a checkpoint
    is given), nano for the model that comes with sam2_edge, a folder in Hugging Face format, or an
    original .pt checkpoint. Engines are also built from a bundle of ONNX graphs, without PyTorch:
    then MODEL is that bundle.
    """
    check_new_bundle(output, overwrite=overwrite)
    choices = _Choices(
        image_size,
        precision,
        calibrate,
        calibration_method,
        calibration_frames,
        int8_budget,
        memory_rounding,
        memory_tokens,
        checkpoint,
        random_init,
    )
    choices.check()
    options = _engine_options(target, compute_capabilities, max_objects)
    with _Display() as display:
        if options is None:
            bundle = _export(model, output, choices, "cpu", display, overwrite=overwrite)
        else:
            with _graphs(model, output, choices, display) as graphs:
                bundle = build_engines(
                    graphs, output, options, overwrite=overwrite, watch=display.show
                )
    display.conclude(output, bundle)


@dataclass(frozen=True, slots=True)
class _Choices:
    """Options on how a PyTorch model becomes ONNX graphs; None where none was given."""

    image_size: int | None
    precision: Literal["fp32", "mixed", "fp16", "int8"] | None
    calibrate: str | None
    calibration_method: Literal["minmax", "percentile", "entropy"] | None
    calibration_frames: int | None
    int8_budget: float | None
    memory_rounding: MemoryRounding | None
    memory_tokens: int | None
    checkpoint: Path | None
    random_init: int | None

    def given(self) -> list[str]:
        """The options that were given, by their names on the command line."""
        values = asdict(self).items()
        return [f"--{name.replace('_', '-')}" for name, value in values if value is not None]

    def check(self) -> None:
        """Raise ExportError where an option would have no effect."""
        int8 = self.precision == "int8"
        for name, value, need, there in (
            ("frames", self.calibration_frames, "--calibrate", self.calibrate is not None),
            ("method", self.calibration_method, "--precision int8", int8),
        ):
            if value is not None and not there:
                raise ExportError(
                    f"--calibration-{name} {value} has no effect without {need}; leave it out"
                )
        if self.int8_budget is not None and not int8:
            raise ExportError(
                f"--int8-budget {self.int8_budget} has no effect without --precision int8; leave "
                "it out"
            )


def _engine_options(
    target: Literal["onnx", "tensorrt", "tensorrt-rtx"],
    compute_capabilities: tuple[tuple[int, int], ...],
    max_objects: int | None,
) -> EngineOptions | None:
    """Options of engines, checked; None for ONNX graphs."""
    if target != "onnx":
        objects = {} if max_objects is None else {"objects": max_objects}
        options = EngineOptions(target, compute_capabilities, **objects)
        check_engine_options(options)
        return options
    for name, given in (
        ("--compute-capability", bool(compute_capabilities)),
        ("--max-objects", max_objects is not None),
    ):
        if given:
            raise ExportError(f"{name} is for engines; add --target tensorrt-rtx or tensorrt")
    return None


class _Display:
    """A line per graph, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: Graph | str, step: str) -> None:
        """Say what happens to a graph, or to the model, now; "done" stops its clock."""
        name = what.value if isinstance(what, Graph) else what
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1, step="")
        task = self._tasks[name]
        if step == "done":
            self._progress.update(task, completed=1)
        if step != "done" or isinstance(what, Graph):
            text = _SHOWN.get(step, step)[:_WIDTH]
            self._progress.update(task, step=escape(f"{text:{_WIDTH}}"))

    def conclude(self, output: Path, bundle: Bundle) -> None:
        graphs = bundle.manifest.graphs.values()
        worst = max(max(entry.parity.values()) for entry in graphs)
        kind = "engines" if any(entry.engine for entry in graphs) else "graphs"
        self._console.print(
            f"{escape(str(output))}: {len(graphs)} {kind}; the ONNX graphs are within "
            f"{worst:.1e} of PyTorch"
        )


@contextmanager
def _graphs(model: str, output: Path, choices: _Choices, display: _Display) -> Iterator[Bundle]:
    """The ONNX graphs that engines are built from: a bundle that is there, or one made for it."""
    if (Path(model) / MANIFEST_FILE).is_file():
        if choices.given():
            raise ExportError(
                f"{model} is a bundle, whose graphs are as they are: leave out "
                f"{', '.join(choices.given())}, or export the model"
            )
        yield load_bundle(model)
        return
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        graphs = Path(folder) / output.name
        yield _export(model, graphs, choices, "tensorrt", display, overwrite=False)


def _export(
    model: str,
    output: Path,
    choices: _Choices,
    engine: Literal["cpu", "tensorrt"],
    display: _Display,
    *,
    overwrite: bool,
) -> Bundle:
    try:
        from sam2_edge.export.pipeline import check_calibration, export_bundle
        from sam2_edge.export.precision import Calibration
        from sam2_edge.models.checkpoints import load_model
    except ModuleNotFoundError as error:
        raise ExportError(f"{_EXTRA} ({error})") from error
    calibration = None
    if choices.calibrate is not None:
        calibration = Calibration(
            choices.calibrate,
            choices.calibration_method or "minmax",
            DEFAULT_FRAMES if choices.calibration_frames is None else choices.calibration_frames,
            choices.int8_budget,
        )
    check_calibration(choices.precision or "fp32", calibration)
    display.show("model", "loading")
    loaded = load_model(
        model,
        checkpoint=choices.checkpoint,
        random_seed=choices.random_init,
        image_size=choices.image_size,
    )
    display.show("model", f"{loaded.name} from {loaded.source}")
    display.show("model", "done")
    return export_bundle(
        loaded,
        output,
        precision=choices.precision or "fp32",
        engine=engine,
        calibration=calibration,
        memory_rounding=choices.memory_rounding or "bfloat16",
        memory_tokens=choices.memory_tokens,
        overwrite=overwrite,
        progress=display.show,
    )
