"""What our code touches of classic TensorRT exists in its real Python bindings, old and new.

Its libraries cannot be had from PyPI, but the bindings can: they are loaded here over empty
libraries, compiled on the spot, so nothing runs; that names exist is all that is shown.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_edge.export.tensorrt import worker
from sam2_edge.runtime.backends import tensorrt
from sam2_edge.runtime.backends.tensorrt_variant import rtx_targets

VERSIONS = ["10.3.0", "10.16.1.11", "11.4.0.106"]
"""JetPack 6's, the last of 10, and the newest at the time of writing."""

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""All that the bindings import from them, as `nm -D` says."""

OWNERS = {
    r"self\._context": "IExecutionContext",
    r"self\._engine": "ICudaEngine",
    r"runtime": "Runtime",
    r"config": "IBuilderConfig",
}
"""Which class an expression of ours is of."""

CALLED_FOR_US = {
    "Builder": ["create_network", "create_builder_config", "build_serialized_network"],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
    "OnnxParser": ["parse_from_file", "num_errors", "get_error"],
    "IBuilderConfig": ["add_optimization_profile", "create_timing_cache", "progress_monitor"],
    "IOptimizationProfile": ["set_shape"],
    "ICudaEngine": ["create_execution_context"],
}
"""What Polygraphy and `runtime_cache.py` call for us."""


def touched() -> dict[str, set[str]]:
    """Names that our code uses, by class of TensorRT."""
    sources = [Path(m.__file__).read_text("utf-8") for m in (worker, tensorrt)]
    text = "\n".join(sources)
    names: dict[str, set[str]] = {owner: set(found) for owner, found in CALLED_FOR_US.items()}
    for expression, owner in OWNERS.items():
        names.setdefault(owner, set()).update(re.findall(rf"(?<![.\w]){expression}\.(\w+)", text))
    for owner, name in re.findall(r"\btrt\.([A-Z]\w+)\.?([A-Z_0-9]\w+)?", text):
        names.setdefault(owner, set()).update([name] if name else [])
    return names


def test_the_list_of_names_is_read_from_our_code() -> None:
    names = touched()
    assert {"execute_async_v3", "set_input_shape"} <= names["IExecutionContext"]
    assert "deserialize_cuda_engine" in names["Runtime"]
    assert "clear_flag" in names["IBuilderConfig"]
    assert {"ILogger", "IProgressMonitor", "Runtime", "BuilderFlag"} <= names.keys()


def test_what_is_asked_of_tensorrt_rtx_alone_exists() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert "WHOLE_GRAPH_CAPTURE" in trt.CudaGraphStrategy.__members__
    for name in ("cuda_graph_strategy", "create_runtime_cache", "set_runtime_cache"):
        assert hasattr(trt.IRuntimeConfig, name)
    assert "SM86" in rtx_targets(trt)


@pytest.fixture(scope="module", params=VERSIONS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bindings of one version and empty libraries for them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler for the empty libraries")
    folder = tmp_path_factory.mktemp("tensorrt")
    package = f"tensorrt_cu12_bindings=={request.param}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    done = subprocess.run([*pip, package], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{package} cannot be installed here: {done.stderr[-300:]}")
    source = folder / "empty.c"
    source.write_text("\n".join(f"void {name}(void) {{}}" for name in FUNCTIONS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{request.param.split('.')[0]}"
        shared = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source]
        subprocess.run([compiler, *shared], check=True)
    return folder


CHECK = """
import ctypes, glob, json, sys
for library in sorted(glob.glob(sys.argv[1] + "/lib*.so.*")):
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as trt
lacking = []
for owner, names in json.load(sys.stdin).items():
    if not hasattr(trt, owner):
        lacking.append(owner)
    else:
        lacking += [f"{owner}.{n}" for n in names if not hasattr(getattr(trt, owner), n)]
sys.path.append(sys.argv[2])
from sam2_edge.export.tensorrt.worker import _monitor
from sam2_edge.runtime.backends.tensorrt import _logger
_logger(trt).log(trt.ILogger.ERROR, "said")
monitor = _monitor(trt, lambda now: None)
monitor.phase_start("a", None, 2)
assert monitor.step_complete("a", 0) is True
print(json.dumps({"version": trt.__version__, "lacking": lacking,
                  "flag": 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)}))
"""


def test_every_name_that_we_touch_exists(installed: Path) -> None:
    names = {owner: sorted(found) for owner, found in touched().items()}
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(installed), root],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["version"] in VERSIONS
    assert answer["lacking"] == []
    assert answer["flag"] in (1, 2)  # before and from 11


def test_every_name_exists_in_tensorrt_rtx_and_its_cache_too() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    cache = {
        "ICudaEngine": {"create_runtime_config"},
        "IRuntimeConfig": {"create_runtime_cache", "set_runtime_cache"},
        "IRuntimeCache": {"serialize", "deserialize"},
        "ComputeCapability": {"SM86"},
    }
    for owner, names in [*touched().items(), *cache.items()]:
        assert [name for name in names if not hasattr(getattr(rtx, owner), name)] == []
