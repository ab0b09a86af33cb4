"""Graphs that read their weights in half precision from one safetensors file beside them.

This makes a bundle small enough for a wheel: each initializer that the file contains becomes
external data in it (standard ONNX, operator versions unchanged) and a Cast to float32, which
runtimes fold when they load the graph. Only values that are exact in half precision are moved.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from sam2_edge.bundle.manifest import FileEntry, Manifest
from sam2_edge.bundle.storage import file_entry, save_manifest
from sam2_edge.errors import ExportError

MIN_VALUES = 64
"""Initializers with fewer values stay unchanged."""

Half = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file: its shape there, and the place of its bytes."""

    shape: tuple[int, ...]
    offset: int
    length: int


def pack_bundle(folder: Path, manifest: Manifest, weights: str) -> Manifest:
    """Rewrite the graphs of an unfinished bundle and its manifest, which is returned.

    Args:
        folder: The folder of the bundle.
        manifest: Its manifest.
        weights: Name of a safetensors file in `folder` with half-precision tensors.

    Raises:
        ExportError: That file is damaged.
    """
    stored = {
        part.tobytes(): place
        for tensor in stored_tensors(folder / weights)
        for part, place in _with_thirds(*tensor)
    }
    shared: FileEntry = file_entry(folder, weights)
    graphs = {}
    for graph, entry in manifest.graphs.items():
        path = folder / entry.file
        model = onnx.load(path)
        _pack(model, stored, weights)
        path.write_bytes(model.SerializeToString())
        digest = file_entry(folder, entry.file).sha256
        graphs[graph] = entry.model_copy(update={"sha256": digest, "data": (shared,)})
    packed = manifest.model_copy(update={"graphs": graphs})
    save_manifest(folder, packed)
    return packed


def stored_tensors(path: Path) -> Iterator[tuple[Half, Stored]]:
    """Half-precision tensors of a safetensors file and the position of their bytes.

    Format: 8 bytes of length, a JSON header, then the data at the offsets that the header gives
    (https://github.com/huggingface/safetensors, "Format").
    """
    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
    except (struct.error, ValueError) as error:
        raise ExportError(f"{path} is not a safetensors file ({error}); write it again") from error
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F16":
            continue
        start, end = (8 + length + at for at in entry["data_offsets"])
        data = np.frombuffer(content[start:end], np.float16).reshape(entry["shape"])
        yield data, Stored(tuple(entry["shape"]), start, end - start)


def _with_thirds(data: Half, place: Stored) -> Iterator[tuple[Half, Stored]]:
    """A tensor, and the thirds of its rows: the encoder's graph splits the weights of queries, keys
    and values (`models.graphs.hiera`).
    """
    yield data, place
    if data.ndim and len(data) and len(data) % 3 == 0:
        length = place.length // 3
        for index, part in enumerate(np.split(data, 3)):
            yield part, Stored(part.shape, place.offset + index * length, length)


def _pack(model: ModelProto, stored: dict[bytes, Stored], weights: str) -> None:
    graph = model.graph
    kept, casts = [], []
    for tensor in graph.initializer:
        half = _exact_half(tensor)
        if half is None:
            kept.append(tensor)
            continue
        packed, nodes = _packed(tensor.name, half, stored, weights)
        kept.append(packed)
        casts += nodes
    nodes = [*casts, *graph.node]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _exact_half(tensor: TensorProto) -> Half | None:
    """The values in half precision if all are exact and there are enough of them."""
    if tensor.data_type != TensorProto.FLOAT:
        return None
    full = numpy_helper.to_array(tensor)
    if full.size < MIN_VALUES:
        return None
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), full) else None


def _packed(
    name: str, half: Half, stored: dict[bytes, Stored], weights: str
) -> tuple[TensorProto, list[onnx.NodeProto]]:
    """The initializer in half precision, and the nodes that restore `name` from it."""
    packed = numpy_helper.from_array(half, f"{name}_half")
    place, turned = stored.get(half.tobytes()), False
    if place is None and half.ndim == 2:
        # The exporter stores the weights of linear layers as MatMul reads them.
        place, turned = stored.get(half.T.tobytes()), True
    if place is None:
        return packed, [helper.make_node("Cast", [packed.name], [name], to=TensorProto.FLOAT)]
    del packed.dims[:]
    packed.dims.extend(half.T.shape if turned else half.shape)
    set_external_data(packed, weights, offset=place.offset, length=place.length)
    packed.ClearField("raw_data")
    if not turned:
        return packed, [helper.make_node("Cast", [packed.name], [name], to=TensorProto.FLOAT)]
    cast = helper.make_node("Cast", [packed.name], [f"{name}_full"], to=TensorProto.FLOAT)
    return packed, [cast, helper.make_node("Transpose", [f"{name}_full"], [name], perm=[1, 0])]
