"""Runs one target under Atheris, which guides inputs by the coverage of our code."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from random import Random
from typing import Any

import atheris


@contextmanager
def _instrumented() -> Iterator[None]:
    """Count the coverage of our modules that are imported in the block."""
    # Atheris names every module on standard error.
    with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["sam2_edge"]):
        yield


with _instrumented():
    from sam2_edge.runtime.sources import decoder, image_file
    from tests.fuzz.mutation import mutate_json
    from tests.fuzz.target import MAX_PIXELS, Target
    from tests.fuzz.targets import TARGETS

SLOW_S = 2.0
"""Processor time that one input may take, which does not depend on what else the machine does."""

HANG_S = 20
"""Time at which the process is ended, on a machine that may be busy."""

GROWTH_MB = 512
"""Memory that one input may take."""

TOTAL_MB = 4096
"""Memory of the process, at which it is ended."""


def fuzz(
    name: str, findings: Path, corpus: Sequence[Path], options: Sequence[str], folder: Path
) -> None:
    """Fuzz a target until its options end the process.

    Args:
        name: Name of the target.
        findings: Path and first part of the names of files with the inputs that were found.
        corpus: Folders of inputs; new ones are kept in the first.
        options: Options of libFuzzer.
        folder: Folder for the target's files.
    """
    target = TARGETS[name]
    os.chdir(folder)
    image_file.MAX_PIXELS = decoder.MAX_PIXELS = MAX_PIXELS
    seeds = target.seeds()
    for index, data in enumerate(seeds):
        (corpus[0] / f"seed-{index}").write_bytes(data)
    with _instrumented():
        target.feed(seeds[0], folder)  # imports take time and memory of their own
    examined = _Examined(target, findings, folder)
    fixed = [
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={TOTAL_MB}",
        f"-artifact_prefix={findings}-",
        "-close_fd_mask=3",
        "-print_final_stats=1",
        "-max_len=16384",
    ]
    custom: dict[str, Any] = {"custom_mutator": _mutate} if target.is_json else {}
    atheris.Setup(["fuzz", *map(str, corpus), *options, *fixed], examined, **custom)
    atheris.Fuzz()


class _Examined:
    """Feeds inputs to a target and keeps those that fail, one for each place in the code."""

    def __init__(self, target: Target, findings: Path, folder: Path) -> None:
        self._target, self._findings, self._folder = target, findings, folder
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        before, start_s = _peak_mb(), time.process_time()
        try:
            self._target.feed(data, self._folder)
        except Exception as error:  # noqa: BLE001 # everything else is a finding
            frames = traceback.extract_tb(error.__traceback__)
            place = " ".join([type(error).__name__, *(f"{f.filename}:{f.name}" for f in frames)])
            self._keep(place, data, "".join(traceback.format_exception(error)))
        took_s, grown_mb = time.process_time() - start_s, _peak_mb() - before
        if took_s > SLOW_S:
            self._keep("time", data, f"took {took_s:.1f} s")
        if grown_mb > GROWTH_MB:
            self._keep("memory", data, f"took {grown_mb} MiB")

    def _keep(self, kind: str, data: bytes, report: str) -> None:
        if kind in self._seen:
            return
        self._seen.add(kind)
        name = f"{self._findings}-{hashlib.sha256(kind.encode()).hexdigest()[:10]}"
        Path(name).write_bytes(data)
        Path(f"{name}.txt").write_text(report, encoding="utf-8", errors="backslashreplace")


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    return mutate_json(data, max_size, Random(seed), atheris.Mutate)
