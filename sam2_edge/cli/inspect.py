"""`sam2-edge inspect`: what a bundle holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from sam2_edge.bundle import Bundle, TensorEntry, load_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, *, as_json: bool) -> None:
    """Check BUNDLE and print what it holds."""
    loaded = load_bundle(bundle)
    if as_json:
        click.echo(loaded.manifest.model_dump_json(indent=2))
    else:
        _show(loaded)


def _show(bundle: Bundle) -> None:
    manifest, console = bundle.manifest, Console()
    memory = manifest.memory
    facts = {
        "model": f"{manifest.model.name} ({manifest.model.family}) from {manifest.model.source}",
        "weights sha256": manifest.model.sha256 or "random weights",
        "image size": f"{manifest.image_size} x {manifest.image_size} pixels",
        "memory": f"{memory.slots} memories of {memory.channels} channels, {memory.pointers} object "
        f"pointers of {memory.hidden}, rounding: {memory.rounding}",
        "made by": f"sam2_edge {manifest.sam2_edge_version}, format {manifest.format_version}",
    }
    for name, value in facts.items():
        console.print(f"[bold]{name}[/]: {value}", highlight=False)
    table = Table("graph", "backend", "MB", "inputs", "outputs", "against PyTorch")
    for graph, entry in manifest.graphs.items():
        size = sum((bundle.path / f.file).stat().st_size for f in (entry, *entry.data))
        worst = max(entry.parity.values(), default=0.0)
        table.add_row(
            graph.value,
            f"{entry.backend}\n{entry.precision}, opset {entry.opset}",
            f"{size / 1e6:.1f}",
            _tensors(entry.inputs),
            _tensors(entry.outputs),
            f"{worst:.1e}",
        )
    console.print(table)


def _tensors(entries: Sequence[TensorEntry]) -> str:
    return "\n".join(f"{e.name} {e.dtype} {'x'.join(map(str, e.axes))}" for e in entries)
