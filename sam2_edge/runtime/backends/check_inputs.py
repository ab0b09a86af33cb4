"""Seeded inputs of every graph that any machine reproduces bit by bit.

They are made of integer hashes and exact arithmetic, so that engines built on one machine can be
checked on another one against reference outputs without the inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.agreement import decided_logits
from sam2_edge.bundle.contract import LABEL_PAD, MASK_PIXELS, Geometry, GraphSpec, TensorSpec
from sam2_edge.bundle.manifest import Profile
from sam2_edge.runtime.mask_bits import PACKED, column_weights, row_weights

Shape = tuple[int, ...]

_BLOCK = 8
"""Side of the uniform squares of images and masks, pixels: they have edges and areas."""

_NORMAL_SCALE = 3**0.5 / 2**16
"""Makes the sum of four uniform 16-bit numbers, less its mean, a number of variance 1."""

_INTEGERS = {"point_labels": 5, "has_mask": 2, "multimask": 2, "binarize": 2}
"""How many values an integer input has."""

_LOGITS = frozenset({"mask_logits", "mask_input", "object_score"})


@dataclass(frozen=True, slots=True)
class CheckCase:
    """Sizes at which an engine is checked.

    Attributes:
        name: "smallest", "usual", "largest", or "equal rows": the largest with the first object
            in every row of the batch.
        sizes: Size of each dynamic axis.
    """

    name: str
    sizes: Mapping[str, int]

    @property
    def equal_rows(self) -> bool:
        """Whether all objects are the same."""
        return self.name == "equal rows"


def check_cases(profile: Profile) -> list[CheckCase]:
    """Return the cases of an engine; fewer if they coincide."""
    names = ("smallest", "usual", "largest")
    cases: list[CheckCase] = []
    for index, name in enumerate(names):
        sizes = {axis: limits[index] for axis, limits in profile.items()}
        if "R" in sizes:  # more memories than are read would only take space
            sizes["R"] = min(sizes["R"], sizes["M"] * sizes["B"] + 1)
        if all(sizes != case.sizes for case in cases):
            cases.append(CheckCase(name, sizes))
    if cases[-1].sizes.get("B", 1) > 1:
        cases.append(CheckCase("equal rows", cases[-1].sizes))
    return cases


def check_inputs(spec: GraphSpec, case: CheckCase, geometry: Geometry) -> dict[str, NDArray[Any]]:
    """Return the inputs of one case, in the ranges that the runtime uses."""
    inputs = {}
    for tensor in spec.inputs:
        values = _values(spec, tensor, case.sizes, geometry)
        if case.equal_rows and "B" in tensor.axes:
            axis = tensor.axes.index("B")
            values = np.repeat(values.take([0], axis), case.sizes["B"], axis)
        inputs[tensor.name] = np.ascontiguousarray(values, dtype=tensor.dtype)
    return inputs


def rows_of(spec: GraphSpec, inputs: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """Return the inputs of a single row of the batch."""
    axes = {tensor.name: tensor.axes for tensor in spec.inputs}
    return {
        name: np.ascontiguousarray(values.take([row], axes[name].index("B")))
        if "B" in axes[name]
        else values
        for name, values in inputs.items()
    }


def hashes(seed: str, shape: Shape) -> NDArray[np.uint64]:
    """Return uniform 64-bit numbers: SplitMix64, started at a hash of `seed`."""
    start = np.uint64(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little"))
    count = int(np.prod(shape, dtype=np.int64))
    state = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))).reshape(shape)


def _values(
    spec: GraphSpec, tensor: TensorSpec, sizes: Mapping[str, int], geometry: Geometry
) -> NDArray[Any]:
    name, shape = tensor.name, tensor.shape(**sizes)
    seed = f"{spec.graph.value} {name} {shape}"
    if name in _INTEGERS:
        lowest = LABEL_PAD if name == "point_labels" else 0
        return (hashes(seed, shape) % np.uint64(_INTEGERS[name])).astype(np.int64) + lowest
    special = _SPECIAL.get(name)
    if special is not None:
        return special(seed, shape, geometry)
    if name == "memory_rows":
        return _from_the_last(shape) % sizes["R"]
    normal = _normal(seed, shape)
    if name == "mask_logits" and geometry.stride % MASK_PIXELS:
        return decided_logits(normal)
    return normal * (10.0 if name in _LOGITS else 1.0)


def _image(seed: str, shape: Shape, _geometry: Geometry) -> NDArray[Any]:
    """Pixels [1,S,S,3] in uniform squares."""
    blocks = hashes(seed, (1, shape[1] // _BLOCK, shape[2] // _BLOCK, shape[3]))
    return (blocks >> np.uint64(56)).repeat(_BLOCK, 1).repeat(_BLOCK, 2)


def _mask(seed: str, shape: Shape, _geometry: Geometry) -> NDArray[Any]:
    """Masks [B,1,S,S] of uniform squares."""
    blocks = hashes(seed, (*shape[:2], shape[2] // _BLOCK, shape[3] // _BLOCK))
    return (blocks & np.uint64(1)).repeat(_BLOCK, 2).repeat(_BLOCK, 3)


def _coordinates(seed: str, shape: Shape, geometry: Geometry) -> NDArray[Any]:
    """Uniform pixels of the model image."""
    return (hashes(seed, shape) >> np.uint64(11)) * (geometry.image_size * 2.0**-53)


def _from_the_last(shape: Shape) -> NDArray[Any]:
    """Numbers down to 0."""
    return np.arange(int(np.prod(shape)))[::-1].reshape(shape)


def _by_first_axis(shape: Shape) -> NDArray[Any]:
    return np.broadcast_to(np.arange(shape[0])[:, None], shape)


_SPECIAL: dict[str, Callable[[str, Shape, Geometry], NDArray[Any]]] = {
    "image": _image,
    "mask": _mask,
    "point_coords": _coordinates,
    "memory_age": lambda _seed, shape, geometry: _by_first_axis(shape) % geometry.memory_slots,
    "pointer_age": lambda _seed, shape, geometry: _by_first_axis(shape) / geometry.pointers,
    "memory_cells": lambda seed, shape, geometry: (
        hashes(seed, shape) % np.uint64(geometry.embedding_size**2)
    ),
    "row_weights": lambda _seed, shape, geometry: row_weights(geometry.mask_size, shape[0]),
    "column_weights": lambda _seed, shape, geometry: column_weights(
        geometry.mask_size, shape[1] * PACKED
    ),
}
"""Values by name of the input; the others are normal numbers."""


def _normal(seed: str, shape: Shape) -> NDArray[np.float64]:
    """Return numbers of mean 0 and variance 1, nearly normal: sums of four uniform ones."""
    bits = hashes(seed, shape)
    low = np.uint64(0xFFFF)
    total = sum(((bits >> np.uint64(16 * k)) & low).astype(np.int64) for k in range(4))
    return (total - 2 * 0xFFFF) * _NORMAL_SCALE
