"""`python -m tools.nano FOLDER`: train the bundled model, or resume its training."""

from __future__ import annotations

import logging
from pathlib import Path

import click
import torch

from sam2_edge.errors import without_traceback
from tools.nano.distill import distilled
from tools.nano.trainer import Settings, train


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=1, show_default=True, help="Seed of weights and clips.")
@click.option("--device", default="cpu", show_default=True, help="PyTorch device.")
@click.option("--workers", default=1, show_default=True, help="Processes that generate clips.")
@click.option("--threads", default=None, type=int, help="PyTorch threads [all cores].")
@click.option("--hours", default=None, type=float, help="Stop after this time.")
@click.option("--distill", is_flag=True, help="Train edgetam-nano from the bundled nano.")
@click.option("--full", is_flag=True, help="Train in float32 throughout.")
def main(
    folder: Path,
    seed: int,
    device: str,
    workers: int,
    threads: int | None,
    hours: float | None,
    *,
    distill: bool,
    full: bool,
) -> None:
    """Train in FOLDER, from its checkpoint if it has one: the same command resumes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads is not None:
        torch.set_num_threads(threads)
    settings = Settings(folder, seed, device, workers, half=not full, hours=hours)
    train(distilled(settings) if distill else settings)


if __name__ == "__main__":
    with without_traceback():
        main()
