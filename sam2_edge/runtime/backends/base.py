"""The backend protocol: the interface between `runtime.model` and an inference engine.

Tensors are opaque to the tracker and the memory bank. The backend decides where they live; on a GPU
they stay on the device until they are downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

    from sam2_edge.bundle.contract import Graph

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and numpy dtype name of tensors, by name."""


class Tensor(Protocol):
    """A contiguous tensor on the backend's device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return a view along the first axis: an int selects a row, a slice consecutive rows."""
        ...


class Backend(Protocol):
    """Runs the graphs of one bundle and owns their memory.

    Attributes:
        name: Name in messages.
        on_device: Whether tensors are on a GPU, which runs behind the host: `run` and copies only
            enqueue work, and every download waits for it.
    """

    name: str
    on_device: bool

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph; inputs and outputs are keyed by tensor name.

        Inputs may be views and are not retained. Outputs belong to the caller and stay valid as
        long as it holds them.

        Args:
            graph: The graph.
            inputs: All of its inputs.
            outputs: Tensors or views to write some of its outputs to; the others are allocated.

        Raises:
            BackendError: If the graph fails, or an input does not fit it.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        """Allocate an uninitialized tensor."""
        ...

    def empty_block(self, layout: Layout) -> dict[str, Tensor]:
        """Allocate uninitialized tensors that `download_block` fetches with a single copy."""
        ...

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Copy a host array to a tensor of the same shape and dtype."""
        ...

    def upload_block(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Copy host arrays to tensors of the same shapes and dtypes with a single copy."""
        ...

    def download(self, tensor: Tensor) -> NDArray[Any]:
        """Copy a tensor to a host array that belongs to the caller."""
        ...

    def download_block(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Copy tensors to host arrays that belong to the caller, waiting once."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors or views of equal shape and dtype."""
        ...

    def close(self) -> None:
        """Release engines and memory; tensors must not be used afterward."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
