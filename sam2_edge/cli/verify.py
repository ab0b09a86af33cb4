"""`sam2-edge verify`: whether a bundle agrees with PyTorch, or with another bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.cli.options import (
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
from sam2_edge.errors import PromptError
from sam2_edge.evaluation.verify.clips import prompted_clip
from sam2_edge.evaluation.verify.compare import Verification
from sam2_edge.evaluation.verify.compare import verify as compare_with
from sam2_edge.evaluation.verify.layers import LayerDifference, check_layers, layer_differences
from sam2_edge.evaluation.verify.references import open_reference
from sam2_edge.evaluation.verify.report import GRAPH_COLUMNS, About, as_json, as_page, graph_rows
from sam2_edge.evaluation.verify.tolerances import Budget, budget_for, check_limits
from sam2_edge.runtime.backends import BackendName, open_backend
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks.files import check_new_file, check_outputs, write_text
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.prompt_file import check_prompts

DEFAULT_FRAMES = "0:32"

EACH = "each"

LAYERS_SHOWN = 20


@click.command(cls=PromptCommand)
@click.argument("bundle", type=PATH)
@click.option(
    "--reference",
    metavar="MODEL|BUNDLE",
    help="What BUNDLE is to agree with: a model as export takes it, which runs in PyTorch, or the "
    "folder of another bundle. [the model that BUNDLE was made from]",
)
@click.option(
    "--source",
    type=PATH,
    help="Video or folder of images to follow objects in. [a synthetic clip]",
)
@prompt_options
@prompts_file_option
@click.option(
    "--frames",
    metavar="A:B",
    default=DEFAULT_FRAMES,
    show_default=True,
    type=frame_range,
    help="Frames A up to but without B.",
)
@click.option(
    "--swap",
    type=click.Choice([*(graph.value for graph in Graph), EACH]),
    multiple=True,
    help="Run this graph of the loop on the reference; repeatable. each: try every graph in turn.",
)
@click.option(
    "--layers",
    type=click.Choice([graph.value for graph in Graph]),
    help="Compare the layers of this graph too; needs another bundle as reference, and Polygraphy.",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another limit: graph, j_and_f, presence, memory or pointer. Repeatable.",
)
@click.option("--report", type=PATH, help="Write a page here (.html).")
@json_option
@overwrite_option
@tracking_options
@click.option(
    "--reference-backend",
    type=click.Choice(get_args(BackendName)),
    default="auto",
    show_default=True,
    help="What runs the graphs of a reference bundle.",
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
    budget: tuple[str, ...],
    report: Path | None,
    json_file: Path | None,
    overwrite: bool,
    tracking: TrackingOptions,
    reference_backend: BackendName,
) -> None:
    """Compare BUNDLE with PyTorch or with another bundle.

    Compares every graph on real inputs, and the masks of the whole loop over a clip. The exit code
    is 1 if a difference exceeds its tolerance.
    """
    check_outputs((bundle, source, prompts_file), (report, json_file))
    _check_usage((report, json_file), swap, layers, reference)
    check_new_file(report, overwrite=overwrite, suffix=".html")
    check_new_file(json_file, overwrite=overwrite, suffix=".json")
    changed = _budgets(budget)
    check_limits(changed)
    loaded = load_bundle(bundle)
    followed = prompted_clip(source, frames, loaded.manifest.image_size)
    script = choose_prompts(prompts_file, prompts, followed.numbers[0], followed.prompts)
    check_prompts(script, followed.numbers[0], len(followed.numbers))
    other = open_reference(loaded, reference, backend=reference_backend, threads=tracking.threads)
    limits = budget_for(loaded.manifest, changed, other.manifest)
    inside = _layers_of(loaded, reference, layers)
    own = open_backend(loaded, tracking.backend, threads=tracking.threads)
    console = Console(stderr=True)

    def compare(swapped: Sequence[Graph]) -> Verification:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("comparing", total=len(followed.numbers))
            return compare_with(
                loaded,
                own,
                other,
                followed,
                prompts=script,
                swapped=swapped,
                recent_memories=tracking.recent_memories,
                memory_policy=tracking.memory_policy,
                watch=lambda: progress.advance(task),
            )

    if EACH in swap:
        table = Table("from the reference", "J&F", "memory", "pointer", "the loops part")
        problems = _try_each(table, compare, limits)
        Console().print(table)
        console.print("the guilty graph is that with which the loop comes closest")
        ctx.exit(1 if problems else 0)
    found = compare([Graph(name) for name in swap])
    about = About(
        bundle=str(bundle),
        reference=other.name,
        source=followed.name,
        swapped=swap,
        same_weights=other.same_weights,
        facts={
            "frames": f"{followed.numbers[0]} to {followed.numbers[-1]}",
            "sam2_edge": version("sam2_edge"),
            "backend": own.name,
            "reference backend": other.backend.name,
            "recent memories": str(
                tracking.recent_memories or loaded.manifest.geometry.recent_memories
            ),
            "memory policy": tracking.memory_policy,
        },
    )
    if report is not None:
        write_text(report, as_page(found, about, limits))
    if json_file is not None:
        write_text(
            json_file, json.dumps(as_json(found, about, limits), indent=1, allow_nan=False) + "\n"
        )
    code = _conclude(console, found, about, limits)
    if inside is not None:
        _show_layers(inside(found))
    ctx.exit(code)


def _check_usage(
    outputs: Sequence[Path | None],
    swap: tuple[str, ...],
    layers: str | None,
    reference: str | None,
) -> None:
    """Raise click.UsageError for options that exclude each other."""
    if EACH in swap and (len(swap) > 1 or layers or any(outputs)):
        raise click.UsageError("--swap each stands alone: no report, no --layers")
    if layers is not None and not (reference and (Path(reference) / MANIFEST_FILE).is_file()):
        raise click.UsageError("--layers needs --reference with another bundle")


def _budgets(given: tuple[str, ...]) -> dict[str, float]:
    changed = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            changed[name] = float(value)
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is not NAME=VALUE, such as j_and_f=0.95", param_hint="--budget"
            ) from error
    return changed


def _try_each(
    table: Table, compare: Callable[[Sequence[Graph]], Verification], budget: Budget
) -> list[str]:
    """A row per graph that the reference runs in place of the bundle; what is over budget without
    that.
    """
    problems = []
    for graph in (None, *Graph):
        found = compare([] if graph is None else [graph])
        if graph is None:
            problems = found.problems(budget)
        parting = found.first_parting
        table.add_row(
            "nothing" if graph is None else graph.value,
            f"{found.j_and_f:.4f}",
            *(_figure(found.drift(name)) for name in ("memory", "pointer")),
            "never" if parting is None else f"frame {parting.frame}",
        )
    return problems


def _layers_of(
    bundle: Bundle, reference: str | None, layers: str | None
) -> Callable[[Verification], list[LayerDifference]] | None:
    """How layers are to be compared, checked before any long work."""
    if layers is None:
        return None
    assert reference is not None  # checked with the options
    graph, other = Graph(layers), load_bundle(reference)
    check_layers(bundle, other, graph)

    def compare(found: Verification) -> list[LayerDifference]:
        feeds = found.inputs.get(graph)
        if feeds is None:
            raise PromptError(f"{layers} did not run with these prompts; give others or none")
        return layer_differences(bundle, other, graph, feeds)

    return compare


def _show_layers(found: Sequence[LayerDifference]) -> None:
    """The tensors that are furthest from the reference, in the order of computation."""
    worst = sorted(found, key=_badness, reverse=True)[:LAYERS_SHOWN]
    table = Table("tensor", "operator", "relative L2", "largest", "cosine", box=box.SIMPLE)
    for layer in (layer for layer in found if layer in worst):
        apart = layer.difference
        table.add_row(
            escape(layer.tensor),
            layer.operator,
            f"{apart.relative:.2e}",
            f"{apart.largest:.2e}",
            f"{apart.cosine:.7f}",
        )
    Console().print(table)


def _badness(layer: LayerDifference) -> float:
    relative = layer.difference.relative
    return math.inf if math.isnan(relative) else relative


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _conclude(console: Console, found: Verification, about: About, budget: Budget) -> int:
    """Print what was found; the exit code."""
    table = Table(
        *GRAPH_COLUMNS, title=escape(f"{about.bundle} against {about.reference}"), box=box.SIMPLE
    )
    for row in graph_rows(found):
        table.add_row(*row)
    out = Console()
    out.print(table)
    idle = sorted({g.value for g in Graph} - {g.value for g, _ in found.graphs} - {*about.swapped})
    if idle:
        console.print(f"not run with these prompts: {', '.join(idle)}")
    parting = found.first_parting
    where = "never" if parting is None else f"at frame {parting.frame}, object {parting.object_id}"
    out.print(
        f"masks: J&F {found.j_and_f:.4f} against the reference; presence agrees on "
        f"{100 * found.presence:.1f} %; memory differs by {_figure(found.drift('memory'))}, "
        f"pointer by {_figure(found.drift('pointer'))}; the loops part {where}",
        soft_wrap=True,
        highlight=False,
    )
    if about.same_weights is False:
        console.print("[bold yellow]the reference has other weights[/] than the bundle")
    problems = found.problems(budget)
    for problem in problems:
        console.print(f"[bold red]over budget:[/] {problem}", soft_wrap=True, highlight=False)
    if not problems:
        console.print("every budget holds")
    return 1 if problems else 0
