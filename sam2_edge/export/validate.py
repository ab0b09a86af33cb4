"""Checks of an exported ONNX graph: its structure, and its numbers against the PyTorch module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from sam2_edge.bundle.agreement import (
    BFLOAT16_STEP,
    CHOSEN,
    decided_logits,
    relative_difference,
    rows_of_equal_choice,
)
from sam2_edge.bundle.contract import (
    PARITY_TOLERANCE,
    Feeds,
    Geometry,
    GraphSpec,
    Precision,
    TensorSpec,
)
from sam2_edge.errors import ExportError

FORBIDDEN_OPERATORS = frozenset({"NonZero", "If", "Loop", "Scan", "Einsum"})
"""Operators that one of the runtimes refuses or that make shapes depend on data."""

_SIZES = (
    {"R": 1, "M": 1, "P": 1, "B": 1, "N": 1, "H": 3, "K": 1},
    {"R": 6, "M": 2, "P": 3, "B": 2, "N": 3, "H": 20, "K": 4},
)
_SEED = 2024


def check_structure(path: Path, spec: GraphSpec) -> None:
    """Run onnx.checker with full shape inference, and check the contract.

    Raises:
        ExportError: The graph breaks a rule; the message names both.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}") from error
    model = onnx.load(path, load_external_data=False)
    problems = [f"operator domain {o.domain}" for o in model.opset_import if o.domain]
    problems += [f"function {f.name}" for f in model.functions]
    for node in model.graph.node:
        if node.op_type in FORBIDDEN_OPERATORS:
            problems.append(f"operator {node.op_type}")
        if node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute):
            problems.append("Resize with antialias")
    for kind, values, wanted in (
        ("inputs", model.graph.input, spec.inputs),
        ("outputs", model.graph.output, spec.outputs),
    ):
        found = [_tensor_spec(value) for value in values]
        if found != list(wanted):
            problems.append(f"{kind} {found} instead of {list(wanted)}")
    if problems:
        raise ExportError(f"{path.name} breaks the contract: {'; '.join(dict.fromkeys(problems))}")


def check_numbers(
    path: Path,
    module: nn.Module,
    spec: GraphSpec,
    examples: Iterable[Feeds],
    *,
    rounded: bool,
    precision: Precision = "fp32",
) -> dict[str, float]:
    """Compare a graph in ONNX Runtime with its PyTorch module.

    Args:
        path: The ONNX file.
        module: The module, in float32.
        spec: The graph's contract.
        examples: Inputs; each is run on both sides, rounded where the contract says float16.
        rounded: Memory is rounded to bfloat16 on both sides, where a value near the middle of two
            steps may go either way: one step is allowed on top of the tolerance.
        precision: Precision of the graph.

    Returns:
        By output, the largest difference relative to max(1, largest magnitude), beyond the step.

    Raises:
        ExportError: A difference exceeds `PARITY_TOLERANCE`.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = {s.name: 0.0 for s in spec.outputs}
    for feeds in examples:
        given = {s.name: feeds[s.name].astype(s.dtype) for s in spec.inputs}
        with torch.inference_mode():
            result = module(*(_full(given[s.name]) for s in spec.inputs))
        tensors = result if isinstance(result, tuple) else (result,)
        expected = dict(zip(worst, (tensor.numpy() for tensor in tensors), strict=True))
        got = dict(zip(worst, session.run(None, given), strict=True))
        alike = rows_of_equal_choice(got, expected) if precision != "fp32" else slice(None)
        for name, so_far in worst.items():
            rows = alike if name in CHOSEN else slice(None)
            step = BFLOAT16_STEP if rounded and name == "memory" else 0.0
            difference = relative_difference(got[name][rows], expected[name][rows], step=step)
            if not difference <= PARITY_TOLERANCE[precision]:
                raise ExportError(
                    f"{spec.graph.value} in {precision} does not agree with PyTorch: output {name} "
                    f"differs by {difference:.3g} relative to max(1, largest value), "
                    f"{PARITY_TOLERANCE[precision]:.3g} is allowed; no bundle was written. Check "
                    "the installed versions of torch, transformers and onnxruntime against the "
                    "README"
                )
            worst[name] = max(so_far, difference)
    return worst


def example_feeds(spec: GraphSpec, geometry: Geometry) -> list[Feeds]:
    """Seeded inputs of two sizes, in the ranges that the runtime uses."""
    generator = np.random.default_rng(_SEED)
    return [
        {s.name: _example(s, sizes, geometry, generator) for s in spec.inputs} for sizes in _SIZES
    ]


def _full(values: NDArray[np.generic]) -> torch.Tensor:
    """A tensor for a float32 module."""
    return torch.from_numpy(values.astype(np.float32) if values.dtype == np.float16 else values)


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    axes = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
    return TensorSpec(value.name, dtype, axes)


def _example(
    spec: TensorSpec,
    sizes: Mapping[str, int],
    geometry: Geometry,
    generator: np.random.Generator,
) -> NDArray[np.generic]:
    shape = spec.shape(**sizes)
    integers = {
        "memory_rows": (0, sizes["R"]),
        "image": (0, 256),
        "memory_age": (0, geometry.memory_slots),
        "memory_cells": (0, geometry.embedding_size**2),
        "point_labels": (-1, 4),
        "has_mask": (0, 2),
        "multimask": (0, 2),
        "binarize": (0, 2),
    }
    if spec.name in integers:
        return generator.integers(*integers[spec.name], size=shape).astype(spec.dtype)
    if spec.name == "point_coords":
        return generator.uniform(0, geometry.image_size, shape).astype(spec.dtype)
    if spec.name == "pointer_age":
        return generator.uniform(0, 2, shape).astype(spec.dtype)
    if spec.name == "mask":
        return (generator.random(shape) < 0.5).astype(spec.dtype)
    normal = generator.standard_normal(shape)
    if spec.name == "mask_logits":
        return decided_logits(normal).astype(spec.dtype)
    return (normal * (10.0 if spec.name == "mask_input" else 1.0)).astype(spec.dtype)
