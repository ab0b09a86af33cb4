"""The contents of manifest.json: a versioned model of a bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sam2_edge.bundle.contract import (
    MAX_IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    FeatureDtype,
    Geometry,
    Graph,
    GraphTarget,
    MemoryRounding,
    Precision,
    TensorSpec,
)
from sam2_edge.errors import printable

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 3

Text = Annotated[str, AfterValidator(printable)]
"""A name that is shown: escaped, since files may have names that are not UTF-8 or control a
terminal."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Entry):
    """A file of the bundle: path inside the folder, and sha256 of its bytes."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


_AxisSize = Annotated[int, Field(ge=1, le=65_536)]

Profile = dict[str, tuple[_AxisSize, _AxisSize, _AxisSize]]
"""Min, opt and max size of each dynamic axis of an engine."""


class EngineEntry(_Entry):
    """What a TensorRT engine was built with and for.

    It runs only with that version, on GPUs of those compute capabilities (major, minor).

    Attributes:
        profile: The sizes that it takes.
        activation_bytes: GPU memory for what lies between its layers, at the largest sizes of the
            profile; None if TensorRT did not say. All engines of a bundle share it.
    """

    variant: Literal["tensorrt", "tensorrt-rtx"]
    version: Text
    compute_capabilities: tuple[tuple[int, int], ...]
    profile: Profile
    activation_bytes: int | None = Field(default=None, ge=0)

    @field_validator("profile")
    @classmethod
    def _check_order(cls, profile: Profile) -> Profile:
        for axis, sizes in profile.items():
            if list(sizes) != sorted(sizes):
                raise ValueError(f"{axis} has min, opt and max {sizes}; they must not decrease")
        return profile


class CalibrationEntry(_Entry):
    """What a graph was calibrated with.

    A float16 graph has only source and frames, which showed the values that are too large for it.

    Attributes:
        source: Name of the file, folder or camera.
        frames: Numbers of the frames used.
        method: How ranges were chosen.
        ranges: Min and max of every quantized tensor.
        left_out: Layers that stayed in float to meet the budget.
        sensitivity: With a budget, the graph's relative error with one layer alone in INT8, worst
            first.
    """

    source: Text
    frames: tuple[int, ...]
    method: Literal["minmax", "percentile", "entropy"] | None = None
    ranges: dict[str, tuple[float, float]] = {}
    left_out: tuple[Text, ...] = ()
    sensitivity: dict[Text, float] = {}


class GraphEntry(FileEntry):
    """One graph.

    Attributes:
        data: Files of weights beside the graph.
        parity: By output, the largest difference of the ONNX graph to its PyTorch module at export,
            relative to max(1, largest magnitude); of memory rounded to bfloat16, what exceeds one
            rounding step. On seeded inputs, or those of calibration.
        engine: Set if the file is a TensorRT engine, otherwise it is ONNX.
    """

    backend: Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: tuple[FileEntry, ...] = ()
    parity: dict[str, float] = {}
    engine: EngineEntry | None = None
    calibration: CalibrationEntry | None = None

    @model_validator(mode="after")
    def _check_backend(self) -> GraphEntry:
        runs = self.engine.variant if self.engine else "onnxruntime"
        if self.backend != runs:
            raise ValueError(f"backend {self.backend!r}, but its file is for {runs!r}")
        return self

    @property
    def difference(self) -> float:
        """The largest value of `parity`."""
        return max(self.parity.values(), default=0.0)


class ModelEntry(_Entry):
    """Where the weights come from; sha256 is None for random weights."""

    name: Text
    family: Literal["sam2", "sam2.1", "edgetam", "sam3"]
    source: Text
    sha256: str | None


class MemoryEntry(_Entry):
    """Geometry of the memory.

    Attributes:
        rounding: How the memory encoder rounds what is stored, beyond its dtype.
        latents: Tokens of a memory that is a list of latents; None if it is a grid of cells.
        tokens: Tokens of each memory that attention sees; None for all.
    """

    slots: int = Field(ge=2, le=64)
    pointers: int = Field(ge=2, le=256)
    channels: int = Field(ge=1, le=1024)
    hidden: int = Field(ge=8, le=1024, multiple_of=8)
    rounding: MemoryRounding
    latents: int | None = Field(default=None, ge=1, le=65_536)
    tokens: int | None = Field(default=None, ge=1)


class NormalizationEntry(_Entry):
    """Mean and standard deviation of RGB in 0..1; applied inside the image encoder."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Manifest(_Entry):
    """The contents of manifest.json.

    Attributes:
        stride: Pixels of the model input along the side of a cell of the embedding.
        image_size: Side of the square model input, pixels.
        target: What the graphs are written for.
        feature_dtype: Dtype of features and memories between graphs.
        reference: With engines, samples of the outputs that they must give.
    """

    format_version: Literal[3]
    sam2_edge_version: Text
    model: ModelEntry
    stride: int = Field(default=16, ge=4, le=64)
    image_size: int
    normalization: NormalizationEntry
    memory: MemoryEntry
    target: GraphTarget
    feature_dtype: FeatureDtype
    graphs: dict[Graph, GraphEntry]
    reference: FileEntry | None = None

    @property
    def activation_bytes(self) -> int | None:
        """Memory of the block that all engines share; None without engines, or if unknown."""
        sizes = [entry.engine.activation_bytes for entry in self.graphs.values() if entry.engine]
        known = [size for size in sizes if size is not None]
        return max(known) if sizes and len(known) == len(sizes) else None

    @field_validator("image_size")
    @classmethod
    def _check_image_size(cls, size: int, info: ValidationInfo) -> int:
        stride = info.data.get("stride", 1)
        if not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE or size % stride:
            raise ValueError(
                f"it must be a multiple of {stride} from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
            )
        return size

    @model_validator(mode="after")
    def _check_tokens(self) -> Manifest:
        cells = (self.image_size // self.stride) ** 2
        tokens = self.memory.tokens
        if tokens is not None and self.memory.latents is not None:
            raise ValueError("memory.tokens selects cells, but this memory is a list of latents")
        if tokens is not None and tokens >= cells:
            raise ValueError(f"memory.tokens is {tokens}, of {cells} in a memory")
        return self

    @property
    def geometry(self) -> Geometry:
        """The sizes that fix every tensor."""
        return Geometry(
            image_size=self.image_size,
            hidden=self.memory.hidden,
            memory_channels=self.memory.channels,
            memory_slots=self.memory.slots,
            pointers=self.memory.pointers,
            stride=self.stride,
            memory_latents=self.memory.latents,
            memory_tokens=self.memory.tokens,
            feature_dtype=self.feature_dtype,
        )
