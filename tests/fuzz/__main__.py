"""`python -m tests.fuzz`: fuzzes every target in processes of their own, and prints a table.

Inputs that raise coverage are kept in fuzz/, from where the next run continues; those that fail are
in fuzz/findings, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.fuzz import CORPUS
from tests.fuzz.engine import fuzz
from tests.fuzz.targets import TARGETS

RESTARTS = 10
"""Times that a target is started again after a crash or a hang."""

MOST = 2**31 - 1
"""Inputs of a run at most, libFuzzer's limit."""

GRACE_S = 60.0
"""Time after which a process that has not ended is killed."""

_REPORTED = (70, 71, 77)
"""Exit codes of libFuzzer when it has kept the input: time, memory, crash."""

_EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    inputs: int
    seconds: float
    findings: int


def main() -> None:
    """Fuzz the chosen targets."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=600, help="of all targets together")
    parser.add_argument("--runs", type=int, help="inputs per target, the same in every run")
    parser.add_argument("--folder", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    seconds, folder = options.seconds / len(names), options.folder.resolve()
    outcomes = {name: run(name, folder, seconds, options.runs) for name in names}
    Console().print(_table(outcomes))
    sys.exit(1 if any(outcome.findings for outcome in outcomes.values()) else 0)


def run(name: str, folder: Path, seconds: float, runs: int | None) -> Outcome:
    """Fuzz one target for a time, or with a number of inputs."""
    findings, log = folder / "findings" / name, folder / f"{name}.log"
    corpus = [folder / name, CORPUS / name]
    for path in (*corpus, findings.parent):
        path.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    most = min(n for n in (runs, TARGETS[name].most, MOST) if n is not None)
    start, inputs, code, starts = time.time(), 0, 1, 0
    while code and starts <= RESTARTS:
        left = seconds - (time.time() - start)
        if left < 1 or inputs >= most:
            break
        limits = [f"-max_total_time={int(left)}", f"-runs={most - inputs}", f"-seed={starts + 1}"]
        code = _in_a_process(partial(fuzz, name, findings, corpus, limits), log, left)
        if code not in (0, *_REPORTED):
            Path(f"{findings}-exit-{abs(code)}").write_text(f"the process ended with {code}")
        inputs = sum(map(int, _EXECUTED.findall(log.read_text(errors="replace"))))
        starts += 1
    found = [p for p in findings.parent.glob(f"{name}-*") if p.stat().st_mtime >= start]
    return Outcome(inputs, time.time() - start, len([p for p in found if p.suffix != ".txt"]))


def _in_a_process(work: Callable[[Path], None], log: Path, seconds: float) -> int:
    """Fuzz in a process that may crash or hang; returns its exit code, 0 at the normal end.

    Imports are done once, before the fork; nothing else here may start threads.
    """
    memory = "/dev/shm"  # noqa: S108 # a disk takes most of the time
    with TemporaryDirectory(dir=memory if Path(memory).is_dir() else None) as folder:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_logged, args=(work, log, Path(folder)))
        process.start()
        process.join(seconds + GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode or 0


def _logged(work: Callable[[Path], None], log: Path, folder: Path) -> None:
    with log.open("a") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    work(folder)


def _table(outcomes: dict[str, Outcome]) -> Table:
    table = Table("target", "inputs", "inputs/s", "findings")
    total = Outcome(*(sum(values) for values in zip(*map(astuple, outcomes.values()), strict=True)))
    for name, found in {**outcomes, "all": total}.items():
        rate = found.inputs / max(found.seconds, 1e-3)
        table.add_row(name, f"{found.inputs:,}", f"{rate:,.0f}", str(found.findings))
    return table


if __name__ == "__main__":
    main()
