"""Writing a model repository for Triton: configuration, model.py and the bundle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.storage import atomic_folder
from sam2_edge.errors import BundleError

CONFIG_FILE = "config.pbtxt"
DEFAULT_NAME = "sam2_edge"
MAX_SEQUENCES = 64
MAX_OBJECTS = 64
MAX_PIXELS = 7680 * 4320
MAX_IDLE_S = 60

_VERSION = "1"
_BUNDLE_FOLDER = "bundle"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")

# Triton lets sequences beyond this wait without an answer: it has to be far above max_sequences,
# so that the model is asked and refuses them.
_CANDIDATES = 16_384

_MODEL = f'''"""Loaded by Triton's Python backend; written by sam2-edge triton."""

from pathlib import Path

from sam2_edge.triton.model import SequenceModel


class TritonPythonModel(SequenceModel):
    bundle = Path(__file__).parent / "{_BUNDLE_FOLDER}"
'''

_CONFIG = """# Written by sam2-edge triton. Each correlation id, a number or a text, is a stream.
name: "{name}"
backend: "python"
max_batch_size: 0

input [
  {{ name: "FRAME" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] optional: true }},
  {{ name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "PROMPTS" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "REMOVE" data_type: TYPE_INT32 dims: [ -1 ] optional: true }}
]
output [
  {{ name: "STATUS" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "MASKS" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }},
  {{ name: "LOGITS" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] }},
  {{ name: "OBJECTS" data_type: TYPE_STRING dims: [ -1 ] }}
]

sequence_batching {{
  # Requests without START are refused after this pause; the memory is freed after twice as long.
  max_sequence_idle_microseconds: {idle_us}
  # Far more than max_sequences: beyond it, Triton lets clients wait instead of refusing them.
  oldest {{ max_candidate_sequences: {candidates} }}
  # The model asks for the correlation id itself: a control input would have to be either a number
  # or a text.
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "READY" control [ {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] }} ] }}
  ]
}}
model_transaction_policy {{ decoupled: false }}

# KIND_GPU: instances on every GPU. Each is a process that opens the bundle once.
instance_group [ {{ kind: {kind} count: {instances} }} ]

# Limits are per instance. Without "threads", the cores are divided among the instances.
parameters {{ key: "backend" value: {{ string_value: "{backend}" }} }}
parameters {{ key: "threads" value: {{ string_value: "" }} }}
parameters {{ key: "max_sequences" value: {{ string_value: "{max_sequences}" }} }}
parameters {{ key: "max_objects" value: {{ string_value: "{max_objects}" }} }}
parameters {{ key: "max_pixels" value: {{ string_value: "{max_pixels}" }} }}
"""


def write_triton_repository(
    bundle: Bundle,
    repository: Path,
    *,
    name: str = DEFAULT_NAME,
    device: Literal["cpu", "gpu"] | None = None,
    instances: int = 1,
    overwrite: bool = False,
) -> Path:
    """Add a model to a model repository, with a copy of the bundle.

    Args:
        bundle: Bundle to serve.
        repository: Folder of models; made if missing.
        name: Name of the model and of its folder.
        device: Where instances run; by default what the bundle's graphs are for.
        instances: Instances on the CPU, or on each GPU.
        overwrite: Whether to replace a model that was written before.

    Returns:
        The folder of the model.

    Raises:
        BundleError: If the name is not one, the model exists, or it cannot be written.
    """
    target = check_new_model(repository, name, overwrite=overwrite)
    on_gpu = (device or bundle.manifest.target) == "gpu"
    with atomic_folder(target, error=BundleError) as partial:
        version = partial / _VERSION
        shutil.copytree(bundle.path, version / _BUNDLE_FOLDER)
        (version / "model.py").write_text(_MODEL, encoding="utf-8")
        (partial / CONFIG_FILE).write_text(
            _config(name, on_gpu=on_gpu, instances=instances), encoding="utf-8"
        )
    return target


def check_new_model(repository: Path, name: str, *, overwrite: bool) -> Path:
    """Return the folder of a model that may be written; the errors are BundleError."""
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} cannot be the name of a model; give letters, digits, dots, dashes and "
            "underscores, such as tracker"
        )
    target = repository / name
    if not target.exists():
        return target
    if not overwrite:
        raise BundleError(f"{target} exists; give another name or pass --overwrite")
    if not (target / CONFIG_FILE).is_file():
        raise BundleError(
            f"{target} exists and is not a model of Triton, so it is not overwritten; give another "
            "name"
        )
    return target


def _config(name: str, *, on_gpu: bool, instances: int) -> str:
    return _CONFIG.format(
        name=name,
        idle_us=MAX_IDLE_S * 1_000_000,
        candidates=_CANDIDATES,
        kind="KIND_GPU" if on_gpu else "KIND_CPU",
        instances=instances,
        backend="auto" if on_gpu else "cpu",
        max_sequences=MAX_SEQUENCES,
        max_objects=MAX_OBJECTS,
        max_pixels=MAX_PIXELS,
    )
