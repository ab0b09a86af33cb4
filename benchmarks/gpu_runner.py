"""Runs the steps of `benchmarks/gpu.py`, each in a process of its own with a time limit.

A step that crashes or takes too long costs one line of the result. What a step has found is written
at once, so that a run that is stopped can be resumed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent

COMMAND = (sys.executable, "-X", "faulthandler", "-m", "benchmarks.gpu_runner")
"""What runs a step, given the file of its job."""

MIN_LEFT_S = 5.0
"""A step does not start with less time than this."""

MAX_REASON = 300
"""Letters of a reason."""

Status = Literal["done", "failed", "timed out", "missing", "skipped", "not reached"]
"""missing: what the step needs is not on this machine. skipped: a step before it, whose result it
needs, is not done."""

FINAL: tuple[Status, ...] = ("done", "failed", "timed out")
"""States that a resumed run keeps; the others cost no time to find again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how long.

    Attributes:
        model: Model with random weights for parity and speed: a variant, or a folder.
        seed: Of its weights; None for those of the folder.
        nano: Model for accuracy on held-out clips.
        clips: Number of these clips.
        video: Source of the frames; None for a synthetic clip.
        frame: Width and height of the frames.
        frames: Number of different frames; parity tracks each once.
        objects: Numbers of objects, in ascending order.
        warm: Frames before times count, in which memories fill and graphs are captured.
        counted: Frames whose time counts.
        box_s: Seconds after which fewer frames count.
        tests: What pytest is given.
        torch_device: Where PyTorch runs.
    """

    model: str = "sam2.1-hiera-tiny"
    seed: int | None = 1
    nano: str = "nano"
    clips: int = 6
    video: str | None = None
    frame: tuple[int, int] = (1280, 720)
    frames: int = 40
    objects: tuple[int, ...] = (1, 2, 4, 8)
    warm: int = 24
    counted: int = 40
    box_s: float = 6.0
    tests: tuple[str, ...] = ("tests/runtime",)
    torch_device: str = "cuda"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        kind: Part of the page to which it belongs.
        way: What is measured, such as "cuda fp16"; with `kind` unique.
        task: Module and function, a generator of parts of the figures.
        limit_s: Time limit in seconds.
        arguments: Of the function.
        needs: Names of the steps whose results it needs.
        backend: What must be on this machine: a backend, or "pytorch".
        makes: What it leaves in the work folder; without it, it is not done.
    """

    kind: str
    way: str
    task: str
    limit_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    backend: str | None = None
    makes: str | None = None

    @property
    def name(self) -> str:
        """Return the key of its record."""
        return f"{self.kind}: {self.way}"


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a step is given: the settings, and a folder for what later steps need."""

    folder: Path
    settings: Settings


@dataclass(slots=True)
class Runner:
    """Runs steps until a deadline, and keeps a record of each.

    Attributes:
        workspace: Given to every step.
        deadline: On the monotonic clock.
        records: By the names of steps, as in the JSON file.
        command: See `COMMAND`.
        on_record: Called after every step that ran.
    """

    workspace: Workspace
    deadline: float
    records: dict[str, dict[str, Any]]
    command: Sequence[str] = COMMAND
    on_record: Callable[[Step], None] = lambda _step: None

    def run(self, steps: Sequence[Step], missing: Mapping[str, str | None]) -> None:
        """Run what has not been run, in this order.

        Args:
            steps: All steps; their records are made.
            missing: Why a backend is missing; None for one that is there.
        """
        for step in steps:
            if self._is_final(step):
                continue
            reason = missing.get(step.backend or "")
            unmet = [n for n in step.needs if self.records[n]["status"] != "done"]
            left_s = self.deadline - time.monotonic()
            if reason is not None:
                self._note(step, "missing", reason)
            elif unmet:
                self._note(step, *_because_of(unmet[0], self.records[unmet[0]]))
            elif left_s < MIN_LEFT_S:
                self._note(step, "not reached", "the time was over")
            else:
                self.run_one(step, left_s)

    def run_one(self, step: Step, left_s: float) -> dict[str, Any]:
        """Run a step in a process of its own, and return its record."""
        jobs = self.workspace.folder / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in step.name)
        job, answers, log = (jobs / f"{name}.{end}" for end in ("job", "jsonl", "log"))
        job.write_text(
            json.dumps(
                {
                    "task": step.task,
                    "arguments": dict(step.arguments),
                    "settings": asdict(self.workspace.settings),
                    "folder": str(self.workspace.folder),
                    "answers": str(answers),
                }
            )
        )
        answers.unlink(missing_ok=True)
        start, in_time = time.monotonic(), True
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command, str(job)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )
            try:
                process.wait(min(step.limit_s, left_s))
            except subprocess.TimeoutExpired:
                in_time = False
            finally:
                _end_group(process)
        seconds = time.monotonic() - start
        figures, finished, error = _answers(answers)
        status: Status
        reason: str | None
        if finished or in_time:
            code = process.returncode if in_time else 0
            status, reason = _outcome(code, error, log, finished=finished)
        elif left_s < step.limit_s:
            status, reason = "not reached", f"the time was over after {seconds:.0f} s"
        else:
            status, reason = "timed out", f"stopped after {seconds:.0f} s"
        self._note(step, status, reason, figures, seconds)
        self.on_record(step)
        return self.records[step.name]

    def _is_final(self, step: Step) -> bool:
        record = self.records.get(step.name)
        if record is None or record["status"] not in FINAL:
            return False
        return step.makes is None or (self.workspace.folder / step.makes).exists()

    def _note(
        self,
        step: Step,
        status: Status,
        reason: str | None,
        figures: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> None:
        self.records[step.name] = {
            "kind": step.kind,
            "way": step.way,
            "status": status,
            "reason": reason,
            "figures": dict(figures or {}),
            "seconds": None if seconds is None else round(seconds, 1),
        }


def _because_of(name: str, record: Mapping[str, Any]) -> tuple[Status, str]:
    """Return the state of a step that needs one that is not done, and why."""
    status: Status = record["status"]
    if status in FINAL:
        return "skipped", f"it needs {name}, which {status}"
    return status, record["reason"]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a step, with the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(file: Path) -> tuple[dict[str, Any], bool, str | None]:
    """Return the figures of a step, whether it came to its end, and its error."""
    figures: dict[str, Any] = {}
    finished, error = False, None
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    for line in lines:
        if line.endswith("\n"):  # otherwise it ended while it wrote
            answer = json.loads(line)
            figures |= answer.get("figures", {})
            finished = finished or "done" in answer
            error = answer.get("error", error)
    return figures, finished, error


def _outcome(
    code: int, error: str | None, log: Path, *, finished: bool
) -> tuple[Status, str | None]:
    """Return how a step ended and why."""
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if finished:
        return "done", f"afterward {ended}" if code else None
    if error is not None:
        return "failed", error
    lines = log.read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return "failed", f"{ended}: {said[-1] if said else 'no message'}"[:MAX_REASON]


def main(job: Path) -> int:
    """Carry out a job in this process; returns the exit code."""
    order = json.loads(job.read_text())
    module, _, function = order["task"].rpartition(".")
    task = getattr(importlib.import_module(module), function)
    settings: Any = {
        k: tuple(v) if isinstance(v, list) else v for k, v in order["settings"].items()
    }
    workspace = Workspace(Path(order["folder"]), Settings(**settings))
    with Path(order["answers"]).open("a", buffering=1) as answers:
        try:
            for figures in task(workspace, **order["arguments"]):
                answers.write(json.dumps({"figures": figures}) + "\n")
        except Exception as error:  # noqa: BLE001 # whatever it is, it costs one line
            traceback.print_exc()
            first = str(error).strip().partition("\n")[0]
            answers.write(json.dumps({"error": f"{type(error).__name__}: {first}"[:MAX_REASON]}))
            answers.write("\n")
            return 1
        answers.write('{"done": true}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
