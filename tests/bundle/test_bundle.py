"""A complete, unaltered bundle loads; any other is refused with the file's name and a remedy."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_edge import Bundle, BundleError, load_bundle
from sam2_edge.bundle.contract import Graph, TensorSpec
from sam2_edge.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    FileEntry,
    GraphEntry,
    Manifest,
    MemoryEntry,
    ModelEntry,
    NormalizationEntry,
)
from sam2_edge.models.sam2.variants import IMAGE_SIZES

NAMES_A_FILE = re.compile(r"manifest\.json|\.onnx|/etc/hostname")
NAMES_A_REMEDY = re.compile("again|copy|do not use this bundle")


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.path, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    change(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_a_whole_bundle_loads(copy: Path) -> None:
    bundle = load_bundle(copy)
    assert bundle.manifest.image_size == 128
    assert all(bundle.graph_path(g).is_file() for g in bundle.manifest.graphs)


def make_engine(manifest: dict[str, Any], profile: dict[str, list[int]]) -> None:
    """Describe the mask prompt graph as an engine."""
    engine = {
        "variant": "tensorrt-rtx",
        "version": "1",
        "compute_capabilities": [[8, 6]],
        "profile": profile,
    }
    manifest["graphs"]["mask_prompt"].update(backend="tensorrt-rtx", engine=engine)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer format": (lambda m: m.update(format_version=4), "format version 4, .* reads 3"),
    "no format": (lambda m: m.pop("format_version"), "format version None"),
    "unknown field": (lambda m: m.update(extra=1), "extra"),
    "missing field": (lambda m: m.pop("image_size"), "image_size"),
    "missing graph": (lambda m: m["graphs"].pop("mask_decoder"), "lacks the graphs mask_decoder"),
    "other shape": (
        lambda m: m["graphs"]["image_encoder"]["outputs"][0]["axes"].append(1),
        "outputs of image_encoder",
    ),
    "other size": (lambda m: m.update(image_size=256), "inputs of image_encoder"),
    "other dtype": (
        lambda m: m["graphs"]["mask_prompt"]["inputs"][0].update(dtype="float16"),
        "inputs of mask_prompt",
    ),
    "unknown graph": (lambda m: m["graphs"].update(other={}), "graphs.other"),
    **{
        f"{field} {value}": (
            lambda m, field=field, value=value: m["memory"].update({field: value}),
            f"memory.{field} is {value}: .*(should be|multiple of)",
        )
        for field, values in {
            "slots": (-1, 1, 10**9),
            "pointers": (0, 10**9),
            "channels": (0, 1025),
            "hidden": (0, 12, 1032),
            "tokens": (0, -5),
        }.items()
        for value in values
    },
    **{
        f"image size {value}": (
            lambda m, value=value: m.update(image_size=value),
            f"image_size is {value}: .*multiple of 16 from 64 to 2048",
        )
        for value in (0, -32, 100, 2080, 10**5, 10**18)
    },
    "all tokens": (lambda m: m["memory"].update(tokens=64), "tokens is 64, of 64 in a memory"),
    "not a number": (
        lambda m: m["normalization"].update(mean=[0.5, float("nan"), 0.5]),
        "normalization.mean.1 is nan: .*finite",
    ),
    "another backend": (
        lambda m: m["graphs"]["mask_prompt"].update(backend="tensorrt"),
        "graphs.mask_prompt .*backend 'tensorrt', but its file is for 'onnxruntime'",
    ),
    "profile that decreases": (
        lambda m: make_engine(m, {"B": [4, 2, 1]}),
        r"profile .*\(4, 2, 1\); they must not decrease",
    ),
    "profile beyond bounds": (lambda m: make_engine(m, {"B": [0, 1, 10**9]}), "profile.B"),
    "profile without an axis": (
        lambda m: make_engine(m, {"N": [1, 1, 4]}),
        "the profile of mask_prompt has the axes N, not B",
    ),
    "data file outside": (
        lambda m: m["graphs"]["mask_prompt"].update(
            data=[{"file": "../weights.onnx.data", "sha256": "0" * 64}]
        ),
        "leaves the bundle",
    ),
    "data file not there": (
        lambda m: m["graphs"]["mask_prompt"].update(
            data=[{"file": "mask_prompt.onnx.data", "sha256": "0" * 64}]
        ),
        "mask_prompt.onnx.data is missing",
    ),
    "file name with a zero byte": (
        lambda m: m["graphs"]["mask_prompt"].update(file="a\0.onnx"),
        "file",
    ),
    "endless file name": (
        lambda m: m["graphs"]["mask_prompt"].update(file="a" * 300 + ".onnx"),
        "aaa",
    ),
    "file outside": (
        lambda m: m["graphs"]["mask_prompt"].update(file="../mask_prompt.onnx"),
        "leaves the bundle",
    ),
    "absolute file": (
        lambda m: m["graphs"]["mask_prompt"].update(file="/etc/hostname"),
        "leaves the bundle",
    ),
    "file not there": (
        lambda m: m["graphs"]["mask_prompt"].update(file="gone.onnx"),
        "gone.onnx is missing",
    ),
    "other hash": (
        lambda m: m["graphs"]["mask_prompt"].update(sha256="0" * 64),
        "has sha256",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_an_altered_manifest_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=message) as refused:
        load_bundle(copy)
    assert NAMES_A_FILE.search(str(refused.value))
    assert NAMES_A_REMEDY.search(str(refused.value))


def test_an_altered_graph_is_refused(copy: Path) -> None:
    path = copy / "memory_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"memory_encoder\.onnx has sha256"):
        load_bundle(copy)


def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "mask_prompt.onnx").rename(tmp_path / "elsewhere.onnx")
    (copy / "mask_prompt.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="leaves the bundle"):
        load_bundle(copy)


def test_a_link_in_a_circle_is_refused(copy: Path) -> None:
    (copy / "mask_prompt.onnx").unlink()
    (copy / "mask_prompt.onnx").symlink_to("mask_prompt.onnx")
    with pytest.raises(BundleError, match=r"mask_prompt\.onnx"):
        load_bundle(copy)


BROKEN = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:4]))
def test_a_malformed_manifest_is_refused(copy: Path, content: bytes) -> None:
    (copy / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(copy)


def test_an_endless_manifest_is_refused(copy: Path) -> None:
    with (copy / MANIFEST_FILE).open("ab") as file:
        file.truncate(2**30)
    with pytest.raises(BundleError, match=r"manifest\.json has 1073741824 bytes, at most"):
        load_bundle(copy)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="sam2-edge export"):
        load_bundle(tmp_path / "nothing")


def test_a_manifest_survives_a_json_round_trip(small_bundle: Bundle) -> None:
    text = small_bundle.manifest.model_dump_json()
    assert Manifest.model_validate_json(text) == small_bundle.manifest


def test_names_are_escaped() -> None:
    entry = ModelEntry(name="caf\udce9\x1b[2J", family="sam2", source="a\x07", sha256=None)
    assert (entry.name, entry.source) == ("caf\\xe9\\x1b[2J", "a\\x07")
    assert ModelEntry.model_validate_json(entry.model_dump_json()) == entry


SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
# PyTorch in the process of the tests takes subnormal numbers as zero (conftest.py).
FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
TENSORS = st.lists(
    st.builds(
        TensorSpec,
        name=st.text(max_size=4),
        dtype=st.sampled_from(["float32", "int32", "uint8"]),
        axes=st.lists(st.integers(1, 2048) | st.text(max_size=2), max_size=4).map(tuple),
    ),
    max_size=2,
)
MANIFESTS = st.builds(
    Manifest,
    format_version=st.just(FORMAT_VERSION),
    sam2_edge_version=st.text(max_size=8),
    model=st.builds(
        ModelEntry,
        name=st.text(max_size=8),
        family=st.sampled_from(["sam2", "sam2.1"]),
        source=st.text(max_size=8),
        sha256=st.none() | SHA256,
    ),
    image_size=st.sampled_from(IMAGE_SIZES),
    normalization=st.builds(
        NormalizationEntry,
        mean=st.tuples(FINITE, FINITE, FINITE),
        std=st.tuples(FINITE, FINITE, FINITE),
    ),
    memory=st.builds(
        MemoryEntry,
        slots=st.integers(2, 8),
        pointers=st.integers(2, 16),
        channels=st.integers(1, 256),
        hidden=st.integers(1, 128).map(lambda n: 8 * n),
        rounding=st.sampled_from(["none", "bfloat16"]),
    ),
    graphs=st.dictionaries(
        st.sampled_from(Graph),
        st.builds(
            GraphEntry,
            file=st.text(max_size=8),
            sha256=SHA256,
            backend=st.just("onnxruntime"),
            precision=st.just("fp32"),
            opset=st.integers(1, 30),
            inputs=TENSORS,
            outputs=TENSORS,
            data=st.lists(st.builds(FileEntry, file=st.text(max_size=8), sha256=SHA256)),
            parity=st.dictionaries(st.text(max_size=4), FINITE, max_size=2),
        ),
        max_size=2,
    ),
)


@settings(max_examples=50, deadline=None)
@given(manifest=MANIFESTS)
def test_any_manifest_survives_a_json_round_trip(manifest: Manifest) -> None:
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@settings(max_examples=60, deadline=None)
@given(data=st.data(), value=st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just([])))
def test_a_manifest_with_any_value_replaced_loads_or_is_refused(
    small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for path in small_bundle.path.iterdir():
        (folder / path.name).hardlink_to(path)
    manifest = json.loads(small_bundle.manifest.model_dump_json())
    place: Any = manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    with contextlib.suppress(BundleError):  # and nothing else
        load_bundle(folder)


def test_a_name_that_is_too_long_is_a_clear_error() -> None:
    with pytest.raises(BundleError, match="xxx cannot be read: .*name too long"):
        load_bundle("x" * 300)
