"""Engines are checked by running them against reference outputs of ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from sam2_edge import BackendError, Bundle, BundleError, load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.storage import file_entry, save_manifest
from sam2_edge.export.tensorrt import reference
from sam2_edge.export.tensorrt.options import EngineOptions
from sam2_edge.export.tensorrt.profiles import engine_profiles
from sam2_edge.export.tensorrt.reference import (
    add_references,
    take_references,
    write_references,
)
from sam2_edge.runtime.backends.check_inputs import CheckCase, check_cases, check_inputs, hashes
from sam2_edge.runtime.backends.engine_check import (
    REFERENCE_FILE,
    Outputs,
    RunGraph,
    check_engine,
    load_references,
)
from tests.helpers.engines import as_engines

Spoil = Callable[[Graph, dict[str, NDArray[Any]]], None]


@pytest.fixture(scope="module")
def engines(full_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that claims to hold engines, with their reference outputs."""
    folder = tmp_path_factory.mktemp("engines") / "engines"
    shutil.copytree(full_bundle.path, folder)
    bundle = as_engines(Bundle(folder, full_bundle.manifest), objects=3)
    profiles = {g: e.engine.profile for g, e in bundle.manifest.graphs.items() if e.engine}
    profiles[Graph.MASK_BITS] |= {"H": (1, 40, 60), "K": (1, 5, 8)}
    write_references(full_bundle, profiles, folder / REFERENCE_FILE)
    update = {"reference": file_entry(folder, REFERENCE_FILE)}
    return Bundle(folder, bundle.manifest.model_copy(update=update))


def on_the_cpu(bundle: Bundle, spoil: Spoil = lambda _graph, _outputs: None) -> RunGraph:
    """Run the bundle's graphs in ONNX Runtime, as engines that `spoil` their outputs."""
    sessions: dict[Graph, ort.InferenceSession] = {}

    def run(graph: Graph, inputs: dict[str, NDArray[Any]]) -> Outputs:
        if graph not in sessions:
            providers = ["CPUExecutionProvider"]
            sessions[graph] = ort.InferenceSession(bundle.graph_path(graph), providers=providers)
        names = [tensor.name for tensor in bundle.manifest.graphs[graph].outputs]
        outputs = dict(zip(names, sessions[graph].run(None, inputs), strict=True))
        spoil(graph, outputs)
        return outputs

    return run


@pytest.mark.parametrize("graph", Graph)
def test_right_engines_pass(graph: Graph, engines: Bundle) -> None:
    share = check_engine(engines, graph, load_references(engines), on_the_cpu(engines))
    assert share < 0.1


def only_in_batches(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
    """Compute wrongly for sizes other than the usual ones."""
    for array in outputs.values():
        if len(array) > 1 and array.dtype == np.float32:
            np.multiply(array, 1.1, out=array)


def last_row(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
    """Compute the last row of a batch wrongly."""
    for array in outputs.values():
        if len(array) > 1 and array.dtype == np.float32:
            array[-1] = array[0] * 0.9


def second_row(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
    """Compute one row, which is not sampled, wrongly."""
    for array in outputs.values():
        if len(array) > 2 and array.dtype == np.float32:
            array[1] += np.abs(array).max()


def not_finite(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
    """Give one value that is no number."""
    for array in outputs.values():
        if array.dtype == np.float32:
            array.flat[-1] = np.nan


def outlier(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
    """Give one value, which is not sampled, that is far too large."""
    for array in outputs.values():
        if array.size > 1000:
            array.flat[-1] = 1e4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (outlier, r"at its smallest sizes .* the largest value of (memory|masks) differs"),
        (only_in_batches, "computes wrongly on this GPU: at its largest sizes"),
        (last_row, "at its largest sizes"),
        (second_row, r"at its equal rows sizes \(.*B=3.* of equal objects differs"),
        (not_finite, "at its smallest sizes .* differs by nan"),
    ],
)
@pytest.mark.parametrize("graph", [Graph.MEMORY_ENCODER, Graph.MASK_DECODER])
def test_an_engine_that_computes_wrongly_is_refused(
    spoil: Spoil, message: str, graph: Graph, engines: Bundle
) -> None:
    with pytest.raises(BackendError, match=message):
        check_engine(engines, graph, load_references(engines), on_the_cpu(engines, spoil))


def test_wrong_bits_of_masks_are_refused(engines: Bundle) -> None:
    def spoil(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
        outputs["bits"] ^= 1

    with pytest.raises(BackendError, match="mask_bits.* output bits differs by 0.125"):
        check_engine(engines, Graph.MASK_BITS, load_references(engines), on_the_cpu(engines, spoil))


@pytest.mark.parametrize("rows", [slice(None), slice(1, None)], ids=["all", "all but the first"])
def test_another_choice_of_mask_is_no_error_where_the_masks_agree(
    rows: slice, engines: Bundle
) -> None:
    def choose_another(_graph: Graph, outputs: dict[str, NDArray[Any]]) -> None:
        outputs["best_index"][rows] = (outputs["best_index"][rows] + 1) % 4
        outputs["best_mask"][rows] *= -1

    run = on_the_cpu(engines, choose_another)
    assert check_engine(engines, Graph.MASK_DECODER, load_references(engines), run) < 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "reference.json cannot be read"),
        (b'{"graphs": {}}', "does not fit mask_prompt"),
    ],
)
def test_damaged_reference_outputs_are_one_clear_error(
    content: bytes, message: str, engines: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(engines.path, tmp_path / "damaged")
    damaged = Bundle(tmp_path / "damaged", engines.manifest)
    (damaged.path / REFERENCE_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        check_engine(damaged, Graph.MASK_PROMPT, load_references(damaged), on_the_cpu(engines))


def test_reference_outputs_that_do_not_belong_to_the_profile_are_an_error(engines: Bundle) -> None:
    references = json.loads((engines.path / REFERENCE_FILE).read_text())
    references["graphs"]["mask_prompt"]["largest"]["rows"] = [0, 9]
    (engines.path / REFERENCE_FILE).with_suffix(".other").write_text(json.dumps(references))
    entry = engines.manifest.reference
    assert entry is not None
    other = entry.model_copy(update={"file": "reference.other"})
    bundle = Bundle(engines.path, engines.manifest.model_copy(update={"reference": other}))
    with pytest.raises(BundleError, match="does not fit mask_prompt"):
        check_engine(bundle, Graph.MASK_PROMPT, load_references(bundle), on_the_cpu(engines))


def test_reference_outputs_of_other_sizes_do_not_fit(engines: Bundle) -> None:
    references = load_references(engines)
    profile = {"B": (1, 1, 3)}
    assert references.fit(Graph.MASK_PROMPT, profile)
    assert not references.fit(Graph.MASK_PROMPT, {"B": (1, 1, 4)})
    assert not references.fit(Graph.MASK_PROMPT, {"B": (1, 2, 3)})


def test_reference_outputs_come_from_the_graphs_or_from_onnxruntime(
    full_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    graphs = Bundle(
        Path(shutil.copytree(full_bundle.path, tmp_path / "graphs")), full_bundle.manifest
    )
    options = EngineOptions("tensorrt", max_objects=1)
    graphs = add_references(graphs, options)
    profiles = engine_profiles(graphs.manifest.geometry, options)
    others = profiles | {Graph.MASK_PROMPT: {"B": (1, 1, 2)}}
    monkeypatch.setattr(reference, "find_spec", lambda _name: None)  # as if it were missing

    assert take_references(graphs, profiles, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == (graphs.path / REFERENCE_FILE).read_bytes()
    assert not take_references(graphs, others, tmp_path / "none")
    assert "the engines will not be checked, because ONNX Runtime is missing" in caplog.text
    monkeypatch.undo()
    assert take_references(graphs, others, tmp_path / "computed")
    assert (tmp_path / "computed").is_file()
    assert not (tmp_path / "none").exists()


def test_a_missing_file_of_reference_outputs_is_an_error(engines: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(engines.path, folder)
    entry = engines.manifest.reference
    manifest = load_bundle(folder).manifest.model_copy(update={"reference": entry})
    save_manifest(folder, manifest)
    load_bundle(folder)
    (folder / REFERENCE_FILE).unlink()
    with pytest.raises(BundleError, match=r"reference\.json is missing"):
        load_bundle(folder)


def test_inputs_are_the_same_on_every_machine() -> None:
    # The published outputs of SplitMix64 from the state that "seed" hashes to, by hand.
    state = int.from_bytes(bytes.fromhex("19b25856e1c150ca"), "little")
    expected = []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        expected.append(z ^ (z >> 31))
    assert hashes("seed", (3,)).tolist() == expected


def test_every_axis_is_checked_at_its_limits() -> None:
    profile = {"R": (1, 7, 1024), "M": (1, 7, 10), "B": (1, 1, 2), "P": (1, 16, 19)}
    assert [(case.name, dict(case.sizes)) for case in check_cases(profile)] == [
        ("smallest", {"R": 1, "M": 1, "B": 1, "P": 1}),
        ("usual", {"R": 7, "M": 7, "B": 1, "P": 16}),
        ("largest", {"R": 21, "M": 10, "B": 2, "P": 19}),
        ("equal rows", {"R": 21, "M": 10, "B": 2, "P": 19}),
    ]
    assert [case.name for case in check_cases({})] == ["smallest"]


def test_inputs_have_the_ranges_that_the_runtime_uses(engines: Bundle) -> None:
    geometry = engines.manifest.geometry
    sizes = {"R": 9, "M": 4, "B": 2, "P": 3, "N": 5, "H": 33, "K": 3}
    for graph, spec in graph_specs(geometry).items():
        inputs = check_inputs(spec, CheckCase("largest", sizes), geometry)
        equal = check_inputs(spec, CheckCase("equal rows", sizes), geometry)
        for tensor in spec.inputs:
            array = inputs[tensor.name]
            assert (array.shape, array.dtype) == (tensor.shape(**sizes), tensor.dtype), graph
            assert array.size < 9 or np.ptp(array) > 0
            assert np.isfinite(array).all()
            if "B" in tensor.axes:
                axis = tensor.axes.index("B")
                rows = np.moveaxis(equal[tensor.name], axis, 0)
                np.testing.assert_array_equal(rows[0], rows[1])
                np.testing.assert_array_equal(rows[0], np.moveaxis(array, axis, 0)[0])
    spec = graph_specs(geometry)[Graph.MEMORY_ATTENTION]
    inputs = check_inputs(spec, CheckCase("largest", sizes), geometry)
    assert inputs["memory_rows"].max() < sizes["R"]
    assert abs(inputs["memory"].mean()) < 0.02
    assert inputs["memory"].std() == pytest.approx(1, rel=0.02)
