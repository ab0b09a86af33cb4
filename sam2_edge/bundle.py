"""The bundle: a folder with manifest.json and the graph files it names.

Written to a temporary sibling and renamed, so that it exists whole or not at all; checked in full
before any graph is opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from sam2_edge.contract import (
    MEMORY_STRIDE,
    Geometry,
    Graph,
    GraphSpec,
    MemoryPooling,
    MemoryRounding,
    Precision,
    TensorSpec,
    graph_specs,
)
from sam2_edge.errors import BundleError

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1

BUNDLED = {"nano": Path(__file__).parent / "models" / "bundled" / "nano"}
"""Bundles that come with the package, by name."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorEntry(_Entry):
    """One input or output: numpy dtype name, and a size or the letter of a dynamic axis each."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


class FileEntry(_Entry):
    """A file of the bundle: path inside the folder, and sha256 of its bytes."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


Profile = dict[str, tuple[int, int, int]]
"""Least, usual and largest size of each dynamic axis that an engine takes."""


class EngineEntry(_Entry):
    """What a TensorRT engine was built with and for: it runs with that version alone, on GPUs of
    those compute capabilities (major, minor).
    """

    flavour: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    compute_capabilities: tuple[tuple[int, int], ...]
    profile: Profile


class CalibrationEntry(_Entry):
    """What a graph was calibrated with: the file, folder or camera, and numbers of its frames.

    A float16 graph has no more than that: the frames showed which values are too large for it. In
    INT8, method and ranges: the least and largest value kept of every quantised tensor. left_out:
    layers that stayed in float to keep masks as good. sensitivity: where that was asked for, the
    graph's relative error with this layer alone in INT8, worst first.
    """

    source: str
    frames: tuple[int, ...]
    method: Literal["minmax", "percentile", "entropy"] | None = None
    ranges: dict[str, tuple[float, float]] = {}
    left_out: tuple[str, ...] = ()
    sensitivity: dict[str, float] = {}


class GraphEntry(FileEntry):
    """One graph.

    engine: set if the file is a TensorRT engine, otherwise it is ONNX. data: files beside the graph
    that hold weights of it. parity: by output, the largest absolute difference to the PyTorch
    module at export, on seeded inputs or those of calibration, of the ONNX graph from which an
    engine was built.
    """

    backend: Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
    precision: Precision
    opset: int
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    data: tuple[FileEntry, ...] = ()
    parity: dict[str, float] = {}
    engine: EngineEntry | None = None
    calibration: CalibrationEntry | None = None


class ModelEntry(_Entry):
    """Where the weights come from; sha256 is None for random ones."""

    name: str
    family: Literal["sam2", "sam2.1"]
    source: str
    sha256: str | None


class MemoryEntry(_Entry):
    """Geometry of the memory; `rounding` is how the memory encoder rounds what is stored, `pooling`
    how memory attention averages it, `tokens` how many cells of each memory it sees, None for all.
    """

    slots: int = Field(ge=2, le=64)
    pointers: int = Field(ge=2, le=256)
    channels: int = Field(ge=1, le=4096)
    hidden: int = Field(ge=1, le=4096)
    rounding: MemoryRounding
    pooling: MemoryPooling = 1
    tokens: int | None = Field(default=None, ge=1)

    @property
    def seen_in_full(self) -> bool:
        """Whether memory attention sees every token of a memory as it is."""
        return self.pooling == 1 and self.tokens is None


class NormalisationEntry(_Entry):
    """Mean and standard deviation of RGB in 0..1; applied inside the image encoder."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Manifest(_Entry):
    """What manifest.json holds."""

    format_version: Literal[1]
    sam2_edge_version: str
    model: ModelEntry
    image_size: int
    normalisation: NormalisationEntry
    memory: MemoryEntry
    graphs: dict[Graph, GraphEntry]

    @field_validator("memory")
    @classmethod
    def _tokens_are_there(cls, memory: MemoryEntry, info: ValidationInfo) -> MemoryEntry:
        cells = (info.data.get("image_size", 0) // MEMORY_STRIDE) ** 2
        if memory.tokens is not None and (memory.tokens >= cells or memory.pooling > 1):
            raise ValueError(f"{memory.tokens} tokens of {cells}, pooling {memory.pooling}")
        return memory

    @property
    def geometry(self) -> Geometry:
        """The sizes that fix every tensor."""
        return Geometry(
            image_size=self.image_size,
            hidden=self.memory.hidden,
            memory_channels=self.memory.channels,
            memory_slots=self.memory.slots,
            pointers=self.memory.pointers,
            memory_tokens=self.memory.tokens,
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle on disk."""

    path: Path
    manifest: Manifest

    def graph_path(self, graph: Graph) -> Path:
        """The file of one graph."""
        return self.path / self.manifest.graphs[graph].file

    def most(self, axis: str) -> int | None:
        """The largest size of a dynamic axis that every engine takes; None without engines."""
        engines = [entry.engine for entry in self.manifest.graphs.values() if entry.engine]
        return min((e.profile[axis][2] for e in engines if axis in e.profile), default=None)


def load_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle: version, fields, files, hashes and the graphs' contract.

    path: a folder, or "nano" for the bundle that comes with the package (unless there is a folder
    of that name).

    Raises BundleError, naming the file and the remedy, before any graph is opened.
    """
    folder = Path(path)
    if not folder.exists():
        folder = BUNDLED.get(str(path), folder)
    manifest_path = folder / MANIFEST_FILE
    if not manifest_path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST_FILE}; make one with sam2-edge export"
        )
    manifest = _read_manifest(manifest_path)
    missing = [graph.value for graph in Graph if graph not in manifest.graphs]
    if missing:
        raise BundleError(f"{manifest_path} lacks the graphs {', '.join(missing)}; export it again")
    specs = graph_specs(manifest.geometry)
    files: dict[tuple[str, str], FileEntry] = {}  # graphs may share a file of weights
    for graph, entry in manifest.graphs.items():
        _check_contract(manifest_path, specs[graph], entry)
        files |= {(file.file, file.sha256): file for file in (entry, *entry.data)}
    for file in files.values():
        _check_file(folder, file)
    return Bundle(folder, manifest)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into a folder that is still being made."""
    text = manifest.model_dump_json(indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


@contextmanager
def new_bundle_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling of `target` that becomes `target` when the block ends well.

    Raises BundleError if `target` exists, unless `overwrite` is set and it is a bundle.
    """
    check_new_bundle(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BundleError(f"{target} cannot be made: {error}; choose another folder") from error
    staging.chmod(0o755)
    try:
        yield staging
        check_new_bundle(target, overwrite=overwrite)
        if target.exists():
            # Renamed away first, so that a reader never sees a half-removed bundle.
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / "bundle")
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_new_bundle(target: Path, *, overwrite: bool = False) -> None:
    """Raise BundleError unless a bundle may be written at `target`; for asking before long work."""
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise BundleError(f"{target} exists; choose another folder or pass --overwrite")
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not overwritten; choose another folder"
        )


def file_entry(folder: Path, name: str) -> FileEntry:
    """The entry of a file that lies in `folder`."""
    return FileEntry(file=name, sha256=sha256_of(folder / name))


def tensor_entries(specs: tuple[TensorSpec, ...]) -> tuple[TensorEntry, ...]:
    """A contract's tensors as manifest entries."""
    return tuple(TensorEntry(name=s.name, dtype=s.dtype, axes=s.axes) for s in specs)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error}); export the bundle again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version!r}, this sam2_edge reads {FORMAT_VERSION}; export "
            "the bundle again or install the matching sam2_edge"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {where}: {first['msg']}; export the bundle again") from error


def _check_contract(manifest_path: Path, spec: GraphSpec, entry: GraphEntry) -> None:
    for kind, given, wanted in (
        ("inputs", entry.inputs, tensor_entries(spec.inputs)),
        ("outputs", entry.outputs, tensor_entries(spec.outputs)),
    ):
        if given != wanted:
            raise BundleError(
                f"{manifest_path}: the {kind} of {spec.graph.value} are not those of this "
                "sam2_edge's contract; export the bundle again"
            )


def _check_file(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.file
    try:
        if folder.resolve() not in path.resolve().parents:
            raise BundleError(
                f"{folder / MANIFEST_FILE}: {entry.file!r} leaves the bundle; do not use "
                "this bundle"
            )
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the whole bundle again")
        found = sha256_of(path)
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a zero byte or a lone surrogate in the name; RuntimeError: links in a circle.
        raise BundleError(
            f"{folder / MANIFEST_FILE}: file {entry.file!r} cannot be read ({error}); copy or "
            "export the bundle again"
        ) from error
    if found != entry.sha256:
        raise BundleError(
            f"{path} has sha256 {found[:12]}…, the manifest says {entry.sha256[:12]}…; "
            "copy or export the bundle again"
        )
