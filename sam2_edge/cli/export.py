"""`sam2-edge export`: a PyTorch SAM 2 into a bundle of graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sam2_edge.bundle import check_new_bundle
from sam2_edge.contract import Graph, MemoryRounding
from sam2_edge.errors import ExportError

_STEPS = ("export", "precision", "structure", "numbers", "done")
_SHOWN = {
    "export": "exporting",
    "precision": "changing the precision",
    "structure": "checking the structure",
    "numbers": "comparing with PyTorch",
    "done": "done",
}
_EXTRA = "export needs PyTorch and transformers; install them with: pip install 'sam2_edge[export]'"


@click.command()
@click.argument("model")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--image-size", type=int, help="Model input, pixels [as trained: 1024, nano 256].")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed", "fp16"]),
    default="fp32",
    show_default=True,
    help="mixed: image encoder and memory attention in float16; fp16: every graph.",
)
@click.option(
    "--memory-rounding",
    type=click.Choice(["bfloat16", "none"]),
    default="bfloat16",
    show_default=True,
    help="How memory is stored: bfloat16 as in the published predictor, or in full.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Original .pt file for MODEL.")
@click.option("--random-init", type=int, metavar="SEED", help="Random weights, for tests.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that exists.")
def export(
    model: str,
    *,
    output: Path,
    image_size: int | None,
    precision: Literal["fp32", "mixed", "fp16"],
    memory_rounding: MemoryRounding,
    checkpoint: Path | None,
    random_init: int | None,
    overwrite: bool,
) -> None:
    """Export MODEL as a bundle of ONNX graphs, checked against PyTorch.

    MODEL is a name such as sam2.1-hiera-tiny (fetched from the Hugging Face Hub unless a checkpoint
    is given), nano for the model that comes with sam2_edge, a folder in Hugging Face format, or an
    original .pt checkpoint.
    """
    check_new_bundle(output, overwrite=overwrite)
    try:
        from sam2_edge.export.pipeline import export_bundle
        from sam2_edge.models.checkpoints import load_model
    except ModuleNotFoundError as error:
        raise ExportError(f"{_EXTRA} ({error})") from error
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:18}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        loading = progress.add_task("model", total=1, step="loading")
        loaded = load_model(
            model, checkpoint=checkpoint, random_seed=random_init, image_size=image_size
        )
        progress.update(loading, completed=1, step=escape(f"{loaded.name} from {loaded.source}"))
        total = len(_STEPS) - 1
        tasks = {g: progress.add_task(g.value, total=total, step="", start=False) for g in Graph}

        def show(graph: Graph, step: str) -> None:
            progress.start_task(tasks[graph])
            progress.update(tasks[graph], completed=_STEPS.index(step), step=_SHOWN[step])

        bundle = export_bundle(
            loaded,
            output,
            precision=precision,
            memory_rounding=memory_rounding,
            overwrite=overwrite,
            progress=show,
        )
    worst = max(max(entry.parity.values()) for entry in bundle.manifest.graphs.values())
    count = len(bundle.manifest.graphs)
    console.print(f"{escape(str(output))}: {count} graphs, within {worst:.1e} of PyTorch")
