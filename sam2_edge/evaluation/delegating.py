"""A backend that wraps another one, as a base class for measuring and comparing backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends import Backend, Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class DelegatingBackend:
    """Delegates all calls to another backend; subclasses override `run`."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name, self.on_device = inner.name, inner.on_device
        self.empty, self.empty_block, self.copy = inner.empty, inner.empty_block, inner.copy
        self.upload, self.upload_block = inner.upload, inner.upload_block
        self.download, self.download_block = inner.download, inner.download_block
        self.close = inner.close

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph."""
        return self._inner.run(graph, inputs, outputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
