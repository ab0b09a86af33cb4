"""What engines are built for, and which GPUs they can be built for here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sam2_edge.bundle.contract import MemoryRounding, Precision
from sam2_edge.errors import BackendError, ExportError
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.backends.tensorrt_variant import (
    TensorRtVariant,
    import_tensorrt,
    rtx_targets,
)

DEFAULT_MAX_OBJECTS = 8

TURING = (7, 5)
"""Compute capability without bfloat16, for which TensorRT-RTX has no float32 products either."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What engines are built for.

    Attributes:
        variant: Classic TensorRT or TensorRT-RTX.
        compute_capabilities: (major, minor) of each GPU that TensorRT-RTX builds for. Empty for the
            GPU of this machine, the only choice with classic TensorRT.
        max_objects: Objects in one batch of the decoder and the memory encoder.
        max_points: Points of one object on one frame.
        max_cond_frames: Conditioning frames kept per object.
    """

    variant: TensorRtVariant
    compute_capabilities: Sequence[tuple[int, int]] = ()
    max_objects: int = DEFAULT_MAX_OBJECTS
    max_points: int = 16
    max_cond_frames: int = 4


def check_engine_options(options: EngineOptions) -> tuple[tuple[int, int], ...]:
    """Check that engines can be built on this machine; call it before long work.

    Returns:
        The compute capabilities of the GPUs that they are for.

    Raises:
        ExportError: A limit is below 1, or TensorRT does not build for one of the GPUs.
        BackendError: TensorRT or the GPU is missing.
    """
    for name in ("max_objects", "max_points", "max_cond_frames"):
        if getattr(options, name) < 1:
            raise ExportError(f"{name} is {getattr(options, name)}; give 1 or more")
    trt = import_tensorrt(options.variant)
    if options.variant == "tensorrt":
        if options.compute_capabilities:
            raise ExportError(
                "classic TensorRT builds for the GPU of this machine; leave out "
                "--compute-capability, or use --target tensorrt-rtx"
            )
        return (device_info().compute_capability,)
    wanted = tuple(options.compute_capabilities) or (_own_capability(),)
    known = rtx_targets(trt)
    unknown = [f"SM{a}{b}" for a, b in wanted if f"SM{a}{b}" not in known]
    if unknown:
        raise ExportError(
            f"{options.variant} {trt.__version__} cannot build for {', '.join(unknown)}; "
            f"it knows {', '.join(known)}"
        )
    return wanted


def check_precisions(
    options: EngineOptions, precisions: Collection[Precision], *, rounding: MemoryRounding
) -> None:
    """Check that the GPUs compute in these precisions; call it before long work.

    Args:
        options: Options that `check_engine_options` accepts.
        precisions: Of all graphs.
        rounding: How stored memory is rounded.

    Raises:
        ExportError: One does not.
    """
    capabilities = check_engine_options(options)
    if TURING in capabilities and options.variant == "tensorrt-rtx" and "fp32" in precisions:
        raise ExportError(
            "TensorRT-RTX has no float32 products for compute capability 7.5; export with "
            "--precision fp16, or leave out 7.5"
        )
    if any(capability <= TURING for capability in capabilities) and rounding == "bfloat16":
        raise ExportError(
            "stored memory is rounded to bfloat16, which compute capability 7.5 lacks; "
            "export with --memory-rounding none, or leave out 7.5"
        )


def _own_capability() -> tuple[int, int]:
    try:
        return device_info().compute_capability
    except BackendError as error:
        raise ExportError(
            f"engines for the GPU of this machine cannot be built: {error}. Without a GPU, name "
            "the GPUs to build for: --compute-capability 8.6,8.9"
        ) from error
