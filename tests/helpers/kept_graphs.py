"""A cache of exported ONNX files, shared by all processes of a test run.

What is kept is what `export_onnx` wrote for the very same module: its classes, attributes and
weights. Whatever follows an export (precision, checks, the bundle) runs each time.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from sam2_edge.bundle.contract import GraphSpec

Export = Callable[[nn.Module, GraphSpec, Path], None]


class KeptGraphs:
    """Exports each module once with `export` and keeps the files in `folder`."""

    def __init__(self, folder: Path, export: Export) -> None:
        self._folder, self._export = folder, export
        folder.mkdir(exist_ok=True)

    def export_onnx(self, module: nn.Module, spec: GraphSpec, path: Path) -> None:
        """Replaces `sam2_edge.export.onnx_graph.export_onnx`."""
        name = _fingerprint(module, spec)
        kept = self._folder / name
        with _locked(self._folder / f"{name}.lock"):
            if not kept.is_dir():
                self._export(module, spec, path)
                made = self._folder / f"{name}.part"
                made.mkdir()
                for file in path.parent.glob(f"{path.name}*"):  # weights may lie beside the graph
                    shutil.copy2(file, made)
                made.rename(kept)
                return
        for file in kept.iterdir():
            shutil.copy2(file, path.parent)


def _fingerprint(module: nn.Module, spec: GraphSpec) -> str:
    content = io.BytesIO()
    torch.save(module, content)
    digest = hashlib.sha256(content.getbuffer())
    digest.update(repr(spec).encode())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process in at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
