"""Compares a bundle with a reference: graph by graph on real inputs, and the whole loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.agreement import CHOSEN, rows_of_equal_choice
from sam2_edge.bundle.contract import Feeds, Geometry, Graph, graph_specs
from sam2_edge.evaluation.clips import PromptedClip
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.differences import Difference, difference
from sam2_edge.evaluation.metrics import Mask, boundary_accuracy, region_similarity
from sam2_edge.evaluation.tracker import MemoryAndPointer, Tracker
from sam2_edge.evaluation.verify.references import Reference
from sam2_edge.evaluation.verify.tolerances import Tolerances
from sam2_edge.runtime.backends import Backend, Tensor
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.memory.rows import used_rows
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import ObjectResult
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame
from sam2_edge.runtime.tracker import VideoTracker

DIVERGED_BELOW = 0.9
"""The loops have diverged on an object if J between their masks is below this."""

WORST_KEPT = 4
"""Number of frames to show in the report."""

COMPARED_FRAMES = 6
"""Number of frames, spread over the clip, on which all graphs are compared."""

Differences = dict[tuple[Graph, str], Difference]
"""The worst difference of every output of a graph."""


@dataclass(frozen=True, slots=True)
class ObjectComparison:
    """Comparison of one object on one frame.

    Attributes:
        frame: Number of the frame.
        object_id: Id of the object.
        j: J between the two masks.
        f: F between the two masks.
        present: Whether the bundle judges the object present.
        reference_present: Whether the reference does.
        logits: Maximum absolute difference of the mask logits; infinite if presence differs.
        memory: Relative L2 difference of the memory of the previous frame; None without one.
        pointer: The same for the object pointer.
    """

    frame: int
    object_id: int
    j: float
    f: float
    present: bool
    reference_present: bool
    logits: float
    memory: float | None
    pointer: float | None

    @property
    def diverged(self) -> bool:
        """Whether the loops disagree on this object."""
        return self.j < DIVERGED_BELOW or self.present != self.reference_present


@dataclass(frozen=True, slots=True)
class WorstFrame:
    """A frame for the report: its picture [H, W, 3] BGR, and both masks [H, W]."""

    comparison: ObjectComparison
    picture: Frame
    mask: Mask
    reference_mask: Mask


@dataclass(slots=True)
class Verification:
    """Result of comparing a bundle with its reference.

    Attributes:
        graphs: Differences of the graphs that ran on both sides.
        inputs: The last recorded inputs of each graph.
        comparisons: Every object on every frame, in order.
        worst: The `WORST_KEPT` entries with the lowest J.
    """

    graphs: Differences
    inputs: dict[Graph, Feeds]
    comparisons: list[ObjectComparison] = field(default_factory=list)
    worst: list[WorstFrame] = field(default_factory=list)

    @property
    def j_and_f(self) -> float:
        """Mean J&F over frames and objects."""
        return float(np.mean([(c.j + c.f) / 2 for c in self.comparisons]))

    @property
    def presence(self) -> float:
        """Share of frames and objects with the same presence on both sides."""
        return float(np.mean([c.present == c.reference_present for c in self.comparisons]))

    @property
    def first_divergence(self) -> ObjectComparison | None:
        """The first frame and object on which the loops diverge."""
        return next((c for c in self.comparisons if c.diverged), None)

    @property
    def diverged_at(self) -> str:
        """Where the loops diverge, in words."""
        first = self.first_divergence
        return "never" if first is None else f"at frame {first.frame}, object {first.object_id}"

    def drift(self, name: str) -> float | None:
        """Return the median difference of "memory" or "pointer" over frames; None without any."""
        values = [value for c in self.comparisons if (value := getattr(c, name)) is not None]
        return float(np.median(values)) if values else None

    def by_object(self) -> dict[int, list[ObjectComparison]]:
        """Group the comparisons by object id."""
        groups: dict[int, list[ObjectComparison]] = {}
        for comparison in self.comparisons:
            groups.setdefault(comparison.object_id, []).append(comparison)
        return groups

    def problems(self, tolerances: Tolerances) -> list[str]:
        """Describe every violated tolerance; NaN violates all."""
        problems = [
            f"{graph.value}, output {name}: relative L2 difference {worst.relative_l2:.3g}, at "
            f"most {tolerances.graph[graph]:g} is allowed"
            for (graph, name), worst in self.graphs.items()
            if not worst.relative_l2 <= tolerances.graph[graph]
        ]
        for name, value, lower in (
            ("J&F against the reference", self.j_and_f, tolerances.j_and_f),
            ("agreement on presence", self.presence, tolerances.presence),
        ):
            if not value >= lower:
                problems.append(f"{name} is {value:.4f}, at least {lower:g} is required")
        for name, upper in (("memory", tolerances.memory), ("pointer", tolerances.pointer)):
            drift = self.drift(name)
            if drift is not None and not drift <= upper:
                problems.append(
                    f"median {name} difference {drift:.3g}, at most {upper:g} is allowed"
                )
        return problems


def verify(
    bundle: Bundle,
    backend: Backend,
    reference: Reference,
    clip: PromptedClip,
    *,
    prompts: PromptsByFrame | None = None,
    swapped: Collection[Graph] = (),
    recent_memories: int | None = None,
    memory_policy: MemoryPolicyName = "original",
    on_progress: Callable[[], None] = lambda: None,
) -> Verification:
    """Track a clip with a bundle and with its reference, and compare them.

    Args:
        bundle: The bundle to verify.
        backend: Backend opened for the bundle.
        reference: The reference to compare with.
        clip: The frames.
        prompts: Prompts by frame number; None or empty for those of the clip.
        swapped: Graphs that the bundle's loop runs on the reference.
        recent_memories: As for `VideoTracker`; for the bundle's loop only.
        memory_policy: As for `VideoTracker`; for the bundle's loop only.
        on_progress: Called after every frame.

    Raises:
        PromptError: If a prompt is invalid.
        BackendError: If a graph cannot run.
    """
    script = prompts or {clip.numbers[0]: clip.prompts}
    comparing = ComparingBackend(backend, reference.backend, bundle.manifest.geometry, swapped)
    tracker: Tracker = VideoTracker(
        bundle,
        backend=comparing,
        clip_frames=len(clip.numbers),
        recent_memories=recent_memories,
        memory_policy=memory_policy,
    )
    other = reference.make_tracker(len(clip.numbers))
    recorded = frames_to_compare(clip.numbers)
    verification = Verification(comparing.differences, comparing.inputs)
    for frame, picture in zip(clip.numbers, clip.pictures, strict=True):
        on_frame = script.get(frame, ())
        comparing.recording = frame in recorded or bool(on_frame)
        ours, theirs = tracker.track(picture, on_frame), other.track(picture, on_frame)
        for result in ours.objects:
            expected = theirs[result.object_id]
            memories = (side.latest_memory(result.object_id) for side in (tracker, other))
            compared = _compare(frame, result, expected, *memories)
            verification.comparisons.append(compared)
            candidate = WorstFrame(compared, picture, result.mask, expected.mask)
            worst = sorted([*verification.worst, candidate], key=lambda s: s.comparison.j)
            verification.worst = worst[:WORST_KEPT]
        on_progress()
    return verification


def frames_to_compare(frames: Sequence[int]) -> frozenset[int]:
    """Choose `COMPARED_FRAMES`: the first two, the last, and others spread evenly between."""
    if len(frames) <= COMPARED_FRAMES:
        return frozenset(frames)
    indices = np.linspace(1, len(frames) - 1, COMPARED_FRAMES - 1).round().astype(int)
    return frozenset([frames[0], *(frames[index] for index in indices)])


class ComparingBackend(DelegatingBackend):
    """Runs graphs on one backend, but those in `swapped` on the reference.

    While `recording`, the others also run on the reference with the same inputs, which updates
    `differences` and `inputs`. Outputs of the mask decoder that depend on its choice of mask are
    only compared if both sides choose the same one.
    """

    def __init__(
        self,
        inner: Backend,
        reference: Backend,
        geometry: Geometry,
        swapped: Collection[Graph] = (),
    ) -> None:
        super().__init__(inner)
        self._specs = graph_specs(geometry)
        self.recording = False
        self.differences: Differences = {}
        self.inputs: dict[Graph, Feeds] = {}
        self._reference, self._swapped = reference, frozenset(swapped)

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph, and compare it while recording."""
        swapped = graph in self._swapped
        # Masks at the size of the frame have no weights, and no counterpart in PyTorch.
        if not (self.recording or swapped) or graph is Graph.MASK_BITS:
            return self._inner.run(graph, inputs, outputs)
        feeds = {name: self._inner.download(tensor) for name, tensor in inputs.items()}
        if graph is Graph.MEMORY_ATTENTION:
            stored = used_rows(feeds["memory"], feeds["memory_rows"])
            feeds["memory"], feeds["memory_rows"] = stored
        if self.recording:
            self.inputs[graph] = feeds
        if swapped:
            made = self._upload(graph, self._run_reference(graph, feeds))
            for name, target in (outputs or {}).items():
                self._inner.copy(made[name], target)
            return {**made, **(outputs or {})}
        made = self._inner.run(graph, inputs, outputs)
        got = {name: self._inner.download(tensor) for name, tensor in made.items()}
        self._record(graph, got, self._run_reference(graph, feeds))
        return made

    def _upload(self, graph: Graph, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        dtypes = {output.name: output.dtype for output in self._specs[graph].outputs}
        return {
            name: self._inner.upload(array.astype(dtypes[name])) for name, array in arrays.items()
        }

    def _run_reference(
        self, graph: Graph, feeds: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[np.float32]]:
        inputs = {name: self._reference.upload(array) for name, array in feeds.items()}
        outputs = self._reference.run(graph, inputs)
        return {name: self._reference.download(tensor) for name, tensor in outputs.items()}

    def _record(
        self, graph: Graph, got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]]
    ) -> None:
        comparable = rows_of_equal_choice(got, want)
        for name in got:
            rows = comparable if name in CHOSEN else slice(None)
            result = difference(got[name][rows], want[name][rows])
            if result is not None:
                previous = self.differences.get((graph, name), result)
                self.differences[graph, name] = result.worse(previous)


def _compare(
    frame: int,
    ours: ObjectResult,
    theirs: ObjectResult,
    our_memory: MemoryAndPointer | None,
    their_memory: MemoryAndPointer | None,
) -> ObjectComparison:
    memory = pointer = None
    if our_memory is not None and their_memory is not None:
        memory, pointer = map(_relative_l2, our_memory, their_memory)
    one_absent = ours.present != theirs.present
    return ObjectComparison(
        frame=frame,
        object_id=ours.object_id,
        j=region_similarity(ours.mask, theirs.mask),
        f=boundary_accuracy(ours.mask, theirs.mask),
        present=ours.present,
        reference_present=theirs.present,
        logits=float("inf") if one_absent else float(np.abs(ours.logits - theirs.logits).max()),
        memory=memory,
        pointer=pointer,
    )


def _relative_l2(got: NDArray[Any], want: NDArray[Any]) -> float:
    result = difference(got, want)
    assert result is not None  # memories are not empty
    return result.relative_l2
