"""`sam2-edge verify`: compare a bundle with PyTorch or with another bundle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.cli.options import (
    BUNDLE_PATH,
    PATH,
    PromptCommand,
    TrackingOptions,
    choose_prompts,
    frame_range,
    json_option,
    overwrite_option,
    prompt_options,
    prompts_file_option,
    tracking_options,
)
from sam2_edge.cli.output import new_table, notes, progress, results, show_table
from sam2_edge.errors import PromptError
from sam2_edge.runtime.backends import BackendName

if TYPE_CHECKING:
    from sam2_edge.evaluation.verify.compare import Verification
    from sam2_edge.evaluation.verify.layers import LayerDifference
    from sam2_edge.evaluation.verify.tolerances import Tolerances
    from sam2_edge.runtime.prompts import Prompt
    from sam2_edge.runtime.sources import FrameRange

EACH = "each"

MAX_LAYERS = 20
"""Number of layers to list."""


def _changed_tolerances(
    _ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, float]:
    from sam2_edge.evaluation.verify.tolerances import check_tolerances

    changed = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            changed[name] = float(value)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as j_and_f=0.95") from error
    check_tolerances(changed)
    return changed


_EXAMPLES = """\b
Examples:
  sam2-edge verify nano
  sam2-edge verify tiny --frames 0:64 --report report.html
  sam2-edge verify tiny-int8 --reference tiny --swap each
  sam2-edge verify nano --json | jq .problems
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLES)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option(
    "--reference",
    metavar="MODEL|BUNDLE",
    help="Model to run in PyTorch, as for export, or the folder of another bundle. "
    "[the model that BUNDLE was exported from]",
)
@click.option(
    "--source", type=PATH, help="Video or folder of images to track in. [a synthetic clip]"
)
@prompt_options
@prompts_file_option
@click.option(
    "--frames",
    metavar="A:B",
    default="0:16",
    show_default=True,
    type=frame_range,
    help="Track frames A to B, excluding B.",
)
@click.option(
    "--swap",
    type=click.Choice([*(graph.value for graph in Graph), EACH]),
    multiple=True,
    help="Run this graph on the reference. Repeatable. each: try every graph in turn.",
)
@click.option(
    "--layers",
    type=click.Choice([graph.value for graph in Graph]),
    help="Also compare the layers of this graph; requires a bundle as --reference.",
)
@click.option(
    "--tolerance",
    "changed",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_changed_tolerances,
    help="Replace a tolerance: graph, j_and_f, presence, memory or pointer. Repeatable.",
)
@click.option("--report", type=PATH, help="Write a report here (.html).")
@json_option
@overwrite_option
@tracking_options
@click.option(
    "--reference-backend",
    type=click.Choice(get_args(BackendName)),
    default="auto",
    show_default=True,
    help="Backend that runs the graphs of a reference bundle.",
)
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    *,
    bundle: Path,
    reference: str | None,
    source: Path | None,
    prompts: Sequence[Prompt],
    prompts_file: Path | None,
    frames: FrameRange,
    swap: tuple[str, ...],
    layers: str | None,
    changed: dict[str, float],
    report: Path | None,
    json_file: Path | None,
    overwrite: bool,
    tracking: TrackingOptions,
    reference_backend: BackendName,
) -> None:
    """Compare BUNDLE with PyTorch or with another bundle.

    Compares every graph on real inputs, and the masks of the whole tracking loop on a clip. The
    exit code is 1 if a difference exceeds its tolerance.
    """
    # PyTorch's threads would spin while those of ONNX Runtime need their cores. Read at its import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from sam2_edge.bundle import load_bundle
    from sam2_edge.cli.export_checks import check_model
    from sam2_edge.evaluation.clips import verify_clip
    from sam2_edge.evaluation.verify import compare
    from sam2_edge.evaluation.verify.layers import check_layers, layer_differences
    from sam2_edge.evaluation.verify.references import open_reference
    from sam2_edge.evaluation.verify.tolerances import tolerances_for
    from sam2_edge.runtime.backends import open_backend
    from sam2_edge.runtime.sinks.files import (
        STANDARD_OUTPUT,
        check_new_file,
        check_outputs,
    )
    from sam2_edge.runtime.sources.prompt_file import check_prompts

    check_outputs((bundle, source, prompts_file), (report, json_file))
    if EACH in swap and (len(swap) > 1 or layers or report or json_file):
        raise click.UsageError(
            "--swap each cannot be combined with other --swap, --layers, --report or --json"
        )
    if layers is not None and not (reference and (Path(reference) / MANIFEST_FILE).is_file()):
        raise click.UsageError("--layers requires another bundle as --reference")
    check_new_file(report, overwrite=overwrite, suffix=".html")
    check_new_file(json_file, overwrite=overwrite, suffix=".json")
    loaded = load_bundle(bundle)
    clip = verify_clip(source, frames, loaded.manifest.image_size)
    script = choose_prompts(prompts_file, prompts, clip.numbers[0], clip.prompts)
    check_prompts(script, clip.numbers[0], len(clip.numbers))
    if reference is not None and not (Path(reference) / MANIFEST_FILE).is_file():
        check_model(reference, None, None)  # before PyTorch is imported
    notes().print(f"loading the reference of {bundle}", markup=False)
    other = open_reference(loaded, reference, backend=reference_backend, threads=tracking.threads)
    other_manifest = None if other.bundle is None else other.bundle.manifest
    tolerances = tolerances_for(loaded.manifest, changed, other_manifest)
    if layers is not None:
        assert other.bundle is not None  # checked with the options
        check_layers(loaded, other.bundle, Graph(layers))
    backend = open_backend(loaded, tracking.backend, threads=tracking.threads)

    def compare_with(swapped: Sequence[Graph]) -> Verification:
        with progress("comparing", len(clip.numbers)) as advance:
            return compare.verify(
                loaded,
                backend,
                other,
                clip,
                prompts=script,
                swapped=swapped,
                recent_memories=tracking.recent_memories,
                memory_policy=tracking.memory_policy,
                on_progress=lambda: advance(""),
            )

    if EACH in swap:
        ctx.exit(_try_each(compare_with, tolerances))
    result = compare_with([Graph(name) for name in swap])
    about = {
        "bundle": str(bundle),
        "reference": other.name,
        "source": clip.name,
        "swapped": list(swap),
        "same_weights": other.same_weights,
        "frames": f"{clip.numbers[0]} to {clip.numbers[-1]}",
        "sam2_edge": version("sam2_edge"),
        "backend": backend.name,
        "reference_backend": other.backend.name,
        "recent_memories": tracking.recent_memories or loaded.manifest.geometry.recent_memories,
        "memory_policy": tracking.memory_policy,
    }
    _write(report, json_file, result, about, tolerances)
    silent = STANDARD_OUTPUT in (report, json_file)
    code = _conclude(result, about, tolerances, silent=silent)
    if layers is not None and other.bundle is not None:
        feeds = result.inputs.get(Graph(layers))
        if feeds is None:
            raise PromptError(f"{layers} did not run with these prompts; give others, or none")
        worst = layer_differences(loaded, other.bundle, Graph(layers), feeds)
        _show_layers(worst, silent=silent)
    ctx.exit(code)


def _write(
    report: Path | None,
    json_file: Path | None,
    result: Verification,
    about: dict[str, Any],
    tolerances: Tolerances,
) -> None:
    from sam2_edge.evaluation.verify.report import as_json, as_page
    from sam2_edge.runtime.sinks.files import write_text

    if report is not None:
        write_text(report, as_page(result, about, tolerances))
    if json_file is not None:
        record = as_json(result, about, tolerances)
        write_text(json_file, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _try_each(
    compare_with: Callable[[Sequence[Graph]], Verification], tolerances: Tolerances
) -> int:
    """Print a row per swapped graph; return the exit code of the loop without swaps."""
    table = new_table("on the reference", "J&F", "memory", "pointer", "loops diverge")
    code = 0
    for graph in (None, *Graph):
        result = compare_with([] if graph is None else [graph])
        if graph is None and result.problems(tolerances):
            code = 1
        table.add_row(
            "none" if graph is None else graph.value,
            f"{result.j_and_f:.4f}",
            *(_figure(result.drift(name)) for name in ("memory", "pointer")),
            result.diverged_at,
        )
    show_table(results(), table)
    notes().print("the faulty graph is the one whose row has the best values")
    return code


def _show_layers(layers: Sequence[LayerDifference], *, silent: bool) -> None:
    """Print the tensors with the largest differences, in order of execution."""
    worst = sorted(layers, key=_badness, reverse=True)[:MAX_LAYERS]
    from rich.markup import escape

    table = new_table("tensor", "operator", "relative L2", "max abs", "cosine")
    for layer in (layer for layer in layers if layer in worst):
        table.add_row(
            escape(layer.tensor),
            layer.operator,
            f"{layer.difference.relative_l2:.2e}",
            f"{layer.difference.max_abs:.2e}",
            f"{layer.difference.cosine:.7f}",
        )
    show_table(results(silent=silent), table)


def _badness(layer: LayerDifference) -> float:
    relative = layer.difference.relative_l2
    return math.inf if math.isnan(relative) else relative


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _conclude(
    result: Verification, about: dict[str, Any], tolerances: Tolerances, *, silent: bool
) -> int:
    """Print the result and return the exit code."""
    from sam2_edge.evaluation.verify.report import GRAPH_COLUMNS, graph_rows

    table = new_table(*GRAPH_COLUMNS, title=f"{about['bundle']} against {about['reference']}")
    for row in graph_rows(result):
        table.add_row(*row)
    out, console = results(silent=silent), notes()
    show_table(out, table)
    ran = {graph.value for graph, _ in result.graphs} | set(about["swapped"])
    idle = sorted({graph.value for graph in Graph if graph is not Graph.MASK_BITS} - ran)
    if idle:
        console.print(f"not run with these prompts: {', '.join(idle)}")
    out.print(
        f"masks: J&F {result.j_and_f:.4f} against the reference; presence agrees on "
        f"{100 * result.presence:.1f} %; memory differs by {_figure(result.drift('memory'))}, "
        f"pointer by {_figure(result.drift('pointer'))}; loops diverge: {result.diverged_at}"
    )
    if about["same_weights"] is False:
        console.print("[bold yellow]the weights of the reference differ[/] from the bundle's")
    problems = result.problems(tolerances)
    for problem in problems:
        out.print(f"[bold red]out of tolerance:[/] {problem}")
    if not problems:
        out.print("within all tolerances")
    return 1 if problems else 0
