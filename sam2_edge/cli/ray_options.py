"""Options of commands that can run on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

import click

from sam2_edge.batch.cluster import ClusterOptions
from sam2_edge.cli.options import grouped


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Values of `ray_options`."""

    address: str | None
    cpus_per_worker: int
    gpus_per_worker: float

    def cluster(self, workers: int | None) -> ClusterOptions | None:
        """The cluster to run on; None for this machine alone.

        Args:
            workers: Number of workers; None for as many as the cluster has room for.
        """
        if self.address is None:
            return None
        return ClusterOptions(self.address, self.cpus_per_worker, self.gpus_per_worker, workers)


ray_options = grouped(
    "ray",
    RayOptions,
    click.option(
        "--ray",
        "address",
        metavar="ADDRESS",
        help="Run on a Ray cluster: its address, auto for the one of this machine, or local to "
        "start one here.",
    ),
    click.option(
        "--cpus-per-worker",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Cores of each worker on a Ray cluster.",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.FloatRange(min=0),
        default=0,
        show_default=True,
        help="GPUs of each worker on a Ray cluster; 0.5 puts two workers on a GPU.",
    ),
)
