"""A model as the original's builders return it: a checked bundle and the backend that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.runtime.backends import Backend, BackendName, open_backend


@dataclass(frozen=True, slots=True)
class Sam2Model:
    """What predictors are made from.

    A backend is one thread's: predictors that share a model take turns.
    dynamic_multimask_via_stability: where one mask is asked for and the single one is not stable,
    take the best of three.
    """

    bundle: Bundle
    backend: Backend
    dynamic_multimask_via_stability: bool = True

    @property
    def image_size(self) -> int:
        """Side of the square model input, pixels."""
        return self.bundle.manifest.image_size


def open_model(
    bundle: Bundle | str | Path,
    backend: BackendName | Backend = "auto",
    *,
    threads: int | None = None,
) -> Sam2Model:
    """Load a bundle and open its backend.

    backend: what runs it, see `BackendName`, or a backend that is open for this bundle. threads:
    CPU threads; None uses all cores.

    Raises BundleError or BackendError when the bundle cannot be used.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if isinstance(backend, str):
        backend = open_backend(loaded, backend, threads=threads)
    return Sam2Model(loaded, backend)
