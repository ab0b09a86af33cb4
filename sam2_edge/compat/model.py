"""A model as the original's builders return it, and how their arguments lead to one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_edge.bundle import Bundle
from sam2_edge.compat.checkpoint import find_bundle, hub_checkpoint
from sam2_edge.compat.overrides import predictor_options
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime import model as runtime_model
from sam2_edge.runtime.backends import Backend, BackendName

BUILDER_OPTIONS = frozenset({"device", "mode", "hydra_overrides_extra", "apply_postprocessing"})
"""Optional arguments of `build_model`."""

_log = logging.getLogger(__name__)


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
    def image_size(self) -> int:
        """Side of the square model input, pixels."""
        return self.graphs.geometry.image_size

    @property
    def keeps_corrections(self) -> bool:
        """Whether propagation keeps the mask of a corrected frame, as EdgeTAM's own package does.

        That of SAM 2 tracks the frame again.
        """
        return self.graphs.bundle.manifest.model.family == "edgetam"


def open_model(
    bundle: Bundle | str | Path,
    backend: BackendName | Backend = "auto",
    *,
    threads: int | None = None,
) -> Sam2Model:
    """Load a bundle and open its backend; see `sam2_edge.runtime.model.open_model`."""
    return Sam2Model(runtime_model.open_model(bundle, backend, threads=threads))


def build_model(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,  # noqa: FBT001, FBT002 - the original's order
    **ignored: Any,
) -> tuple[Sam2Model, dict[str, Any]]:
    """Open the model that a builder's arguments name; see `build_sam2`.

    Returns:
        The model, and the options of `SAM2VideoPredictor`.
    """
    if mode != "eval":
        raise Sam2EdgeError(f"mode is {mode!r}; exported graphs cannot be trained, leave it eval")
    if ignored:
        _log.warning("ignored, as in the original: %s", ", ".join(sorted(ignored)))
    options = predictor_options(hydra_overrides_extra, apply_postprocessing=apply_postprocessing)
    bundle = find_bundle(config_file, ckpt_path, options.pop("image_size", None))
    # The original's default is a GPU, so naming one does not require one.
    graphs = runtime_model.open_model(bundle, "cpu" if str(device) == "cpu" else "auto")
    return Sam2Model(graphs, options.get("dynamic_multimask_via_stability", False)), options


def pretrained_model(model_id: str, **arguments: Any) -> tuple[Sam2Model, dict[str, Any]]:
    """Build a published model for `from_pretrained`.

    Returns:
        The model, and the arguments that its builder does not take.
    """
    options = {name: arguments.pop(name) for name in BUILDER_OPTIONS & arguments.keys()}
    model, _ = build_model(model_id, hub_checkpoint(model_id), **options)
    return model, arguments
