"""Packages that are installed over or before each other are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_edge.runtime.installed import conflict, packages_with, places_of
from tests.helpers.markdown import ROOT

CONTENTS = "__version__ = '1.0'\ndef get_available_providers(): return ['CPUExecutionProvider']\n"


def install(folder: Path, package: str, module: str, contents: str | None = CONTENTS) -> Path:
    """Install a package as pip does; without contents another one has taken its files along."""
    (folder / module / "capi").mkdir(parents=True, exist_ok=True)
    if contents is not None:
        (folder / module / "__init__.py").write_text(contents)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{module}/__init__.py,,\n")
    return folder


def doctor(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "COLUMNS": "200"}
    code = "from sam2_edge.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which Python looks for modules."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_one_package_is_no_conflict(folder: Path) -> None:
    install(folder, "onnxruntime", "onnxruntime")
    install(folder, "onnxruntime-extensions", "onnxruntime_extensions")
    assert packages_with("onnxruntime", "onnxruntime", [str(folder)]) == ["onnxruntime"]
    assert conflict("onnxruntime", "onnxruntime", damaged=False) is None


@pytest.mark.usefixtures("folder")
def test_nothing_installed_is_no_conflict() -> None:
    assert conflict("onnxruntime", "onnxruntime", damaged=True) is None


def test_packages_over_each_other_are_all_uninstalled(folder: Path) -> None:
    for package in ("onnxruntime", "onnxruntime-gpu"):
        install(folder, package, "onnxruntime")
    assert conflict("onnxruntime", "onnxruntime", damaged=False) == (
        "onnxruntime and onnxruntime-gpu are installed over each other, so that parts of one are "
        "missing; choose one: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "
        "'sam2_edge[cuda]'"
    )


@pytest.mark.parametrize(
    ("package", "chosen"),
    [("onnxruntime", "sam2_edge[cpu]"), ("onnxruntime-gpu", "sam2_edge[cuda]")],
)
def test_a_package_without_contents_is_reinstalled(folder: Path, package: str, chosen: str) -> None:
    install(folder, package, "onnxruntime", contents=None)
    assert conflict("onnxruntime", "onnxruntime", damaged=True) == (
        f"{package} is damaged; pip uninstall -y {package}, then pip install '{chosen}'"
    )


def test_an_opencv_before_that_of_the_system_is_uninstalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = install(tmp_path / "environment", "opencv-python", "cv2")
    theirs = install(tmp_path / "system", "opencv", "cv2")
    monkeypatch.setattr(sys, "path", [str(ours), str(theirs)])
    assert places_of("cv2") == [str(ours), str(theirs)]
    assert conflict("cv2", "opencv", damaged=False) == (
        f"the cv2 in {ours} hides the one in {theirs}; if that is JetPack's, use it: "
        "pip uninstall -y opencv-python"
    )


def test_a_folder_without_code_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left" / "cv2").mkdir(parents=True)
    theirs = install(tmp_path / "system", "opencv", "cv2")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "left"), str(theirs)])
    assert places_of("cv2") == [str(theirs)]


def test_a_folder_that_is_listed_twice_counts_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, "opencv-python", "cv2")
    monkeypatch.setattr(sys, "path", [str(folder), f"{folder}/."])
    assert places_of("cv2") == [str(folder)]


def test_doctor_begins_with_what_to_mend(tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxruntime-gpu"):
        install(tmp_path, package, "onnxruntime")
    best, mend = doctor(tmp_path).splitlines()[:2]
    assert best.startswith("Best here: cpu")
    assert mend.startswith("To mend: onnxruntime and onnxruntime-gpu are installed over each other")


def test_doctor_survives_a_damaged_onnxruntime(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "onnxruntime", contents="")
    best, mend = doctor(tmp_path).splitlines()[:2]
    assert best.startswith("Best here: nothing yet; install one engine")
    assert mend.startswith("To mend: onnxruntime-gpu is damaged; pip uninstall -y onnxruntime-gpu")
