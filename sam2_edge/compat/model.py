"""A model as the original's builders return it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2_edge.bundle import Bundle
from sam2_edge.runtime import model as runtime_model
from sam2_edge.runtime.backends import Backend, BackendName


@dataclass(frozen=True, slots=True)
class Sam2Model:
    """What predictors are made from.

    A backend belongs to one thread: predictors that share a model take turns.

    Attributes:
        graphs: The graphs and what runs them.
        dynamic_multimask_via_stability: Whether to take the best of three masks where one is
            requested and the single one is unstable.
    """

    graphs: runtime_model.Model
    dynamic_multimask_via_stability: bool = True

    @property
    def bundle(self) -> Bundle:
        """The model's bundle."""
        return self.graphs.bundle

    @property
    def image_size(self) -> int:
        """Side of the square model input, pixels."""
        return self.graphs.geometry.image_size


def open_model(
    bundle: Bundle | str | Path,
    backend: BackendName | Backend = "auto",
    *,
    threads: int | None = None,
) -> Sam2Model:
    """Load a bundle and open its backend; see `sam2_edge.runtime.model.open_model`."""
    return Sam2Model(runtime_model.open_model(bundle, backend, threads=threads))
