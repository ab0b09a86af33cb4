"""References to compare a bundle with: another bundle, or PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import MANIFEST_FILE, Manifest
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.errors import BackendError, BundleError, CheckpointError
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.tracker import Tracker
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.tracker import VideoTracker


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to compare a bundle with.

    Attributes:
        name: Name in reports.
        bundle: The other bundle; None for PyTorch.
        backend: Runs single graphs.
        make_tracker: Creates a tracker for a clip of the given number of frames.
        same_weights: Whether the bundle was exported from the same weights; None if unknown.
    """

    name: str
    bundle: Bundle | None
    backend: Backend
    make_tracker: Callable[[int], Tracker]
    same_weights: bool | None


def open_reference(
    bundle: Bundle, name: str | None, *, backend: BackendName = "auto", threads: int | None = None
) -> Reference:
    """Open the reference of a bundle.

    Args:
        bundle: The bundle to compare.
        name: Folder of another bundle, or a model as `sam2-edge export` takes it, which runs in
            PyTorch; None for the model that the bundle was exported from.
        backend: Backend for the graphs of a reference bundle.
        threads: CPU threads.

    Raises:
        BundleError: If the geometry of the reference differs.
        CheckpointError: If the model cannot be loaded.
        BackendError: If PyTorch is not installed, or a backend was given for it.
    """
    if name is not None and name not in BUNDLED and (Path(name) / MANIFEST_FILE).is_file():
        return _bundle_reference(bundle, load_bundle(name), backend, threads)
    if backend != "auto":
        raise BackendError(
            f"the reference runs in PyTorch, not on {backend}; name another bundle as the reference"
        )
    return _pytorch_reference(bundle, name, threads)


def _bundle_reference(
    bundle: Bundle, other: Bundle, backend_name: BackendName, threads: int | None
) -> Reference:
    ours, theirs = bundle.manifest.geometry, other.manifest.geometry
    same_features = replace(ours, feature_dtype=theirs.feature_dtype)
    if theirs not in (same_features, replace(same_features, memory_tokens=None)):
        raise BundleError(
            f"{other.path} has another geometry ({theirs}) than {bundle.path} ({ours}); compare "
            "bundles of the same model and image size, with the same number of memory tokens or a "
            "reference that uses all of them"
        )
    backend = open_backend(other, backend_name, threads=threads)

    def make_tracker(clip_frames: int) -> Tracker:
        return VideoTracker(other, backend=backend, clip_frames=clip_frames)

    return Reference(
        name=str(other.path),
        bundle=other,
        backend=backend if theirs == ours else _Adapted(backend, other),
        make_tracker=make_tracker,
        same_weights=_same(bundle.manifest.model.sha256, other.manifest.model.sha256),
    )


class _Adapted(DelegatingBackend):
    """Takes the inputs of another bundle: in other dtypes, and with a selection of tokens."""

    def __init__(self, inner: Backend, bundle: Bundle) -> None:
        super().__init__(inner)
        self._specs = graph_specs(bundle.manifest.geometry)

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph on its own inputs, in its own dtypes."""
        arrays = {
            tensor.name: self.download(inputs[tensor.name]).astype(tensor.dtype)
            for tensor in self._specs[graph].inputs
        }
        return super().run(graph, self.upload_block(arrays), outputs)


def _pytorch_reference(bundle: Bundle, name: str | None, threads: int | None) -> Reference:
    manifest = bundle.manifest
    loaded = source_model(manifest, name)
    import torch

    from sam2_edge.evaluation.pytorch import PyTorchTracker, TorchBackend

    if threads is not None:
        torch.set_num_threads(threads)
    backend = TorchBackend(loaded.model, manifest)
    if backend.geometry != manifest.geometry:
        raise BundleError(
            f"{loaded.name} has another geometry ({backend.geometry}) than {bundle.path} "
            f"({manifest.geometry}); name the model that the bundle was exported from"
        )

    def make_tracker(clip_frames: int) -> Tracker:
        if manifest.memory.tokens is not None:  # transformers cannot select memory tokens
            return VideoTracker(bundle, backend=backend, clip_frames=clip_frames)
        return PyTorchTracker(loaded.model, manifest, clip_frames)

    same = _same(manifest.model.sha256, loaded.sha256)
    if name is None and same is False:
        raise CheckpointError(
            f"{loaded.source} no longer has the weights that {bundle.path} was exported from; "
            "give them with --reference"
        )
    name = f"{loaded.name} in PyTorch {torch.__version__}"
    return Reference(name, None, backend, make_tracker, same)


def _same(first: str | None, second: str | None) -> bool | None:
    """Return whether two hashes are equal; None if either is unknown."""
    return first == second if first and second else None


def source_model(manifest: Manifest, name: str | None = None) -> Any:
    """Load the model that a bundle was exported from, or another by name, at its image size.

    Returns:
        A `LoadedModel`.

    Raises:
        BackendError: If PyTorch is not installed.
        CheckpointError: If the model cannot be loaded.
    """
    try:
        from sam2_edge.models.checkpoints import load_model, load_published
    except ImportError as error:
        raise BackendError(
            f"comparing with PyTorch requires the extra export ({error}); install it with: "
            "pip install 'sam2_edge[export]', or compare with another bundle"
        ) from error

    size, model = manifest.image_size, manifest.model
    if name is not None:
        return load_model(name, image_size=size)
    if model.source == "sam2_edge":
        return load_model(model.name if model.name in BUNDLED else "nano", image_size=size)
    seed = re.fullmatch(r"random seed (\d+)", model.source)
    if seed:
        return load_model(model.name, random_seed=int(seed[1]), image_size=size)
    if Path(model.source).exists():
        return load_model(model.source, image_size=size)
    return load_published(model.name, image_size=size)
