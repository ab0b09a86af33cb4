"""Checks engines by running them: their outputs against those of ONNX Runtime on a CPU.

TensorRT may build an engine that computes wrongly, without an error (NVIDIA/TensorRT #4419, #4813).
So samples of reference outputs are stored in the bundle when its engines are built. Every engine
runs at its smallest, usual and largest sizes, and with a batch of equal rows: right after it is
built if the GPU is there, otherwise when the bundle is first opened, which is remembered beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.agreement import (
    BFLOAT16_STEP,
    CHOSEN,
    relative_difference,
    rows_of_equal_choice,
)
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, graph_specs
from sam2_edge.bundle.manifest import Profile
from sam2_edge.bundle.storage import atomic_file
from sam2_edge.errors import BackendError, BundleError
from sam2_edge.runtime.backends.base import Backend
from sam2_edge.runtime.backends.check_inputs import CheckCase, check_cases, check_inputs, hashes

REFERENCE_FILE = "reference.json"
"""File of the bundle with samples of reference outputs."""

MAX_REFERENCE_BYTES = 16 * 2**20

SAMPLES = 256
"""Elements of an output of one object that are stored."""

_log = logging.getLogger(__name__)


class OutputReference(BaseModel):
    """What is stored of one output.

    Attributes:
        magnitude: Its largest magnitude; of packed bits, the share of those set.
        samples: By row in `CaseReference.rows`, its values at `sample_positions`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    magnitude: float = Field(ge=0)
    samples: tuple[tuple[float, ...], ...]


class CaseReference(BaseModel):
    """What is stored of one case: its sizes, which rows of the batch, and the outputs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sizes: dict[str, int]
    rows: tuple[int, ...]
    outputs: dict[str, OutputReference]


class References(BaseModel):
    """Reference outputs of a bundle, by graph and name of the case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    graphs: dict[Graph, dict[str, CaseReference]]

    def fit(self, graph: Graph, profile: Profile) -> bool:
        """Whether these are the cases of an engine with this profile."""
        cases = {case.name: case.sizes for case in check_cases(profile) if not case.equal_rows}
        return cases == {name: case.sizes for name, case in self.graphs.get(graph, {}).items()}


Outputs = Mapping[str, NDArray[Any]]

RunGraph = Callable[[Graph, dict[str, NDArray[Any]]], Outputs]
"""Runs one graph on host arrays."""


def sample_positions(graph: Graph, output: str, size: int) -> NDArray[np.int64]:
    """Return the sampled elements of one row, of `size` elements, of an output."""
    seed = f"positions {graph.value} {output}"
    return (hashes(seed, (min(SAMPLES, size),)) % np.uint64(size)).astype(np.int64)


def magnitude_of(output: NDArray[Any]) -> float:
    """Return the largest magnitude; of packed bits, the share of those set."""
    if output.dtype == np.uint8:
        return float(np.unpackbits(output).mean())
    return float(np.abs(output.astype(np.float64)).max())


def check_once(bundle: Bundle, backend: Backend, machine: str) -> None:
    """Check a backend's engines unless they passed before on the same kind of machine.

    Args:
        bundle: The bundle of engines.
        backend: Opened for it.
        machine: Name of the GPU; the engines' hashes stand for the version of TensorRT.

    Raises:
        BackendError: An engine computes wrongly.
        BundleError: The reference outputs are damaged.
    """
    if bundle.manifest.reference is None:
        _log.warning("%s has no reference outputs; its engines are not checked", bundle.path)
        return
    passed = passed_file(bundle, machine)
    if passed.is_file():
        return
    _log.info("checking the engines of %s on this GPU; this is done once", bundle.path)
    remember(passed, check_engines(bundle, backend))


def check_engines(
    bundle: Bundle, backend: Backend, on_graph: Callable[[Graph], None] = lambda _graph: None
) -> dict[str, float]:
    """Compare all engines of a bundle with its reference outputs.

    Args:
        bundle: The bundle of engines.
        backend: Opened for it.
        on_graph: Called with each graph before its check.

    Returns:
        By graph, the largest difference found, as a share of the tolerance.

    Raises:
        BackendError: An engine computes wrongly.
        BundleError: The reference outputs are missing or damaged.
    """
    references = load_references(bundle)

    def run(graph: Graph, inputs: dict[str, NDArray[Any]]) -> Outputs:
        return backend.download_block(backend.run(graph, backend.upload_block(inputs)))

    worst = {}
    for graph in Graph:
        on_graph(graph)
        worst[graph.value] = check_engine(bundle, graph, references, run)
    return worst


def check_engine(bundle: Bundle, graph: Graph, references: References, run: RunGraph) -> float:
    """Compare one engine with its reference outputs.

    Returns:
        The largest difference, as a share of the tolerance.

    Raises:
        BackendError: The engine computes wrongly.
        BundleError: A reference output is missing.
    """
    entry = bundle.manifest.graphs[graph]
    if entry.engine is None:
        return 0.0
    geometry = bundle.manifest.geometry
    spec = graph_specs(geometry)[graph]
    step = BFLOAT16_STEP if bundle.manifest.memory.rounding == "bfloat16" else 0.0
    tolerance = PARITY_TOLERANCE[entry.precision]
    worst = 0.0
    if not references.fit(graph, entry.engine.profile):
        raise BundleError(f"{_misfit(bundle, graph)}; build the engines again")
    for case in check_cases(entry.engine.profile):
        outputs = run(graph, check_inputs(spec, case, geometry))
        try:
            found = list(_differences(graph, case, outputs, references, step))
        except (KeyError, ValueError, IndexError) as error:
            raise BundleError(
                f"{_misfit(bundle, graph)} ({error!r}); build the engines again"
            ) from error
        for what, difference in found:
            if not difference <= tolerance:
                sizes = ", ".join(f"{axis}={size}" for axis, size in case.sizes.items())
                raise BackendError(
                    f"{bundle.graph_path(graph)} computes wrongly on this GPU: at its {case.name} "
                    f"sizes ({sizes or 'fixed'}) {what} differs by {difference:.3g} relative to "
                    f"max(1, largest value), {tolerance:.3g} is allowed. {entry.backend} "
                    f"{entry.engine.version} may be at fault: update it and build the engines "
                    "again, try another --precision, or run the ONNX graphs"
                )
            worst = max(worst, difference / tolerance)
    return worst


def _misfit(bundle: Bundle, graph: Graph) -> str:
    return f"{bundle.path / REFERENCE_FILE} does not fit {graph.value}"


def load_references(bundle: Bundle) -> References:
    """Read the reference outputs of a bundle.

    Raises:
        BundleError: They are missing or damaged.
    """
    entry = bundle.manifest.reference
    if entry is None:
        raise BundleError(f"{bundle.path} has no reference outputs; build the engines again")
    path = bundle.path / entry.file
    try:
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise ValueError(f"more than {MAX_REFERENCE_BYTES} bytes")
        return References.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); build the engines again") from error


def passed_file(bundle: Bundle, machine: str) -> Path:
    """Return the file that says that these engines passed on such a machine."""
    files = [(graph.value, entry.sha256) for graph, entry in bundle.manifest.graphs.items()]
    identity = [files, bundle.manifest.reference and bundle.manifest.reference.sha256, machine]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = bundle.path.resolve()
    return folder.with_name(f"{folder.name}.checked") / f"{key}.json"


def remember(file: Path, differences: Mapping[str, float]) -> None:
    """Note that engines passed; a failure is logged, since it only means another check."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as partial:
            partial.write_text(json.dumps(differences) + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("the check of the engines will be repeated at the next start: %s", error)


def _differences(
    graph: Graph, case: CheckCase, outputs: Outputs, references: References, step: float
) -> Iterator[tuple[str, float]]:
    """Yield the differences of one case, each with a description."""
    name = "largest" if case.equal_rows else case.name
    reference = references.graphs[graph][name]
    rows = list(reference.rows)
    want, got = {}, {}
    for output, stored in reference.outputs.items():
        array = outputs[output]
        flat = array.reshape(len(array), -1)
        want[output] = np.asarray(stored.samples).astype(array.dtype)
        got[output] = flat[rows][:, sample_positions(graph, output, flat.shape[1])]
        if case.equal_rows:
            want[output] = np.broadcast_to(want[output][:1], got[output].shape)
    alike = rows_of_equal_choice(
        {k: v[:, 0] for k, v in got.items()}, {k: v[:, 0] for k, v in want.items()}
    )
    for output, stored in reference.outputs.items():
        compared = alike if output in CHOSEN else slice(None)
        allowed = step if output == "memory" else 0.0
        difference = relative_difference(
            got[output][compared],
            want[output][compared],
            magnitude=stored.magnitude,
            step=allowed,
        )
        yield f"output {output}", difference
        if not case.equal_rows and output not in CHOSEN:
            largest = magnitude_of(outputs[output][rows])
            excess = abs(largest - stored.magnitude) - allowed * stored.magnitude
            yield f"the largest value of {output}", excess / max(1.0, stored.magnitude)
    if case.equal_rows:
        yield from _row_differences(outputs, reference, step)


def _row_differences(
    outputs: Outputs, reference: CaseReference, step: float
) -> Iterator[tuple[str, float]]:
    """Yield the differences between the rows of a batch of equal objects."""
    first = {name: np.broadcast_to(array[:1], array.shape) for name, array in outputs.items()}
    alike = rows_of_equal_choice(outputs, first)
    for name, stored in reference.outputs.items():
        rows = alike if name in CHOSEN else slice(None)
        difference = relative_difference(
            outputs[name][rows],
            first[name][rows],
            magnitude=stored.magnitude,
            step=step if name == "memory" else 0.0,
        )
        yield f"{name} of equal objects", difference
