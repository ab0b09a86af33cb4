"""The names used by our code exist in the Python bindings of classic TensorRT, old and new.

TensorRT's libraries are not on PyPI, but the bindings are. They are loaded over empty libraries
that are compiled here, so nothing runs: the test shows only that the names exist.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from sam2_edge.export.tensorrt import worker
from sam2_edge.runtime.backends import contexts, runtime_cache, tensorrt, tensorrt_variant
from sam2_edge.runtime.backends.tensorrt_variant import rtx_targets
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device import tensorrt as stand_in
from tests.helpers.late_device.tensorrt import Module

VERSIONS = ["10.3.0", "10.16.1.11", "11.4.0.106"]
"""The version in JetPack 6, the last version 10, and the latest at the time of writing."""

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
"""All functions that the bindings import from them, according to `nm -D`."""

OWNERS = {
    "self._context": "IExecutionContext",
    "self._engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "self._runtime": "Runtime",
    "runtime": "Runtime",
    "config": "IBuilderConfig",
    "runtime_config": "IRuntimeConfig",
    "self._cache": "IRuntimeCache",
}
"""The TensorRT class of an expression in our code."""

RTX_ONLY = {"ComputeCapability", "IRuntimeCache", "IRuntimeConfig"}
"""Classes whose names are used only with TensorRT-RTX."""

CALLED_INDIRECTLY = {
    "Builder": {"create_network", "create_builder_config", "build_serialized_network"},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"},
    "OnnxParser": {"parse_from_file", "num_errors", "get_error"},
    "IBuilderConfig": {"add_optimization_profile", "create_timing_cache", "progress_monitor"},
    "IOptimizationProfile": {"set_shape"},
}
"""Names used by Polygraphy."""


def used_names() -> dict[str, set[str]]:
    """Return the names that our code uses, by TensorRT class, from its syntax trees."""
    names = defaultdict(set, {owner: set(found) for owner, found in CALLED_INDIRECTLY.items()})
    for module in (worker, tensorrt, contexts, runtime_cache, tensorrt_variant):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.Attribute):
                continue
            owner = ast.unparse(node.value)
            if owner in OWNERS:
                names[OWNERS[owner]].add(node.attr)
            elif owner == "trt" and node.attr[0].isupper():
                names[node.attr]  # the class itself
            elif owner.startswith("trt."):
                names[owner.removeprefix("trt.")].add(node.attr)
    return names


def test_names_are_collected_from_our_code() -> None:
    names = used_names()
    assert {
        "execute_async_v3",
        "set_device_memory",
        "set_input_shape",
        "set_tensor_address",
        "update_device_memory_size_for_shapes",
    } <= names["IExecutionContext"]
    assert {"create_execution_context", "device_memory_size_v2"} <= names["ICudaEngine"]
    assert "USER_MANAGED" in names["ExecutionContextAllocationStrategy"]
    assert "cuda_graph_strategy" in names["IRuntimeConfig"]
    assert {"deserialize", "serialize"} <= names["IRuntimeCache"]
    assert "deserialize_cuda_engine" in names["Runtime"]
    assert "clear_flag" in names["IBuilderConfig"]
    assert {"ILogger", "IProgressMonitor", "Runtime", "BuilderFlag"} <= names.keys()


@pytest.fixture(scope="module", params=VERSIONS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one version's bindings, and empty libraries for them to load."""
    installed = Path(sys.prefix) / "tensorrt_bindings" / request.param
    if not installed.is_dir():
        pytest.skip(f"{installed} does not exist; `make install` installs the bindings there")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler for the empty libraries")
    folder = tmp_path_factory.mktemp("tensorrt")
    (folder / "tensorrt_bindings").symlink_to(installed / "tensorrt_bindings")
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
from sam2_edge.runtime.backends.tensorrt_variant import logger
logger(trt).log(trt.ILogger.ERROR, "said")
assert logger(trt) is logger(trt)
monitor = _monitor(trt, lambda now: None)
monitor.phase_start("a", None, 2)
assert monitor.step_complete("a", 0) is True
print(json.dumps({"version": trt.__version__, "lacking": lacking,
                  "flag": 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)}))
"""


def test_every_used_name_exists(bindings: Path) -> None:
    names = {owner: sorted(found) for owner, found in used_names().items() if owner not in RTX_ONLY}
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(bindings), root],
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


def test_every_used_name_exists_in_tensorrt_rtx() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    for owner, names in used_names().items():
        assert [name for name in names if not hasattr(getattr(rtx, owner), name)] == []
    assert hasattr(rtx.ICudaEngine, "create_runtime_config")
    assert "WHOLE_GRAPH_CAPTURE" in rtx.CudaGraphStrategy.__members__
    assert "SM86" in rtx_targets(rtx)


def test_the_stand_ins_have_only_what_the_real_modules_have(late_device: LateDevice) -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    module = Module(late_device, rtx=True)
    known = {"module", "logger", "device", "rtx", "runtime", "session", "strategy", "cache"}
    for name in ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache"):
        assert public(getattr(stand_in, name)) - known <= public(getattr(rtx, name)), name
    for name in public(type(module)) - {"install"}:
        members = getattr(getattr(module, name), "__members__", {})
        assert members.keys() <= set(dir(getattr(rtx, name))), name


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}
