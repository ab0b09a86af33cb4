"""External data is found wherever a graph may hold a tensor; a bundle names and hashes it all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import set_model_props

from sam2_edge import BundleError, load_bundle
from sam2_edge.bundle import external_data
from sam2_edge.bundle.external_data import external_locations
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.bundle.storage import sha256_of


def test_every_message_of_onnx_that_may_hold_a_tensor_is_read() -> None:
    def holders(message: Any, above: tuple[str, ...]) -> bool:
        """Whether a message leads to a tensor; fills `found`."""
        if message.name == "TensorProto":
            return True
        if message.name in above:
            return message.name in found
        leading = {
            f.number: f.message_type.name
            for _ in range(2)  # once more, now that a circle of messages is known
            for f in message.fields
            if f.message_type and holders(f.message_type, (*above, message.name))
        }
        if leading:
            found[message.name] = {**found.get(message.name, {}), **leading}
        return bool(leading)

    found: dict[str, dict[int, str]] = {}
    holders(ModelProto.DESCRIPTOR, ())
    entries = {"TensorProto": {13: "StringStringEntryProto"}, "StringStringEntryProto": {}}
    assert {**found, **entries} == external_data._MESSAGES
    assert TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == 13


def in_graph(graph: GraphProto) -> ModelProto:
    return ModelProto(graph=graph)


def in_node(attribute: AttributeProto) -> ModelProto:
    return in_graph(GraphProto(node=[NodeProto(attribute=[attribute])]))


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda t: in_graph(GraphProto(initializer=[t])),
    "sparse values": lambda t: in_graph(
        GraphProto(sparse_initializer=[onnx.SparseTensorProto(values=t)])
    ),
    "sparse indices": lambda t: in_graph(
        GraphProto(sparse_initializer=[onnx.SparseTensorProto(indices=t)])
    ),
    "attribute": lambda t: in_node(AttributeProto(t=t)),
    "attribute's list": lambda t: in_node(AttributeProto(tensors=[t])),
    "attribute's sparse tensor": lambda t: in_node(
        AttributeProto(sparse_tensor=onnx.SparseTensorProto(values=t))
    ),
    "attribute's sparse list": lambda t: in_node(
        AttributeProto(sparse_tensors=[onnx.SparseTensorProto(values=t)])
    ),
    "subgraph": lambda t: in_node(AttributeProto(g=GraphProto(initializer=[t]))),
    "subgraph's subgraph": lambda t: in_node(
        AttributeProto(graphs=[in_node(AttributeProto(g=GraphProto(initializer=[t]))).graph])
    ),
    "function": lambda t: ModelProto(
        functions=[onnx.FunctionProto(node=[NodeProto(attribute=[AttributeProto(t=t)])])]
    ),
    "function's default": lambda t: ModelProto(
        functions=[onnx.FunctionProto(attribute_proto=[AttributeProto(t=t)])]
    ),
    "training": lambda t: ModelProto(
        training_info=[onnx.TrainingInfoProto(initialization=GraphProto(initializer=[t]))]
    ),
}


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_location_is_found_in_every_place(
    place: Callable[[TensorProto], ModelProto], tmp_path: Path
) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(place(external("../é")).SerializeToString())
    assert external_locations(path) == {"../é".encode()}


def test_only_locations_are_returned(tmp_path: Path) -> None:
    model = in_graph(GraphProto(initializer=[TensorProto(raw_data=b"location")], doc_string="x"))
    set_model_props(model, {"location": "elsewhere"})
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    assert external_locations(path) == set()


def test_a_graph_of_endless_fields_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_data, "MAX_FIELDS", 100)
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"\x08\x01" * 101)  # the version of the format, over and over
    with pytest.raises(ValueError, match="more than 100 fields"):
        external_locations(path)


def as_onnx_reads_it(message: Any) -> set[bytes]:
    """Every location of external data in a message of onnx."""
    if isinstance(message, TensorProto):
        values = [e.value for e in message.external_data if e.key == "location"]
        return {v if isinstance(v, bytes) else v.encode() for v in values}  # bytes: not UTF-8
    inner = (
        each
        for field, value in message.ListFields()
        if field.message_type
        for each in (value if field.is_repeated else [value])
    )
    return set().union(*map(as_onnx_reads_it, inner))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_nothing_that_onnx_reads_is_missed_in_a_damaged_graph(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = PLACES[data.draw(st.sampled_from(sorted(PLACES)))]
    whole = bytearray(place(external("w.data")).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole) - 1))
        whole[start : start + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path = tmp_path_factory.mktemp("damaged") / "graph.onnx"
    path.write_bytes(whole)
    try:
        wanted = as_onnx_reads_it(ModelProto.FromString(bytes(whole)))
    except DecodeError:
        wanted = set()
    try:
        found = external_locations(path)
    except ValueError:
        return  # a bundle with this graph is refused
    assert wanted <= found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled model, whose graphs keep their weights in model.safetensors."""
    folder = tmp_path / "copy"
    shutil.copytree(BUNDLED["nano"], folder, copy_function=os.link)
    return folder


def relocate(folder: Path, location: str, data: list[str]) -> None:
    """Give the weights of the memory encoder another location, with all hashes right."""
    path = folder / "memory_encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.unlink()
    path.write_bytes(model.SerializeToString())
    write_entry(folder, file=path.name, data=data)


def write_entry(folder: Path, *, file: str, data: list[str]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["graphs"]["memory_encoder"]
    entry |= {"file": file, "sha256": sha256_of(folder / file)}
    entry["data"] = [{"file": name, "sha256": sha256_of(folder / name)} for name in data]
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("location", ["own.data", "sub/own.data"])
def test_data_that_is_named_may_be_read(copy: Path, location: str) -> None:
    (copy / location).parent.mkdir(exist_ok=True)
    os.link(copy / "model.safetensors", copy / location)
    relocate(copy, location, [location])
    load_bundle(copy)


@pytest.mark.parametrize(
    "location",
    [
        *("../outside.bin", "unnamed.bin", "link.bin", "*/_ORT_MEM_ADDR_/*", "", "."),
        *("sub/../../outside.bin", "model.safetensors/", "model.safetensors\0", "/etc/hostname"),
        *("./model.safetensors", "file:model.safetensors", "..\\outside.bin"),
    ],
)
def test_data_outside_the_manifest_is_refused(copy: Path, location: str) -> None:
    for name in ("../outside.bin", "unnamed.bin"):
        os.link(copy / "model.safetensors", copy / name)
    (copy / "link.bin").symlink_to(copy.parent / "outside.bin")
    relocate(copy, location, ["model.safetensors"])
    if location == "./model.safetensors":
        load_bundle(copy)  # the same file
        return
    with pytest.raises(BundleError, match=r"memory_encoder\.onnx reads .* does not name"):
        load_bundle(copy)


def test_a_location_in_memory_is_refused_even_as_a_file(copy: Path) -> None:
    location = "*/_ORT_MEM_ADDR_/*"
    (copy / location).parent.mkdir(parents=True)
    os.link(copy / "model.safetensors", copy / location)
    relocate(copy, location, [location])
    with pytest.raises(BundleError, match="do not use this bundle"):
        load_bundle(copy)


def test_the_hash_of_weights_cannot_be_left_out(copy: Path) -> None:
    write_entry(copy, file="memory_encoder.onnx", data=[])
    with pytest.raises(BundleError, match=r"reads b'model\.safetensors', which .* not name"):
        load_bundle(copy)


def test_another_format_of_graph_is_refused(copy: Path) -> None:
    os.link(copy / "memory_encoder.onnx", copy / "memory_encoder.ort")
    write_entry(copy, file="memory_encoder.ort", data=["model.safetensors"])
    with pytest.raises(BundleError, match=r"does not end in \.onnx"):
        load_bundle(copy)


def test_a_graph_that_is_a_link_is_refused(copy: Path) -> None:
    (copy / "sub").mkdir()
    (copy / "memory_encoder.onnx").rename(copy / "sub" / "memory_encoder.onnx")
    (copy / "memory_encoder.onnx").symlink_to("sub/memory_encoder.onnx")
    with pytest.raises(BundleError, match=r"memory_encoder\.onnx is a link"):
        load_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a graph"])
def test_what_is_not_a_graph_is_refused(copy: Path, content: bytes) -> None:
    (copy / "memory_encoder.onnx").unlink()
    (copy / "memory_encoder.onnx").write_bytes(content)
    write_entry(copy, file="memory_encoder.onnx", data=[])
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        load_bundle(copy)
