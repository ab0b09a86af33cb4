"""A bundle: a folder with manifest.json and the graph files it names, checked before use."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.external_data import external_locations
from sam2_edge.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    FileEntry,
    GraphEntry,
    Manifest,
)
from sam2_edge.bundle.names import bundled_folder, no_such_bundle
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import BundleError, reason_of

MAX_MANIFEST_BYTES = 16 * 2**20

_SAFE_LOCATION = re.compile(rb"[\w.-]+(/[\w.-]+)*")
"""Relative, without the stars of ONNX Runtime's own locations in memory (*/_ORT_MEM_ADDR_/*)."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle on disk."""

    path: Path
    manifest: Manifest

    def graph_path(self, graph: Graph) -> Path:
        """The file of one graph."""
        return self.path / self.manifest.graphs[graph].file

    def max_size(self, graph: Graph, axis: str) -> int | None:
        """Largest size of a dynamic axis that a graph's engine takes; None without an engine."""
        engine = self.manifest.graphs[graph].engine
        return None if engine is None else engine.profile[axis][2]


def load_bundle(path: str | Path) -> Bundle:
    """Load a bundle and check its version, fields, files, hashes and contract.

    Args:
        path: A folder, or "nano" for the bundle in the package ("./nano" for a folder of that
            name).

    Raises:
        BundleError: A check failed; the message names the file and the remedy.
    """
    folder = bundled_folder(path) or Path(path)
    try:
        exists = folder.exists()
        manifest_path = folder / MANIFEST_FILE
        is_bundle = manifest_path.is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise BundleError(f"{folder} cannot be read: {reason_of(error)}") from error
    if not exists:
        raise BundleError(no_such_bundle(folder))
    if not is_bundle:
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST_FILE}; make one with sam2-edge export"
        )
    manifest = _read_manifest(manifest_path)
    _check_contract(manifest_path, manifest)
    # Graphs may share a file.
    files = {
        (file.file, file.sha256): file
        for entry in manifest.graphs.values()
        for file in (entry, *entry.data)
    }
    if manifest.reference is not None:
        files[manifest.reference.file, manifest.reference.sha256] = manifest.reference
    for file in files.values():
        _check_file(folder, file)
    for entry in manifest.graphs.values():
        if entry.engine is None:
            _check_external_data(folder, entry)
    return Bundle(folder, manifest)


def _check_contract(path: Path, manifest: Manifest) -> None:
    missing = [graph.value for graph in Graph if graph not in manifest.graphs]
    if missing:
        raise BundleError(f"{path} lacks the graphs {', '.join(missing)}; export it again")
    specs = graph_specs(manifest.geometry)
    for graph, entry in manifest.graphs.items():
        for kind in ("inputs", "outputs"):
            if getattr(entry, kind) != getattr(specs[graph], kind):
                raise BundleError(
                    f"{path}: the {kind} of {graph.value} do not match the contract of this "
                    "sam2_edge; export the bundle again"
                )
        axes = specs[graph].dynamic_axes
        if entry.engine is not None and not entry.engine.profile.keys() >= set(axes):
            raise BundleError(
                f"{path}: the profile of {graph.value} has the axes "
                f"{', '.join(entry.engine.profile) or 'none'}, not {', '.join(axes)}; build the "
                "engines again"
            )


def _read_manifest(path: Path) -> Manifest:
    try:
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} has {size} bytes, at most {MAX_MANIFEST_BYTES} are read; export the "
                "bundle again"
            )
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
        raise BundleError(
            f"{path}: {where} is {_short(first['input'])}: {first['msg']}; export the bundle again"
        ) from error


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


def _check_external_data(folder: Path, entry: GraphEntry) -> None:
    """Check that a graph reads only files that are named, and thus hashed, in its entry."""
    path = folder / entry.file
    # ONNX Runtime takes the format from the suffix, and looks for data beside a link or its target.
    if path.suffix != ".onnx" or path.is_symlink():
        raise BundleError(f"{path} is a link or does not end in .onnx; copy or export it again")
    try:
        locations = external_locations(path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not an ONNX graph ({error}); copy or export the bundle again"
        ) from error
    named = {PurePosixPath(file.file) for file in entry.data}
    beside = PurePosixPath(entry.file).parent
    for location in sorted(locations):
        safe = _SAFE_LOCATION.fullmatch(location)
        if not safe or beside / location.decode("ascii") not in named:
            raise BundleError(
                f"{path} reads {_short(location)}, which {MANIFEST_FILE} does not name among the "
                "graph's data; do not use this bundle, or export it again"
            )


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:79] + "…"
