"""A signal ends the command line cleanly, whenever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def run_entry(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script, and then the command line, in a process of its own."""
    code = f"{script}\nfrom sam2_edge.cli.entry import main; main()\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@SIGNALS
@pytest.mark.parametrize("module", ["sam2_edge.cli.main", "numpy", "cv2", "onnxruntime"])
def test_a_signal_during_an_import_ends_the_process(module: str, number: signal.Signals) -> None:
    script = f"""
import os, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
"""
    done = run_entry(script, "doctor")
    assert (done.returncode, done.stdout) == (130, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("interrupted")


@SIGNALS
def test_a_signal_while_a_command_starts_is_an_interruption(number: signal.Signals) -> None:
    script = f"""
import os
from sam2_edge.cli import run
run.make_loop = lambda *_: os.kill(os.getpid(), {int(number)})
"""
    done = run_entry(script, "run", "synth", "--bundle", "nano", "--point", "5,5")
    assert done.returncode == 130
    assert "interrupted; output written so far is kept" in done.stderr
    assert "Traceback" not in done.stderr


@SIGNALS
def test_a_camera_that_hangs_in_native_code_does_not_abort_the_process(
    number: signal.Signals,
) -> None:
    script = f"""
import os, cv2, numpy as np
from sam2_edge.cli import loop_source
class Hanging:
    def __init__(self, *_, **__):
        large = np.zeros((4000, 4000, 3), np.uint8)
        os.kill(os.getpid(), {int(number)})
        while True:
            cv2.GaussianBlur(large, (0, 0), 9)
loop_source.SyntheticCamera = Hanging
"""
    done = run_entry(script, "run", "synth", "--bundle", "nano", "--point", "5,5")
    assert done.returncode == 0, done.stderr
    assert "terminate called" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "moment",
    [
        "sam2_edge.serve.security.make_access",
        "sam2_edge.cli.serve.make_loop",
        "sam2_edge.cli.loop_source.SyntheticCamera.__init__",
        "sam2_edge.cli.serve._announce",
        "sam2_edge.runtime.streaming.capture.Capture._take",
    ],
)
def test_two_signals_end_a_server_cleanly_at_any_stage(moment: str) -> None:
    script = f"""
import os, pkgutil, signal
owner, _, name = {moment!r}.rpartition(".")
owner = pkgutil.resolve_name(owner)
whole = getattr(owner, name)
def signaled(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    return whole(*args, **kwargs)
setattr(owner, name, signaled)
"""
    done = run_entry(script, "serve", "synth", "--bundle", "nano", "--port", "0")
    assert done.returncode in (0, 130), done.stderr
    assert ("interrupted;" in done.stderr) == (done.returncode == 130)
    for sign in ("Traceback", "terminate called", "Exception ignored"):
        assert sign not in done.stderr


def test_a_fault_of_the_program_shows_its_traceback_even_while_a_camera_hangs() -> None:
    script = """
import threading, time
from sam2_edge.cli import run
def make_loop(*_):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    raise KeyError("missing")
run.make_loop = make_loop
"""
    done = run_entry(script, "run", "synth", "--bundle", "nano", "--point", "5,5")
    assert done.returncode == 1
    assert "KeyError: 'missing'" in done.stderr


def test_exit_codes_and_output_pass_through() -> None:
    done = run_entry("", "--version")
    assert (done.returncode, done.stdout.startswith("sam2-edge, version")) == (0, True)
    assert run_entry("", "no-such-command").returncode == 2


@SIGNALS
def test_an_interruption_that_native_code_takes_for_damage_is_no_error(
    number: signal.Signals,
) -> None:
    script = f"""
import signal
from sam2_edge import Sam2EdgeError, bundle
def load(path):
    try:
        signal.raise_signal({int(number)})
    except KeyboardInterrupt:
        raise Sam2EdgeError("the file is damaged") from None
bundle.load_bundle = load
"""
    done = run_entry(script, "inspect", "nano")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; output written so far is kept\n"
