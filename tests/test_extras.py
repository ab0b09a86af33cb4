"""Engines are extras: what each brings, and what works without any of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_edge import BackendError
from sam2_edge.extras import naming_the_extra
from tests.helpers.interpreter import run_python
from tests.helpers.markdown import PAGES, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ENGINES = ("cpu", "cuda", "tensorrt", "tensorrt-rtx", "jetson")
NEITHER = "import sys; sys.modules.update(dict.fromkeys(('cv2', 'onnxruntime')))\n"
NO_ONNX_RUNTIME = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
INSTALLING_FILES = (
    *PAGES,
    ROOT / "Makefile",
    *sorted((ROOT / "deploy").glob("Dockerfile.*")),
)


def packages(requirements: list[str]) -> set[str]:
    """Names of the packages that are required, without versions and extras."""
    return {re.split(r"[\[<>=~!; ]", requirement)[0] for requirement in requirements}


def run_command(setup: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line after some code, in a process of its own."""
    code = f"{setup}\nfrom sam2_edge.cli.entry import main; main()\n"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_base_installation_has_no_engine_and_no_opencv() -> None:
    others = {"onnxruntime", "onnxruntime-gpu", "opencv-python", "tensorrt", "tensorrt-rtx"}
    assert not packages(PROJECT["dependencies"]) & others


def test_only_the_engines_name_an_onnxruntime_and_each_at_most_one() -> None:
    found = {
        extra: [name for name in packages(requirements) if name.startswith("onnxruntime")]
        for extra, requirements in EXTRAS.items()
    }
    assert {extra: names for extra, names in found.items() if names} == {
        "cpu": ["onnxruntime"],
        "cuda": ["onnxruntime-gpu"],
    }


def test_each_engine_is_complete_except_for_what_jetpack_brings() -> None:
    assert {extra for extra in EXTRAS if "opencv-python" in packages(EXTRAS[extra])} == {
        *(engine for engine in ENGINES if engine != "jetson"),
        "triton",  # a client without an engine
    }
    assert packages(EXTRAS["jetson"]) == {"numpy", "polygraphy"}
    assert "onnxruntime-gpu[cuda,cudnn]>=1.23" in EXTRAS["cuda"]
    for variant in ("tensorrt", "tensorrt-rtx"):
        assert {variant, "polygraphy"} <= packages(EXTRAS[variant])


def test_no_extra_needs_cuda_bindings() -> None:
    assert not any("cuda-bindings" in packages(requirements) for requirements in EXTRAS.values())


@pytest.mark.parametrize("page", INSTALLING_FILES, ids=lambda page: page.name)
def test_installations_name_known_extras_and_not_two_onnxruntimes(page: Path) -> None:
    for names in re.findall(r"install [^\n]*'(?:\.|sam2_edge)\[([\w,-]+)\]'", page.read_text()):
        extras = set(names.split(","))
        assert extras <= EXTRAS.keys()
        assert not {"cpu", "cuda"} <= extras
        assert extras & {*ENGINES, "triton"}
        assert "jetson" not in extras or extras.isdisjoint(set(ENGINES) - {"jetson"})


def test_the_help_and_doctor_work_without_an_engine() -> None:
    shown = run_command(NEITHER, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "track" in shown.stdout
    shown = run_command(NEITHER, "doctor")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Best here: nothing yet; install one engine: pip install")


@pytest.mark.parametrize("arguments", [("track", "x", "--bundle", "nano"), ("serve", "--help")])
def test_commands_without_an_engine_name_the_extras(arguments: tuple[str, ...]) -> None:
    shown = run_command(NEITHER, *arguments)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: OpenCV is not installed, because no engine is; install")
    assert "'sam2_edge[cpu]', or [cuda], [tensorrt] or [tensorrt-rtx]" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "imported", ["sam2_edge import VideoTracker", "sam2_edge.compat import SAM2ImagePredictor"]
)
def test_the_library_without_an_engine_names_the_extras(imported: str) -> None:
    run_python(
        f"{NEITHER}"
        "from sam2_edge.errors import BackendError\n"
        "try:\n"
        f"    from {imported}\n"
        "except BackendError as error:\n"
        "    assert \"pip install 'sam2_edge[cpu]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )


def test_every_command_is_there_without_onnxruntime() -> None:
    run_python(
        f"{NO_ONNX_RUNTIME}"
        "from sam2_edge.cli.main import cli\n"
        "assert all(callable(command) for command in cli.commands.values())\n"
    )


def test_onnx_graphs_without_onnxruntime_name_the_extras() -> None:
    run_python(
        f"{NO_ONNX_RUNTIME}"
        "import sam2_edge\n"
        "for backend in ('auto', 'cpu', 'cuda'):\n"
        "    try:\n"
        "        sam2_edge.VideoTracker('nano', backend=backend)\n"
        "    except sam2_edge.BackendError as error:\n"
        "        assert 'ONNX Runtime is not installed' in str(error), error\n"
        "        assert \"pip install 'sam2_edge[cpu]'\" in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(backend)\n"
    )


def test_export_without_onnxruntime_names_its_extra_rather_than_pytorch(tmp_path: Path) -> None:
    shown = run_command(NO_ONNX_RUNTIME, "export", "nano", "--output", str(tmp_path / "bundle"))
    assert shown.returncode == 1
    assert "ONNX Runtime is not installed" in shown.stderr
    assert "PyTorch" not in shown.stderr


def test_engines_need_no_onnxruntime() -> None:
    """They are opened up to the GPU, or to their version where there is one."""
    run_python(
        f"{NO_ONNX_RUNTIME}"
        "import sam2_edge\n"
        "from tests.helpers.engines import as_engines\n"
        "bundle = as_engines(sam2_edge.load_bundle('nano'))\n"
        "try:\n"
        "    sam2_edge.VideoTracker(bundle)\n"
        "except sam2_edge.BackendError as error:\n"
        "    assert 'driver' in str(error) or 'was built with' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )


def test_an_opencv_for_numpy_1_is_told_from_a_missing_one() -> None:
    # What NumPy 2 says to such a module.
    with (
        pytest.raises(BackendError, match=r"OpenCV was built for NumPy 1.*'numpy<2'"),
        naming_the_extra(),
    ):
        raise ImportError("numpy.core.multiarray failed to import")


def test_a_damaged_opencv_is_told_from_a_missing_one() -> None:
    # Folders without code, which are left when another package is uninstalled over it.
    setup = "import sys, types; sys.modules['cv2'] = types.ModuleType('cv2')"
    shown = run_command(setup, "track", "x", "--bundle", "nano")
    assert shown.returncode == 1
    assert shown.stderr == "error: cv2 is damaged; see sam2-edge doctor\n"


def test_a_missing_attribute_of_anything_else_is_not_explained() -> None:
    with pytest.raises(AttributeError, match="nothing"), naming_the_extra():
        re.nothing  # type: ignore[attr-defined] # noqa: B018


def test_a_missing_module_of_anything_else_is_not_explained() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing"), naming_the_extra():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")
