"""Names that a user can choose from; it imports nothing, for the command line's help."""

from __future__ import annotations

from typing import Literal

BackendName = Literal["auto", "cpu", "cuda", "tensorrt", "tensorrt-rtx"]
"""auto: TensorRT for engines; for ONNX graphs the GPU if possible, otherwise the CPU."""

MemoryPolicyName = Literal["original", "motion", "distractor"]
"""Policies with their published settings. "motion" and "distractor" are experimental: they do not
improve the bundled model and have not been measured on published weights."""
