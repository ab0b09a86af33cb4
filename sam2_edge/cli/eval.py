"""`sam2-edge eval`: evaluate video object segmentation on a data set with its own protocol."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import click

from sam2_edge.batch.cluster import ClusterOptions
from sam2_edge.bundle import load_bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.cli.options import BUNDLE_PATH, PATH, backend_options, memory_policy_option
from sam2_edge.cli.output import new_table, notes, progress, results, show_table
from sam2_edge.cli.ray_options import RayOptions, ray_options
from sam2_edge.errors import printable
from sam2_edge.evaluation.prompting import PromptKind
from sam2_edge.evaluation.vos.datasets import DataSet, LayoutName, open_dataset
from sam2_edge.evaluation.vos.results import (
    RESULTS,
    EvalFolder,
    EvalSettings,
    VideoRecord,
    open_folder,
)
from sam2_edge.evaluation.vos.runner import Job, evaluate
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName

_COLUMNS = {
    "J&F": "j_and_f",
    "J": "j",
    "F": "f",
    "J recall": "j_recall",
    "J decay": "j_decay",
    "F recall": "f_recall",
    "F decay": "f_decay",
}


_EXAMPLES = """\b
Examples:
  sam2-edge eval DAVIS nano --output davis-nano
  sam2-edge eval clips nano --output clips-nano --prompt click --videos 00000
"""


@click.command("eval", epilog=_EXAMPLES)
@click.argument("dataset", type=PATH)
@click.argument("bundle", type=BUNDLE_PATH)
@click.option(
    "--output",
    type=PATH,
    required=True,
    help="Folder for the results; an interrupted evaluation in it is resumed.",
)
@click.option(
    "--layout",
    type=click.Choice(get_args(LayoutName)),
    help="Layout of the data set. [default: detected from its folders]",
)
@click.option(
    "--prompt",
    type=click.Choice(get_args(PromptKind)),
    default="mask",
    show_default=True,
    help="Kind of prompt, made from the first mask of each object.",
)
@click.option(
    "--videos", multiple=True, metavar="NAME", help="Evaluate only this video. Repeatable."
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Videos evaluated in parallel; they share the cores unless --threads sets each one's "
    "threads.",
)
@click.option("--overwrite", is_flag=True, help="First delete an evaluation in --output.")
@ray_options
@memory_policy_option
@backend_options
def evaluate_command(
    dataset: Path,
    bundle: Path,
    *,
    output: Path,
    layout: LayoutName | None,
    prompt: PromptKind,
    videos: tuple[str, ...],
    processes: int,
    overwrite: bool,
    ray: RayOptions,
    memory_policy: MemoryPolicyName,
    backend: BackendName,
    threads: int | None,
) -> None:
    """Evaluate BUNDLE on DATASET: J and F of tracked objects.

    DATASET has the layout of DAVIS 2017, SA-V, MOSE, LVOS or YouTube-VOS. Writes masks for the data
    set's own server or evaluator, results.csv with J and F per object, and summary.json.
    """
    loaded = load_bundle(bundle)
    opened = open_dataset(dataset, layout=layout, videos=videos)
    settings = EvalSettings(
        sam2_edge_version=version("sam2_edge"),
        dataset=printable(str(opened.root.resolve())),
        layout=opened.layout,
        bundle=loaded.manifest.model.name,
        bundle_sha256=sha256_of(loaded.path / MANIFEST_FILE),
        prompt=prompt,
        backend=backend,
        memory_policy=memory_policy,
    )
    folder = open_folder(output, settings, overwrite=overwrite)
    job = Job(loaded, settings, folder, threads)
    records = _run(opened, job, processes, ray.cluster(workers=None))
    _show(folder, folder.finish(settings, records))


def _run(
    dataset: DataSet, job: Job, processes: int, cluster: ClusterOptions | None
) -> list[VideoRecord]:
    by_video = {video.name: job.folder.record(video.name) for video in dataset.videos}
    missing = [video for video in dataset.videos if by_video[video.name] is None]
    done = len(by_video) - len(missing)
    if done:
        notes().print(f"{done} of {len(by_video)} videos are already done")
    with (
        progress("evaluating", len(by_video), "videos", done=done) as advance,
        closing(evaluate(missing, job, processes=processes, cluster=cluster)) as records,
    ):
        for record in records:
            by_video[record.video] = record
            advance(record.video)
    return [record for record in by_video.values() if record is not None]


def _show(folder: EvalFolder, figures: dict[str, Any]) -> None:
    console, remarks = results(), notes()
    clicked, objects, scored = (
        figures[key] for key in ("clicked_instead", "objects", "scored_objects")
    )
    if clicked:
        remarks.print(
            f"{len(clicked)} objects were prompted with a click because their masks vanish at the "
            f"model's size: {', '.join(clicked)}",
            markup=False,
        )
    if scored:
        table = new_table(*_COLUMNS, title=f"{scored} objects of {figures['videos']} videos")
        table.add_row(*(f"{figures[key]:.3f}" for key in _COLUMNS.values()))
        show_table(console, table)
        console.print(f"per object: {folder.path / RESULTS}", markup=False)
    if scored < objects:
        remarks.print(
            f"{objects - scored} of {objects} objects have no score: they have no ground truth "
            "after their first mask, or none of their frames is scored"
        )
    remarks.print(f"masks for the data set's own evaluator: {folder.masks}", markup=False)
