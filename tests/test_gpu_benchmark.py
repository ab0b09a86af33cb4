"""`benchmarks/gpu.py` on the late device: its steps, how it ends and resumes, and its page."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Sam2VideoModel

from benchmarks import gpu, gpu_runner, gpu_steps
from benchmarks.gpu_page import page
from benchmarks.gpu_runner import Runner, Settings, Step, Workspace
from sam2_edge import Bundle, FrameResult, ObjectResult
from tests.helpers import gpu_benchmark as fake

PLENTY_S = 600.0


def step(task: Any, *, way: str | None = None, kind: str = "speed", **fields: Any) -> Step:
    limit_s = fields.pop("limit_s", PLENTY_S)
    return Step(kind, way or task.__name__, f"{fake.__name__}.{task.__name__}", limit_s, **fields)


def runner(
    folder: Path, records: dict[str, Any] | None = None, *, left_s: float = PLENTY_S
) -> Runner:
    deadline = time.monotonic() + left_s
    return Runner(Workspace(folder, Settings()), deadline, {} if records is None else records)


def is_running(process: int) -> bool:
    file = Path(f"/proc/{process}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def record(**fields: Any) -> dict[str, Any]:
    made = {"kind": "speed", "way": "cuda fp16", "status": "done", "reason": None, "figures": {}}
    return {**made, "seconds": 1.0, **fields}


def run_of(*records: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {"GPU": "Late Device"},
        "versions": {"Python": "3"},
        "tree": "abc",
        "commit": None,
        "date": "2026-01-01",
        "settings": {**gpu.asdict(Settings()), "objects": [1, 2]},
        "steps": {f"{r['kind']}: {r['way']}": r for r in records},
    }


# --- Running steps ---------------------------------------------------------------------------


def test_a_step_that_crashes_or_fails_costs_one_line(tmp_path: Path) -> None:
    steps = [step(fake.crashes), step(fake.raises), step(fake.crashes_at_its_end), step(fake.good)]
    ran = runner(tmp_path)
    ran.run(steps, {})

    crashed, failed, late, good = ran.records.values()
    assert (crashed["status"], crashed["figures"]) == ("failed", {"value": 1})
    assert crashed["reason"].startswith("ended by SIGSEGV")
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError: the first line")
    assert (late["status"], late["reason"]) == ("done", "afterward ended by SIGABRT")
    assert (good["status"], good["figures"], good["reason"]) == ("done", {"value": 1}, None)


def test_a_step_past_its_limit_is_ended_with_its_processes(tmp_path: Path) -> None:
    ran = runner(tmp_path)
    ran.run([step(fake.hangs, limit_s=8), step(fake.good)], {})

    stopped, good = ran.records.values()
    assert (stopped["status"], stopped["figures"]) == ("timed out", {"value": 1})
    assert good["status"] == "done"
    assert not is_running(int((tmp_path / "other").read_text()))


def test_what_the_deadline_cuts_or_excludes_is_not_reached(tmp_path: Path) -> None:
    ran = runner(tmp_path, left_s=gpu_runner.MIN_LEFT_S + 3)
    ran.run([step(fake.hangs), step(fake.good), step(fake.raises, needs=("speed: hangs",))], {})
    assert {r["status"] for r in ran.records.values()} == {"not reached"}
    assert ran.records["speed: hangs"]["figures"] == {"value": 1}

    again = runner(tmp_path, ran.records)
    again.run([step(fake.good)], {})
    assert again.records["speed: good"]["status"] == "done"


def test_a_missing_backend_is_a_line_for_all_that_need_it(tmp_path: Path) -> None:
    ran = runner(tmp_path)
    first = step(fake.good, way="engines", backend="tensorrt")
    second = step(fake.good, way="tracking", needs=(first.name,))
    ran.run([first, second, step(fake.good, backend="cuda")], {"tensorrt": "no", "cuda": None})
    states = [(r["status"], r["reason"]) for r in ran.records.values()]
    assert states == [("missing", "no"), ("missing", "no"), ("done", None)]


def test_steps_that_need_a_failed_one_are_skipped(tmp_path: Path) -> None:
    ran = runner(tmp_path)
    second = step(fake.good, needs=("speed: raises",))
    third = step(fake.counts, needs=(second.name,))
    ran.run([step(fake.raises), second, third], {})
    for name in (second.name, third.name):
        assert ran.records[name]["status"] == "skipped"
        assert ran.records[name]["reason"] == "it needs speed: raises, which failed"


def test_what_a_step_makes_must_still_be_there(tmp_path: Path) -> None:
    counting = step(fake.counts, makes="made")
    records: dict[str, Any] = {}
    for _ in range(2):
        runner(tmp_path, records).run([counting], {})
    assert records[counting.name]["figures"] == {"value": 2}
    (tmp_path / "made").mkdir()
    runner(tmp_path, records).run([counting], {})
    assert records[counting.name]["figures"] == {"value": 2}


# --- The command -----------------------------------------------------------------------------


def measure(output: Path, *tasks: Any, **options: Any) -> dict[str, Any]:
    steps = [step(task) for task in tasks]
    return gpu.measure(output, Settings(), steps=steps, command=fake.COMMAND, **options)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("gpu")
    return output, measure(output, fake.counts, fake.raises)


def test_finished_steps_are_read_from_the_file(measured: tuple[Path, dict[str, Any]]) -> None:
    output, before = measured
    shutil.copytree(output, output / "copy", ignore=shutil.ignore_patterns("copy"))
    after = measure(output, fake.counts, fake.raises)
    assert after["steps"]["speed: counts"] == before["steps"]["speed: counts"]
    assert after["steps"]["speed: raises"] == before["steps"]["speed: raises"]
    (run,) = json.loads((output / "gpu.json").read_text()).values()
    assert run["steps"] == after["steps"]


def test_failed_steps_run_anew_on_request(measured: tuple[Path, dict[str, Any]]) -> None:
    output, before = measured
    after = measure(output, fake.counts, fake.raises, retry=True)
    assert after["steps"]["speed: counts"] == before["steps"]["speed: counts"]
    assert after["steps"]["speed: raises"]["status"] == "failed"


def test_other_sources_begin_anew(
    measured: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output, _ = measured
    shutil.copytree(output, tmp_path / "copy")
    monkeypatch.setattr(gpu, "tree", lambda _root: "other")
    after = measure(tmp_path / "copy", fake.counts)
    assert after["steps"]["speed: counts"]["figures"] == {"value": 1}
    assert len(json.loads((tmp_path / "copy" / "gpu.json").read_text())) == 2


def test_the_machine_says_what_is_missing(measured: tuple[Path, dict[str, Any]]) -> None:
    machine = measured[1]["steps"]["machine: found"]
    assert (machine["status"], machine["reason"]) == ("done", None)
    missing = machine["figures"]["missing"]
    assert [missing[name] for name in ("gpu", "cuda", "tensorrt", "pytorch")] == [None] * 4
    assert "SM90" in missing["tensorrt-rtx"]
    assert "9.0" in measured[1]["machine"]["GPU"]


def test_a_change_of_any_source_changes_the_tree(tmp_path: Path) -> None:
    for folder in gpu.SOURCES:
        (tmp_path / folder).mkdir()
    seen = {gpu.tree(tmp_path)}
    for name in ("sam2_edge/a.py", "tests/b.py"):
        (tmp_path / name).write_text("x")
        seen.add(gpu.tree(tmp_path))
    assert len(seen) == 3


def test_without_a_gpu_the_command_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--minutes", "0.5"]
    done = subprocess.run(
        command, cwd=gpu_runner.ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "/nowhere", "PYTHONPATH": str(gpu_runner.ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "there is no NVIDIA GPU" in done.stdout
    (run,) = json.loads((tmp_path / "gpu.json").read_text()).values()
    assert {r["status"] for r in run["steps"].values()} == {"done", "missing"}
    assert "Nothing was measured (missing)." in (tmp_path / "gpu.md").read_text()


def test_a_signal_ends_the_step_that_runs(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from benchmarks import gpu\n"
        f"hangs = gpu.Step('speed', 'hangs', '{fake.__name__}.hangs', 600)\n"
        "gpu.plan = lambda: [hangs]\n"
        "sys.exit(gpu.main())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=gpu_runner.ROOT, stdout=subprocess.DEVNULL) as process:
        while not (found := list(tmp_path.glob("work-*/other"))):
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not is_running(int(found[0].read_text()))


def test_every_step_of_the_plan_can_be_called_and_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for planned in gpu.plan():
        module, _, function = planned.task.rpartition(".")
        task = getattr(import_module(module), function)
        inspect.signature(task).bind(None, **planned.arguments)
        assert seen.issuperset(planned.needs), planned.name
        assert planned.name not in seen
        seen.add(planned.name)
    assert sum(s.kind == "speed" for s in gpu.plan()) == 8


# --- The page --------------------------------------------------------------------------------


def cells(text: str, title: str, way: str) -> list[str]:
    section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    (row,) = (line for line in section.splitlines() if line.startswith(f"| {way} |"))
    return [cell.strip() for cell in row.strip("|").split("|")[1:]]


def test_the_page_has_figures_ratios_and_the_states_of_what_is_missing() -> None:
    base = record(way="PyTorch eager bf16", figures={"1": {"ms": 20.0, "fps": 50.0}})
    ours = {"ms": 5.0, "fps": 250.0, "peak_mib": 300.4}
    cut = record(figures={"1": ours}, status="not reached", reason="the time was over after 9 s")
    gone = record(way="tensorrt fp16", status="missing", reason="not installed")
    text = page(run_of(gone, cut, base))
    assert cells(text, "Milliseconds per frame", "cuda fp16") == ["5.00", "not reached"]
    assert cells(text, "Times as fast as PyTorch eager bf16", "cuda fp16") == [
        "4.00",
        "not reached",
    ]
    assert cells(text, "Frames per second", "PyTorch eager bf16") == ["50.0", "-"]
    assert cells(text, "Peak device memory, MiB", "cuda fp16") == ["300", "not reached"]
    assert cells(text, "Peak device memory, MiB", "tensorrt fp16") == ["missing", "missing"]
    assert "- missing: not installed\n    - speed: tensorrt fp16\n" in text
    assert "- not reached: the time was over after 9 s\n    - speed: cuda fp16\n" in text


def test_ratios_need_both_sides() -> None:
    text = page(run_of(record(figures={"1": {"ms": 5.0}})))
    title = "Times as fast as PyTorch eager bf16"
    assert cells(text, title, "cuda fp16") == ["no PyTorch eager bf16", "-"]


def test_the_page_lists_failed_tests() -> None:
    figures = {
        "passed": 3, "failed": 1, "skipped": 2,
        "failures": ["tests.a.test_b"], "skip_reasons": {"no TensorRT": 2},
    }  # fmt: skip
    text = page(run_of(record(kind="tests", way="pytest -m gpu", figures=figures)))
    assert "pytest -m gpu: 3 passed, 1 failed, 2 skipped" in text
    assert "- failed: tests.a.test_b" in text
    assert "- skipped, 2: no TensorRT" in text


# --- The steps on the late device ------------------------------------------------------------


def agreement(folder: Path, *logits: float) -> dict[str, Any]:
    """Of objects whose logits are the same everywhere, with a reference of -1 everywhere."""
    wanted = np.full((8, 8), -1, np.float32)
    present = np.ones((len(logits), 2), bool)
    kept: dict[str, Any] = {f"{i}/1": wanted for i in range(len(logits))}
    np.savez(folder / gpu_steps.REFERENCE, present=present, **kept)
    results = (
        FrameResult(i, (ObjectResult(1, np.full_like(wanted, x), 1.0, 1.0, (32, 32)),), (32, 32), 0)
        for i, x in enumerate(logits)
    )
    return gpu_steps.agreement(Workspace(folder, Settings()), results, "fp32")


def test_two_empty_masks_agree(tmp_path: Path) -> None:
    found = agreement(tmp_path, -1, -2, -1, -1)
    assert (found["agrees"], found["j_and_f"], found["lowest_iou"]) == (True, 1, 1)
    assert found["largest_difference"] == 1


@pytest.mark.parametrize("wrong", [1, float("nan")])
def test_other_masks_and_what_is_no_number_do_not_agree(tmp_path: Path, wrong: float) -> None:
    assert agreement(tmp_path, -1, wrong, -1, -1)["agrees"] is False


SMALL = {"frames": 12, "frame": (160, 96), "objects": (1, 4), "warm": 4, "counted": 12, "clips": 1}


@pytest.fixture(scope="module")
def late_run(
    gpu_bundle: Bundle, small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The float32 steps of the plan, with exports that are already there."""
    output = tmp_path_factory.mktemp("late")
    small_model.save_pretrained(output / "weights")
    tests = output / "test_given.py"
    tests.write_text(
        "import pytest\n"
        "@pytest.mark.gpu\n@pytest.mark.parametrize('n', [0, 1, 2])\n"
        "def test_n(n):\n    assert n\n    if n == 2: pytest.skip('no such thing')\n"
    )
    weights = str(output / "weights")
    settings = Settings(
        model=weights, seed=None, nano=weights, tests=(str(tests),), torch_device="cpu", **SMALL
    )
    folder = output / "work"
    for name in ("model-fp32", "nano-fp32"):
        shutil.copytree(gpu_bundle.path, folder / name)
    records = {
        f"export: {name}": record(kind="export", way=name) for name in ("model-fp32", "nano-fp32")
    }
    ran = Runner(Workspace(folder, settings), time.monotonic() + PLENTY_S, records, fake.COMMAND)
    steps = [s for s in gpu.plan() if s.kind in ("frames", "reference", "tests")]
    steps += [s for s in gpu.plan() if s.way in ("PyTorch eager bf16", "PyTorch bf16")]
    steps += [s for s in gpu.plan() if (s.kind, s.way) == ("nano", "PyTorch fp32")]
    steps += gpu._engines("model", "fp32")
    for backend in ("tensorrt", "cuda"):
        for kind in ("parity", "speed", "stages"):
            needs = (gpu.FRAMES, gpu.REFERENCE)
            steps.append(gpu._measured(kind, "fp32", PLENTY_S, backend, needs=needs))
    needs = (gpu.NANO_REFERENCE,)
    steps.append(gpu._measured("nano", "fp32", PLENTY_S, "cuda", model="nano", needs=needs))
    ran.run(steps, {"tensorrt-rtx": "no target"})
    return run_of(*records.values()) | {"settings": gpu.asdict(settings)}


@pytest.mark.slow
def test_all_steps_run_on_the_late_device(late_run: dict[str, Any]) -> None:
    states = {name: (r["status"], r["reason"]) for name, r in late_run["steps"].items()}
    assert states.pop("engines: model-fp32-tensorrt-rtx") == ("missing", "no target")
    assert set(states.values()) == {("done", None)}, states


@pytest.mark.slow
def test_backends_of_the_late_device_agree_with_pytorch(late_run: dict[str, Any]) -> None:
    for backend in ("cuda", "tensorrt"):
        figures = late_run["steps"][f"parity: {backend} fp32"]["figures"]
        assert figures["agrees"], figures
        assert figures["masks"] == 2 * 12 + 2 * (12 - 3) - (12 - 6)
    yardstick = late_run["steps"]["parity: PyTorch bf16"]["figures"]
    assert yardstick["logit_error"] > 10 * figures["logit_error"]
    nano = late_run["steps"]["nano: cuda fp32"]["figures"]
    assert nano["iou_with_pytorch"] > 0.99
    assert nano["j_and_f"] == pytest.approx(
        late_run["steps"]["nano: PyTorch fp32"]["figures"]["j_and_f"], abs=0.01
    )


@pytest.mark.slow
def test_every_figure_of_the_late_device_is_on_the_page(late_run: dict[str, Any]) -> None:
    text = page(late_run)
    for title in ("Milliseconds per frame", "Frames per second", "Peak device memory, MiB"):
        for way in ("tensorrt fp32", "cuda fp32", "PyTorch eager bf16"):
            assert all(float(cell) >= 0 for cell in cells(text, title, way))
    assert "memory_attention" in text
    assert all(float(c) >= 0 for c in cells(text, "Milliseconds per stage", "cuda fp32, 4"))
    assert "pytest -m gpu: 1 passed, 1 failed, 1 skipped" in text
    speed = late_run["steps"]["speed: cuda fp32"]["figures"]
    assert 0 < speed["1"]["peak_mib"] < speed["4"]["peak_mib"]
