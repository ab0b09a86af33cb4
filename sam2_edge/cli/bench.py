"""`sam2-edge bench`: how fast a bundle is, stage by stage, and beside others on the same frames."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.cli.options import (
    PATH,
    TrackingOptions,
    json_option,
    overwrite_option,
    tracking_options,
)
from sam2_edge.errors import BackendError, Sam2EdgeError
from sam2_edge.evaluation.bench.clips import MAX_OBJECTS, bench_clip
from sam2_edge.evaluation.bench.flops import graph_flops, peak_flops
from sam2_edge.evaluation.bench.peak_memory import Peak, peak_of
from sam2_edge.evaluation.bench.report import Extra, as_json, picture, stage_rows
from sam2_edge.evaluation.bench.runner import MIN_COUNTED, UNCOUNTED_FRAMES, Race, race
from sam2_edge.evaluation.bench.targets import BenchTarget, BundleTarget, PyTorchTarget
from sam2_edge.evaluation.verify.references import model_of
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.backends.ort_cpu import RUN_ERRORS
from sam2_edge.runtime.sinks.files import check_new_file, check_outputs, write_text

PYTORCH, COMPILED = "pytorch", "pytorch-compiled"
STAGE_COLUMNS = ("stage", "median ms", "p95", "p99", "GFLOP", "of peak")


def _counts(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= MAX_OBJECTS for count in counts):
        raise click.BadParameter(f"{text!r} is not a list of 1 to {MAX_OBJECTS}, such as 1,2,4")
    return counts


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--against",
    multiple=True,
    metavar="BUNDLE|pytorch|pytorch-compiled",
    help="Race this on the same frames, in turns; pytorch is the model that BUNDLE was made from, "
    "in transformers. Repeatable.",
)
@click.option(
    "--source",
    type=PATH,
    help="Video or folder of images. [a synthetic clip]",
)
@click.option(
    "--frames",
    default=64,
    show_default=True,
    type=click.IntRange(min=UNCOUNTED_FRAMES + MIN_COUNTED),
    help=f"Frames of each race; those after the first {UNCOUNTED_FRAMES} are measured.",
)
@click.option(
    "--objects",
    default="1",
    show_default=True,
    callback=_counts,
    metavar="N[,N]",
    help="Numbers of objects, a race each.",
)
@click.option("--memory", is_flag=True, help="Measure peak memory too, each in its own process.")
@json_option
@click.option("--plot", type=PATH, help="Write a picture here (.svg).")
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
    """Measure the speed of BUNDLE, alone or against others."""
    check_outputs((bundle, source), (json_file, plot))
    check_new_file(json_file, overwrite=overwrite, suffix=".json")
    check_new_file(plot, overwrite=overwrite, suffix=".svg")
    if memory and COMPILED in against:
        raise click.UsageError(f"--memory cannot be had with {COMPILED}; leave one of them out")
    if memory and (tracking.recent_memories is not None or tracking.memory_policy != "original"):
        raise click.UsageError(
            "--memory is of the whole memory; leave out --recent-memories and --memory-policy"
        )
    loaded = load_bundle(bundle)
    backend, threads = tracking.backend, tracking.threads
    console = Console(stderr=True)
    with ExitStack() as stack:
        prompted_clip = bench_clip(source, loaded.manifest.image_size, frames, max(objects), stack)
        progress = stack.enter_context(Progress(console=console, transient=True))
        peaks = _peaks(bundle, against, backend, threads, prompted_clip.path) if memory else []
        own = BundleTarget(
            loaded,
            backend=backend,
            threads=threads,
            recent_memories=tracking.recent_memories,
            memory_policy=tracking.memory_policy,
        )
        contenders: list[BenchTarget] = [own, *_others(loaded, against, backend, threads)]
        if len({contender.name for contender in contenders}) < len(contenders):
            raise Sam2EdgeError(f"--against {', '.join(against)}: give each contender once")
        flops, peak = _work(console, loaded, contenders[0], threads)
        task = progress.add_task("racing", total=frames * len(objects))
        races = [
            race(
                contenders,
                prompted_clip.pictures,
                prompted_clip.prompts[:count],
                watch=lambda: progress.advance(task),
            )
            for count in objects
        ]
    names = [contender.name for contender in contenders]
    extra = Extra(prompted_clip.decode, flops, peak, dict(zip(names, peaks, strict=False)))
    _show(races, extra)
    if json_file is not None:
        about = {
            "sam2_edge": version("sam2_edge"),
            "bundle": str(bundle),
            "source": None if source is None else source.name,
            "frames_counted": frames - UNCOUNTED_FRAMES,
            "threads": threads,
            "processor": platform.processor() or platform.machine(),
        }
        found = as_json(races, names[0], extra)
        write_text(json_file, json.dumps(about | found, indent=1, allow_nan=False) + "\n")
    if plot is not None:
        write_text(plot, picture(races[0]) + "\n")


def _peaks(
    bundle: Path,
    against: tuple[str, ...],
    backend: BackendName,
    threads: int | None,
    video: Path,
) -> list[Peak]:
    """Peak memory of the bundle and the others, in that order, before this process holds any."""
    names = [f"pytorch:{bundle}" if name == PYTORCH else name for name in against]
    return [peak_of(name, video, backend, threads) for name in (str(bundle), *names)]


def _others(
    bundle: Bundle, against: tuple[str, ...], backend: BackendName, threads: int | None
) -> Iterator[BenchTarget]:
    for name in against:
        if name in (PYTORCH, COMPILED):
            yield _pytorch(bundle, threads, compiled=name == COMPILED)
        else:
            yield BundleTarget(load_bundle(name), backend=backend, threads=threads)


def _pytorch(bundle: Bundle, threads: int | None, *, compiled: bool) -> BenchTarget:
    try:
        model = model_of(bundle.manifest, None).model
        return PyTorchTarget(model, compiled=compiled, threads=threads)
    except ImportError as error:
        raise BackendError(
            f"racing PyTorch needs the extra export ({error}); install it with: pip install "
            "'sam2_edge[export]', or race other bundles"
        ) from error


def _work(
    console: Console, bundle: Bundle, contender: BenchTarget, threads: int | None
) -> tuple[dict[str, int], float | None]:
    """Operations of one object's frame with a full memory by graph, and on a CPU the machine's
    peak; nothing where they cannot be counted, which is no reason not to race.
    """
    if any(entry.engine for entry in bundle.manifest.graphs.values()):
        return {}, None  # engines do not tell
    memory = bundle.manifest.memory
    sizes = {"M": memory.slots, "P": memory.pointers, "B": 1, "N": 1}
    try:
        flops = {g.value: graph_flops(bundle.graph_path(g), sizes) for g in Graph}
        return flops, peak_flops(threads) if contender.device == "cpu" else None
    except ModuleNotFoundError:
        console.print("operations are not counted: that needs pip install 'sam2_edge[export]'")
    except RUN_ERRORS as error:
        console.print(f"operations are not counted: {escape(str(error))}")
    return {}, None


def _show(races: Sequence[Race], extra: Extra) -> None:
    console = Console()
    for found in races:
        many = "s" if found.objects > 1 else ""
        for name in found.times:
            title = escape(f"{name}, {found.objects} object{many}")
            table = Table(*STAGE_COLUMNS, title=title, box=box.SIMPLE)
            for row in stage_rows(found, name, extra):
                table.add_row(*row)
            console.print(table)
        console.print(_summary(found, extra))


def _summary(found: Race, extra: Extra) -> Table:
    first = next(iter(found.times))
    columns = ["", "frames/s", f"times {Path(first).name}", "p95"]
    if extra.memory:
        columns += ["peak MB, 1 object", "of the GPU"]
    table = Table(*(escape(column) for column in columns), box=box.SIMPLE)
    for name in found.times:
        ratio, peak = found.ratio(first, name), extra.memory.get(name)
        table.add_row(
            escape(name),
            f"{found.frames_per_second(name):.2f}",
            f"{ratio.median:.3f}",
            f"{ratio.p95:.3f}",
            *(_megabytes(count) for count in ((peak.host, peak.device) if peak else ())),
        )
    return table


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.0f}"
