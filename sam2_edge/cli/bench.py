"""`sam2-edge bench`: measure a bundle's speed by stage, and compare it with others."""

from __future__ import annotations

import json
import platform
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam2_edge.cli.options import (
    BUNDLE_PATH,
    PATH,
    TrackingOptions,
    json_option,
    overwrite_option,
    tracking_options,
)
from sam2_edge.cli.output import new_table, notes, progress, results, show_table
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.evaluation.bench.limits import MAX_BENCH_OBJECTS, MIN_COUNTED, UNCOUNTED_FRAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from sam2_edge.bundle import Bundle
    from sam2_edge.evaluation.bench.report import Extra
    from sam2_edge.evaluation.bench.runner import InterleavedRun

_EXAMPLES = """\b
Examples:
  sam2-edge bench nano
  sam2-edge bench tiny --against nano --against pytorch --objects 1,4
  sam2-edge bench nano --json | jq '.runs[0].targets.nano.frames_per_second'
"""


def _counts(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= MAX_BENCH_OBJECTS for count in counts):
        raise click.BadParameter(
            f"{text!r} is not a list of 1 to {MAX_BENCH_OBJECTS}, such as 1,2,4"
        )
    return counts


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option(
    "--against",
    multiple=True,
    metavar="BUNDLE|pytorch|pytorch-compiled",
    help="Compare with this target, interleaved on the same frames; pytorch is transformers with "
    "the model that BUNDLE was exported from. Repeatable.",
)
@click.option("--source", type=PATH, help="Video or folder of images. [a synthetic clip]")
@click.option(
    "--frames",
    default=64,
    show_default=True,
    type=click.IntRange(min=UNCOUNTED_FRAMES + MIN_COUNTED),
    help=f"Frames per run; those after the first {UNCOUNTED_FRAMES} are measured.",
)
@click.option(
    "--objects",
    default="1",
    show_default=True,
    callback=_counts,
    metavar="N[,N]",
    help="Numbers of objects, with one run for each.",
)
@click.option("--memory", is_flag=True, help="Also measure peak memory, in separate processes.")
@json_option
@click.option("--plot", type=PATH, help="Write a chart here (.svg).")
@overwrite_option
@tracking_options
def bench(
    bundle: Path,
    *,
    against: tuple[str, ...],
    source: Path | None,
    frames: int,
    objects: tuple[int, ...],
    memory: bool,
    json_file: Path | None,
    plot: Path | None,
    overwrite: bool,
    tracking: TrackingOptions,
) -> None:
    """Measure the speed of BUNDLE, alone or compared with others."""
    from sam2_edge.bundle import load_bundle
    from sam2_edge.evaluation.bench import peak_memory, report, targets
    from sam2_edge.evaluation.bench.flops import peak_flops
    from sam2_edge.evaluation.bench.runner import LatencyStats, run_interleaved
    from sam2_edge.evaluation.clips import bench_clip
    from sam2_edge.runtime.sinks import files

    _check(against, memory=memory, tracking=tracking)
    files.check_outputs((bundle, source), (json_file, plot))
    for path, suffix in ((json_file, ".json"), (plot, ".svg")):
        files.check_new_file(path, overwrite=overwrite, suffix=suffix)
    loaded = load_bundle(bundle)
    backend, threads = tracking.backend, tracking.threads
    with ExitStack() as stack:
        clip = bench_clip(source, loaded.manifest.image_size, frames, max(objects), stack)
        # Measure memory first, before this process loads anything large.
        peaks = [
            peak_memory.measure_peak(name, bundle, clip.path, backend, threads)
            for name in ((str(bundle), *against) if memory else ())
        ]
        own = targets.BundleTarget(
            loaded,
            backend=backend,
            threads=threads,
            recent_memories=tracking.recent_memories,
            memory_policy=tracking.memory_policy,
        )
        others = [targets.open_target(n, loaded, backend=backend, threads=threads) for n in against]
        compared = [own, *others]
        targets.name_apart(compared)
        names = [target.name for target in compared]
        if len(set(names)) < len(names):
            raise Sam2EdgeError(f"--against {', '.join(against)}: give each target once")
        opened = [target for target in compared if isinstance(target, targets.BundleTarget)]
        flops = {target.name: _count_flops(target.bundle) for target in opened}
        product = peak_flops(threads) if own.device == "cpu" and flops[own.name] else None
        advance = stack.enter_context(progress("tracking", frames * len(objects)))
        runs = [
            run_interleaved(
                compared, clip.pictures, clip.prompts[:count], on_progress=lambda: advance("")
            )
            for count in objects
        ]
    extra = report.Extra(
        LatencyStats.of(clip.decode_ms),
        flops,
        None if product is None else report.highest_rate(runs, flops, product),
        dict(zip(names, peaks, strict=False)),
    )
    if json_file is not None:
        about = {
            "sam2_edge": version("sam2_edge"),
            "bundle": str(bundle),
            "source": None if source is None else source.name,
            "frames_counted": frames - UNCOUNTED_FRAMES,
            "threads": threads,
            "processor": platform.processor() or platform.machine(),
        }
        record = about | report.as_json(runs, names[0], extra)
        files.write_text(json_file, json.dumps(record, indent=1, allow_nan=False) + "\n")
    if plot is not None:
        files.write_text(plot, report.picture(runs[0]) + "\n")
    _show(runs, extra, silent=files.STANDARD_OUTPUT in (json_file, plot))


def _check(against: Sequence[str], *, memory: bool, tracking: TrackingOptions) -> None:
    from sam2_edge.evaluation.bench.targets import COMPILED

    if memory and COMPILED in against:
        raise click.UsageError(f"--memory does not work with {COMPILED}; leave out one of them")
    if memory and (tracking.recent_memories is not None or tracking.memory_policy != "original"):
        raise click.UsageError(
            "--memory measures the default memory; leave out --recent-memories and --memory-policy"
        )


def _count_flops(bundle: Bundle) -> dict[str, int]:
    """Count the operations of one object's frame with full memory, by graph; none if unknown."""
    if any(entry.engine for entry in bundle.manifest.graphs.values()):
        return {}  # an engine has no operators to count
    from sam2_edge.bundle.contract import Graph
    from sam2_edge.evaluation.bench.flops import graph_flops
    from sam2_edge.runtime.backends.ort_cpu import RUN_ERRORS

    memory = bundle.manifest.memory
    sizes = {"M": memory.slots, "P": memory.pointers, "B": 1, "N": 1, "R": memory.slots}
    try:
        # Mask bits has no weights, and its work depends on the frame.
        graphs = [graph for graph in Graph if graph is not Graph.MASK_BITS]
        return {g.value: graph_flops(bundle.graph_path(g), sizes) for g in graphs}
    except ModuleNotFoundError:
        notes().print(
            "operations are not counted; this needs: pip install 'sam2_edge[export]'", markup=False
        )
    except RUN_ERRORS as error:
        notes().print(f"operations are not counted: {error}", markup=False)
    return {}


def _show(runs: Sequence[InterleavedRun], extra: Extra, *, silent: bool) -> None:
    from rich.markup import escape

    from sam2_edge.evaluation.bench.report import STAGE_COLUMNS, stage_rows

    console = results(silent=silent)
    for run in runs:
        for name in run.times:
            title = f"{name}, {run.objects} object{'s' * (run.objects > 1)}"
            table = new_table(*STAGE_COLUMNS, title=title)
            for row in stage_rows(run, name, extra):
                table.add_row(*map(escape, row))
            show_table(console, table)
        show_table(console, _summary(run, extra))


def _summary(run: InterleavedRun, extra: Extra) -> Table:
    from rich.markup import escape

    first = next(iter(run.times))
    columns = ["", "frames/s", f"time / {first}", "p95"]
    if extra.memory:
        columns += ["peak MB, 1 object", "GPU MB"]
    table = new_table(*columns)
    for name in run.times:
        ratio, peak = run.ratio(first, name), extra.memory.get(name)
        table.add_row(
            escape(name),
            f"{run.frames_per_second(name):.2f}",
            f"{ratio.median:.3f}",
            f"{ratio.p95:.3f}",
            *(_megabytes(count) for count in ((peak.host, peak.device) if peak else ())),
        )
    return table


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.0f}"
