"""A bundle with other graphs in place of some of its own, to try what they do to masks."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.storage import file_entry, save_manifest
from sam2_edge.export.fp16 import emulate_fp16


def trial_bundle(source: Bundle, folder: Path, changed: Mapping[Graph, onnx.ModelProto]) -> Bundle:
    """A copy of `source` in an empty folder, with the graphs of `changed`; the rest of its manifest
    is as it was.
    """
    for file in source.path.iterdir():
        shutil.copy2(file, folder)
    graphs = dict(source.manifest.graphs)
    for graph, model in changed.items():
        name = f"{graph.value}.onnx"
        onnx.save(model, folder / name)
        update = {**file_entry(folder, name).model_dump(), "data": ()}
        graphs[graph] = graphs[graph].model_copy(update=update)
    save_manifest(folder, source.manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(folder)


def emulated_bundle(full: Bundle, half: Bundle, graphs: Collection[Graph], folder: Path) -> Bundle:
    """A copy of `full` that gives on a CPU what float16 gives in `graphs`, which `half` has in
    float16; see `emulate_fp16`.
    """
    changed = {graph: emulate_fp16(onnx.load(half.graph_path(graph))) for graph in graphs}
    return trial_bundle(full, folder, changed)
