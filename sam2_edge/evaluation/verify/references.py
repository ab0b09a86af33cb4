"""What a bundle is compared with: another bundle, or PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_edge.bundle import BUNDLED, Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.manifest import MANIFEST_FILE, Manifest
from sam2_edge.errors import BackendError, BundleError, CheckpointError
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.tracker_adapter import TrackerAdapter, TrackerLoop
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.tracker import VideoTracker

NEEDS_EXTRA = (
    "comparing with PyTorch needs the extra export ({}); install it with: "
    "pip install 'sam2_edge[export]', or give --reference with another bundle"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """manifest: of a bundle, None for PyTorch. backend: runs its graphs. loop: follows a clip of so
    many frames. same_weights: whether they are those that the bundle was made from, None where
    nothing tells.
    """

    name: str
    manifest: Manifest | None
    backend: Backend
    loop: Callable[[int | None], TrackerAdapter]
    same_weights: bool | None


def open_reference(
    bundle: Bundle,
    name: str | None,
    *,
    backend: BackendName = "auto",
    threads: int | None = None,
) -> Reference:
    """The reference of a bundle.

    name: a folder with a bundle, or a model as `sam2-edge export` takes it, which runs in PyTorch;
    None for the model that the bundle was made from. backend: what runs a bundle.

    Raises BundleError where the reference has another geometry, CheckpointError for a model that
    cannot be loaded, BackendError where PyTorch is not installed or a backend is given for it.
    """
    if name is not None and (Path(name) / MANIFEST_FILE).is_file():
        return _bundle_reference(bundle, load_bundle(name), backend, threads)
    if backend != "auto":
        raise BackendError(
            f"the reference runs in PyTorch, not on {backend}; name another bundle as the reference"
        )
    try:
        return _pytorch_reference(bundle, name, threads)
    except ImportError as error:
        raise BackendError(NEEDS_EXTRA.format(error)) from error


def _bundle_reference(
    bundle: Bundle, other: Bundle, backend_name: BackendName, threads: int | None
) -> Reference:
    mine, its = bundle.manifest.geometry, other.manifest.geometry
    if its not in (mine, replace(mine, memory_tokens=None)):
        raise BundleError(
            f"{other.path} has another geometry ({its}) than {bundle.path} ({mine}); compare "
            "bundles of one model and image size, of as many memory tokens or with one that sees "
            "them all"
        )
    backend = open_backend(other, backend_name, threads=threads)

    def loop(clip_frames: int | None) -> TrackerAdapter:
        return TrackerLoop(VideoTracker(other, backend=backend, clip_frames=clip_frames))

    ours, theirs = (b.manifest.model.sha256 for b in (bundle, other))
    same = ours == theirs if ours and theirs else None
    asked = backend if its == mine else _SeesAll(backend)
    return Reference(str(other.path), other.manifest, asked, loop, same)


class _SeesAll(DelegatingBackend):
    """Memory attention over all tokens, asked by a bundle that names some."""

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Backend.run`."""
        return super().run(graph, {n: x for n, x in inputs.items() if n != "memory_cells"})


def _pytorch_reference(bundle: Bundle, name: str | None, threads: int | None) -> Reference:
    import torch

    from sam2_edge.evaluation.pytorch import PyTorchLoop, TorchBackend

    if threads is not None:
        torch.set_num_threads(threads)
    manifest = bundle.manifest
    loaded = model_of(manifest, name)
    backend = TorchBackend(loaded.model, manifest.memory)
    if backend.geometry != manifest.geometry:
        raise BundleError(
            f"{loaded.name} has another geometry ({backend.geometry}) than {bundle.path} "
            f"({manifest.geometry}); name the model that the bundle was made from"
        )

    def loop(clip_frames: int | None) -> TrackerAdapter:
        if not manifest.memory.seen_in_full:  # transformers has no such loop
            return TrackerLoop(VideoTracker(bundle, backend=backend, clip_frames=clip_frames))
        return PyTorchLoop(loaded.model, manifest, clip_frames)

    ours = manifest.model.sha256
    same = loaded.sha256 == ours if ours and loaded.sha256 else None
    if name is None and same is False:
        raise CheckpointError(
            f"{loaded.source} no longer holds the weights that {bundle.path} was made from; name "
            "them with --reference"
        )
    name = f"{loaded.name} in PyTorch {torch.__version__}"
    return Reference(name, None, backend, loop, same)


def model_of(manifest: Manifest, name: str | None) -> Any:
    """The `LoadedModel` of a name, or the one that a manifest tells of, at the manifest's image
    size.

    Raises CheckpointError where it cannot be loaded, ModuleNotFoundError without PyTorch.
    """
    from sam2_edge.models.checkpoints import load_folder, load_model, load_published

    size, model = manifest.image_size, manifest.model
    if name is not None:
        return load_model(name, image_size=size)
    if model.source == "sam2_edge":
        return load_folder(BUNDLED["nano"], image_size=size, name=model.name, source=model.source)
    seed = re.fullmatch(r"random seed (\d+)", model.source)
    if seed:
        return load_model(model.name, random_seed=int(seed[1]), image_size=size)
    if Path(model.source).exists():
        return load_model(model.source, image_size=size)
    return load_published(model.name, image_size=size)
