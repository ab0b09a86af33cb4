"""`sam2-edge eval` in several processes, interrupted and resumed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sam2_edge import Bundle
from sam2_edge.bundle import temporary
from sam2_edge.synthetic import clip
from sam2_edge.synthetic.dataset import write_dataset
from tests.helpers.cli import SCRIPT
from tests.helpers.clock import wait_until
from tests.helpers.datasets import (
    Eval,
    cut_short,
    file_contents,
    late_clip,
    result_rows,
    write_layout,
)


def test_a_finished_video_is_not_evaluated_again(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate("lvos", out) == 0
    whole = file_contents(out)
    (out / "records/zebra.json").unlink()  # as if killed just before it was written
    (out / "Annotations/zebra/00000001.png").unlink()
    (out / ".sam2_edge-0123456789abcdef.part").mkdir()
    kept = (out / "Annotations/cup/00000001.png").stat()
    capsys.readouterr()
    temporary._remove_leftovers_once.cache_clear()  # as in another process

    assert evaluate("lvos", out) == 0

    assert "1 of 2 videos are already done" in capsys.readouterr().err
    assert file_contents(out) == whole
    after = (out / "Annotations/cup/00000001.png").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert not (out / ".sam2_edge-0123456789abcdef.part").exists()


def test_videos_with_deleted_masks_are_evaluated_again(evaluate: Eval, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert evaluate("davis", out) == 0
    whole = file_contents(out)
    shutil.rmtree(out / "Annotations/cup")
    assert evaluate("davis", out) == 0
    assert file_contents(out) == whole


@pytest.fixture(scope="module")
def long_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, and two that take several seconds."""
    root = tmp_path_factory.mktemp("long")
    short = clip(1, frames=4, size=64, objects=1, split="heldout", photographs=False)
    write_dataset(root, [short, short])
    for kind in ("JPEGImages", "Annotations"):
        for name in ("00002", "00003"):
            shutil.copytree(root / kind / "00000", root / kind / name)
            suffix = "jpg" if kind == "JPEGImages" else "png"
            for i in range(4, 800):
                (root / kind / name / f"{i:05d}.{suffix}").hardlink_to(
                    root / kind / "00000" / f"00003.{suffix}"
                )
    return root


@pytest.mark.parametrize(
    ("stop", "processes"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)]
)
def test_an_interrupted_evaluation_keeps_finished_videos(
    stop: signal.Signals, processes: int, long_data: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--output", out, "--threads", "1", "--processes", str(processes)]
    command = [SCRIPT, "eval", long_data, small_bundle.path, *options]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where tests run in the background of a script, SIGINT is ignored, and children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = [out / f"records/{name}.json" for name in ("00000", "00001")]
    end = time.monotonic() + 60
    while not all(path.is_file() for path in records) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # a terminal's Ctrl-C goes to every process
    else:
        process.kill()
    # Returns once the last process has closed the pipe: none is left running.
    _, shown = process.communicate(timeout=30)

    assert sorted(p.name for p in (out / "Annotations").iterdir()) == ["00000", "00001"]
    assert not (out / "results.csv").exists()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; output written so far is kept" in shown
        assert "Traceback" not in shown
        assert not list(out.glob(".*.part"))
    short = [*command, "--videos", "00000", "--videos", "00001"]
    again = subprocess.run(short, capture_output=True, text=True, check=True)
    assert "2 of 2 videos are already done" in again.stderr
    assert len(result_rows(out)) == 2
    assert not list(out.glob(".*.part"))


def test_an_interrupt_while_processes_start_shows_no_traceback(
    long_data: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    options = ["--output", tmp_path / "out", "--threads", "1", "--processes", "2"]
    process = subprocess.Popen(
        [SCRIPT, "eval", long_data, small_bundle.path, *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    # The resource tracker of multiprocessing comes first, then the two processes.
    wait_until(lambda: len(children.read_text().split()) >= 3)

    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in shown


def test_results_do_not_depend_on_the_number_of_processes(evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("lvos", tmp_path / "one") == 0
    assert evaluate("lvos", tmp_path / "two", "--processes", 2) == 0
    assert file_contents(tmp_path / "one") == file_contents(tmp_path / "two")


def test_an_error_in_a_process_is_reported_once(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = {"zebra": late_clip(3, 4), "cup": late_clip(1, 7)}
    root = write_layout(tmp_path / "data", "davis", clips)
    cut_short(root / "Annotations/480p/cup/00002.png")
    assert evaluate(root, tmp_path / "out", "--processes", 2) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert len(lines) == 1
    assert "00002.png cannot be decoded" in lines[0]
