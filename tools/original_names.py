"""Weights under the tensor names of Meta's checkpoints, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from sam2_edge.models.sam2.key_mapping import POINT, POINT_TABLE, rename


def to_original(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Copy the tensors of transformers' model under the given original names.

    Raises:
        KeyError: The model has no tensor for a name.
    """
    renamed = {}
    for name in names:
        if match := POINT.match(name):
            row = int(match.group(1))
            renamed[name] = state[POINT_TABLE][row : row + 1].clone()
        else:
            renamed[name] = state[rename(name)].clone()
    return renamed
