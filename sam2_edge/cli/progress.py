"""Progress and summary of `sam2-edge export` and `sam2-edge build-engines`, on stderr."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph
from sam2_edge.bundle.manifest import Manifest
from sam2_edge.cli.output import notes

_STEP_WIDTH = 44

_COUNT = re.compile(r" \d+/\d+$")
"""What changes too often for a line each."""


class ExportProgress:
    """Shows a line per graph with its current step; without a terminal, a line per step."""

    def __init__(self) -> None:
        self._console = notes()
        self._live = sys.stderr is not None and sys.stderr.isatty() and not self._console.quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._phases: dict[str, str] = {}

    def __enter__(self) -> ExportProgress:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def update(self, subject: Graph | str, step: str, *, finished: bool = False) -> None:
        """Show the current step of a graph or of the model; "done" or `finished` stop its clock."""
        name = subject.value if isinstance(subject, Graph) else subject
        if not self._live:
            phase = _COUNT.sub("", step)
            if phase != self._phases.get(name):
                self._console.print(f"{name}: {phase}", markup=False)
            self._phases[name] = phase
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1, step="")
        completed = int(finished or step == "done")
        text = f"{step[:_STEP_WIDTH]:{_STEP_WIDTH}}"
        self._progress.update(self._tasks[name], completed=completed, step=escape(text))

    def summarize(self, output: Path, bundle: Bundle) -> None:
        """Print the number of graphs, and their largest difference from PyTorch."""
        graphs = bundle.manifest.graphs
        kind = "engines" if any(entry.engine for entry in graphs.values()) else "graphs"
        # The largest relative to the graph's tolerance.
        difference, tolerance, name = max(
            (
                (entry.difference, PARITY_TOLERANCE[entry.precision], graph.value)
                for graph, entry in graphs.items()
            ),
            key=lambda entry: entry[0] / entry[1],
        )
        text = (
            f"{output}: {len(graphs)} {kind}; largest difference of an ONNX graph from PyTorch: "
            f"{difference:.1e} in {name}, tolerance {tolerance:.0e}\n{parity_note(bundle)}"
        )
        if kind == "engines":
            text += f"\n{memory_note(bundle.manifest)}"
        self._console.print(text, markup=False)


def memory_note(manifest: Manifest) -> str:
    """Say how much GPU memory the engines of a bundle take beside their weights and tensors."""
    sizes = {
        graph.value: f"{entry.engine.activation_bytes / 2**20:.0f}"
        for graph, entry in manifest.graphs.items()
        if entry.engine and entry.engine.activation_bytes is not None
    }
    total = manifest.activation_bytes
    if total is None:
        return "activation memory unknown: TensorRT did not say"
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return f"{total / 2**20:.0f} MiB of activation memory, shared by all engines (MiB: {parts})"


def parity_note(bundle: Bundle) -> str:
    """Explain how differences from PyTorch are measured."""
    note = "Differences are relative to max(1, largest value of the output)"
    if bundle.manifest.memory.rounding == "bfloat16":
        note += "; stored memory is rounded to bfloat16 and may differ by one more rounding step"
    return f"{note}."
