"""`sam2-edge inspect`: the contents of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam2_edge.cli.options import BUNDLE_PATH
from sam2_edge.cli.output import new_table, results, show_table

if TYPE_CHECKING:
    from rich.table import Table

    from sam2_edge.bundle import Bundle

MAX_LAYERS = 10

_EXAMPLES = """\b
Examples:
  sam2-edge inspect nano
  sam2-edge inspect tiny --json | jq .model.sha256
"""


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, *, as_json: bool) -> None:
    """Check BUNDLE and print its contents."""
    from sam2_edge.bundle import load_bundle

    loaded = load_bundle(bundle)
    if as_json:
        click.echo(loaded.manifest.model_dump_json(indent=2))
    else:
        _show(loaded)


def _show(bundle: Bundle) -> None:
    from rich.markup import escape

    from sam2_edge.bundle.contract import Graph
    from sam2_edge.cli.progress import memory_note, parity_note

    manifest, console = bundle.manifest, results()
    memory = manifest.memory
    facts = {
        "model": f"{manifest.model.name} ({manifest.model.family}) from {manifest.model.source}",
        "weights sha256": manifest.model.sha256 or "random weights",
        "graphs for": "NVIDIA GPUs" if manifest.target == "gpu" else "CPUs",
        "image size": f"{manifest.image_size} x {manifest.image_size} pixels",
        "memory": f"{memory.slots} memories of {memory.channels} channels, {memory.pointers} "
        f"object pointers of {memory.hidden}, rounding: {memory.rounding}"
        + (f", {memory.tokens} tokens of each attended to" if memory.tokens else ""),
        "made by": f"sam2_edge {manifest.sam2_edge_version}, format {manifest.format_version}",
    }
    engine = manifest.graphs[Graph.MASK_DECODER].engine
    if engine is not None:
        gpus = ", ".join(f"{major}.{minor}" for major, minor in engine.compute_capabilities)
        facts["engines"] = (
            f"{engine.variant} {engine.version} for compute capability {gpus}, up to "
            f"{engine.profile['B'][2]} objects in one run"
        )
        facts["GPU memory"] = memory_note(manifest)
    for name, value in facts.items():
        console.print(f"[bold]{name}[/]: {escape(value)}")
    tables = (_graph_table(bundle), *_engine_tables(bundle), _tensor_table(bundle))
    for table in (*tables, *_sensitivity_tables(bundle)):
        show_table(console, table)
    console.print(f"[italic]{escape(parity_note(bundle))}[/]")


def _graph_table(bundle: Bundle) -> Table:
    from sam2_edge.bundle.contract import PARITY_TOLERANCE

    columns = ["graph", "MB", "precision", "opset", "difference", "tolerance"]
    table = new_table(*columns, title="graphs, and their largest difference to PyTorch")
    for graph, entry in bundle.manifest.graphs.items():
        size = sum((bundle.path / f.file).stat().st_size for f in (entry, *entry.data))
        table.add_row(
            graph.value,
            f"{size / 1e6:.1f}",
            entry.precision,
            str(entry.opset),
            f"{entry.difference:.1e}",
            f"{PARITY_TOLERANCE[entry.precision]:.0e}",
        )
    return table


def _engine_tables(bundle: Bundle) -> Iterator[Table]:
    """Yield a table of the memory of each engine and the sizes that it takes, if there are any."""
    table = new_table("graph", "activation MiB", "sizes", title="engines")
    for graph, entry in bundle.manifest.graphs.items():
        if entry.engine is not None:
            known = entry.engine.activation_bytes
            memory = "unknown" if known is None else f"{known / 2**20:.0f}"
            profile = entry.engine.profile.items()
            sizes = ", ".join(f"{axis} {low}-{high}" for axis, (low, _, high) in profile)
            table.add_row(graph.value, memory, sizes or "fixed")
    if table.row_count:
        yield table


def _tensor_table(bundle: Bundle) -> Table:
    table = new_table("graph", "", "tensor", "dtype", "shape", title="tensors")
    for graph, entry in bundle.manifest.graphs.items():
        for kind, tensors in (("in", entry.inputs), ("out", entry.outputs)):
            for t in tensors:
                table.add_row(graph.value, kind, t.name, t.dtype, " x ".join(map(str, t.axes)))
    return table


def _sensitivity_tables(bundle: Bundle) -> Iterator[Table]:
    """Yield a table of the most sensitive layers of every INT8 graph."""
    for graph, entry in bundle.manifest.graphs.items():
        if entry.calibration and entry.calibration.sensitivity:
            title = f"most INT8-sensitive layers of {graph.value}"
            table = new_table("layer", "error alone", "now", title=title)
            for layer, error in islice(entry.calibration.sensitivity.items(), MAX_LAYERS):
                now = "float" if layer in entry.calibration.left_out else "int8"
                table.add_row(layer, f"{error:.1e}", now)
            yield table
