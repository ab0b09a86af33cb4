"""A signal interrupts a command once, and where the interruption is not lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from sam2_edge.cli.loop_options import stopped_by_signals


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, in which signals interrupt."""
    start = """
import signal, sys, time
from sam2_edge.cli import signals
signals.Interruption().install()
"""
    return subprocess.run(
        [sys.executable, "-c", start + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


CLEANING = """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGTERM)
    print("cleaned")
"""


def test_a_signal_that_comes_along_with_the_first_does_not_disturb_cleaning_up() -> None:
    done = run_script(CLEANING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned\n", "")


def test_a_later_signal_ends_the_process_at_once() -> None:
    done = run_script("signals.TOGETHER_S = 0" + CLEANING)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


WAITING = """
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_import_that_swallows_exceptions_does_not_swallow_the_interruption() -> None:
    finder = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "swallowing":
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                print("swallowed")
sys.meta_path.insert(0, Finder())
try:
    import swallowing
except ImportError:
    print("imported")
"""
    done = run_script(finder + WAITING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\ninterrupted\n", "")


def test_a_destructor_does_not_swallow_the_interruption() -> None:
    dying = """
class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Dying()
"""
    done = run_script(dying + WAITING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_other_errors_of_destructors_are_reported() -> None:
    dying = """
class Dying:
    def __del__(self):
        raise ValueError("unexpected")
Dying()
"""
    assert "ValueError: unexpected" in run_script(dying).stderr


def test_stopping_may_take_a_lock_that_the_interrupted_code_holds() -> None:
    lock, stopped = threading.Lock(), threading.Event()

    def stop() -> None:
        if lock.acquire(timeout=10):
            stopped.set()

    with stopped_by_signals(stop):
        with lock:
            signal.raise_signal(signal.SIGTERM)
        assert stopped.wait(timeout=20)


def test_a_loop_that_ends_by_itself_is_not_stopped() -> None:
    stops: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals(lambda: stops.append(1)):
        pass
    assert stops == []
    assert signal.getsignal(signal.SIGTERM) is before
