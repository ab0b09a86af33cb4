"""A backend that runs graphs beside another one on the same inputs, or in its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Feeds, Graph
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.differences import CHOSEN, Difference, difference, rows_of_equal_choice
from sam2_edge.runtime.backends import Backend, Tensor

Differences = dict[tuple[Graph, str], Difference]
"""The worst difference of every output of a graph."""


class ComparingBackend(DelegatingBackend):
    """Runs graphs on `own`, those of `swapped` on `reference`; see `Backend`.

    While `noting`, every other graph runs on the reference too, on the same inputs, and
    `differences` keeps how far the outputs are apart. Outputs of the mask decoder that follow from
    its choice are compared where both choose the same mask. `inputs` keeps what each graph was
    given last while noting.
    """

    def __init__(self, own: Backend, reference: Backend, swapped: Collection[Graph] = ()) -> None:
        super().__init__(own)
        self.noting = False
        self.differences: Differences = {}
        self.inputs: dict[Graph, Feeds] = {}
        self._reference, self._swapped = reference, frozenset(swapped)

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Backend.run`."""
        if self.noting:
            self.inputs[graph] = {n: self._own.download(tensor) for n, tensor in inputs.items()}
        if graph in self._swapped:
            theirs = self._on_reference(graph, inputs)
            return {name: self._own.upload(array) for name, array in theirs.items()}
        outputs = self._own.run(graph, inputs)
        if self.noting:
            ours = {name: self._own.download(tensor) for name, tensor in outputs.items()}
            self._note(graph, ours, self._on_reference(graph, inputs))
        return outputs

    def _on_reference(
        self, graph: Graph, inputs: Mapping[str, Tensor]
    ) -> dict[str, NDArray[np.float32]]:
        feeds = {
            name: self._reference.upload(self._own.download(tensor))
            for name, tensor in inputs.items()
        }
        outputs = self._reference.run(graph, feeds)
        return {name: self._reference.download(tensor) for name, tensor in outputs.items()}

    def _note(
        self, graph: Graph, got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]]
    ) -> None:
        alike = rows_of_equal_choice(got, want)
        for name in got:
            rows = alike if name in CHOSEN else slice(None)
            found = difference(got[name][rows], want[name][rows])
            if found is not None:
                before = self.differences.get((graph, name), found)
                self.differences[graph, name] = found.worse(before)
