"""Comparing a bundle with a reference: graph by graph on real inputs, and the whole loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Feeds, Graph
from sam2_edge.errors import PromptError
from sam2_edge.evaluation.differences import difference
from sam2_edge.evaluation.metrics import Mask, boundary_accuracy, region_similarity
from sam2_edge.evaluation.tracker_adapter import Remembered, State, TrackerAdapter, TrackerLoop
from sam2_edge.evaluation.verify.clips import PromptedClip
from sam2_edge.evaluation.verify.comparing import ComparingBackend, Differences
from sam2_edge.evaluation.verify.references import Reference
from sam2_edge.evaluation.verify.tolerances import Budget
from sam2_edge.runtime.backends import Backend
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import mask_of
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame
from sam2_edge.runtime.tracker import VideoTracker

PARTED_BELOW = 0.9
"""Two loops have parted where J of one's mask against the other's is below this."""

WORST_KEPT = 4
"""Frames that are kept to be looked at."""

NOTED_FRAMES = 6
"""Frames, spread over the clip, on which every graph is compared."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Compared:
    """One object on one frame, against the reference.

    j, f: of the masks, 0..1. logits: largest difference of a mask logit, inf where one side alone
    says that the object is absent. memory, pointer: relative L2 difference of what the frame before
    has left to be remembered; None where nothing is.
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
        """Whether the loops no longer say the same."""
        return self.j < PARTED_BELOW or self.present != self.reference_present


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame to look at: the picture [H,W,3] BGR, and the masks of an object on both sides."""

    compared: Compared
    picture: Picture
    mask: Mask
    reference_mask: Mask


@dataclass(slots=True)
class Verification:
    """What was found. graphs, inputs: see `ComparingBackend`."""

    graphs: Differences
    inputs: dict[Graph, Feeds]
    compared: list[Compared] = field(default_factory=list)
    worst: list[Shown] = field(default_factory=list)

    @property
    def j_and_f(self) -> float:
        """Mean over frames and objects."""
        return float(np.mean([(c.j + c.f) / 2 for c in self.compared]))

    @property
    def presence(self) -> float:
        """Share of frames and objects on which both say the same of presence."""
        return float(np.mean([c.present == c.reference_present for c in self.compared]))

    @property
    def first_parting(self) -> Compared | None:
        """Where the loops part for the first time."""
        return next((c for c in self.compared if c.diverged), None)

    def drift(self, name: str) -> float | None:
        """The median over frames of the difference of "memory" or "pointer"."""
        values = [value for c in self.compared if (value := getattr(c, name)) is not None]
        return float(np.median(values)) if values else None

    def objects(self) -> dict[int, list[Compared]]:
        """What was compared, by object."""
        found: dict[int, list[Compared]] = {}
        for compared in self.compared:
            found.setdefault(compared.object_id, []).append(compared)
        return found

    def problems(self, budget: Budget) -> list[str]:
        """Every budget that is broken, in words."""
        found = [
            f"{graph.value}, output {name}: relative difference {worst.relative:.3g}, "
            f"{budget.graph[graph]:g} is allowed"
            for (graph, name), worst in self.graphs.items()
            if not worst.relative <= budget.graph[graph]
        ]
        for name, value, least in (
            ("J&F against the reference", self.j_and_f, budget.j_and_f),
            ("agreement on presence", self.presence, budget.presence),
        ):
            if not value >= least:
                found.append(f"{name} is {value:.4f}, at least {least:g} is asked for")
        for name, most in (("memory", budget.memory), ("pointer", budget.pointer)):
            drift = self.drift(name)
            if drift is not None and not drift <= most:
                found.append(f"{name} differs by {drift:.3g} in the median, {most:g} is allowed")
        return found


def verify(
    bundle: Bundle,
    own: Backend,
    reference: Reference,
    prompted_clip: PromptedClip,
    *,
    prompts: PromptsByFrame | None = None,
    swapped: Collection[Graph] = (),
    recent_memories: int | None = None,
    memory_policy: MemoryPolicyName = "original",
    watch: Callable[[], None] = lambda: None,
) -> Verification:
    """Follow a clip through a bundle and through its reference.

    own: a backend that is open for the bundle. prompts: by frame number; None for those of the
    footage. swapped: graphs of the bundle that the reference runs in its place. recent_memories,
    memory_policy: as for `VideoTracker`, of the bundle's loop alone. watch: called after every
    frame.

    Raises PromptError, BackendError.
    """
    if prompts is not None and not any(prompts.values()):
        raise PromptError("no prompt is given, so there is nothing to follow; give one")
    script = {prompted_clip.numbers[0]: prompted_clip.prompts} if prompts is None else prompts
    beside = ComparingBackend(own, reference.backend, swapped)
    count = len(prompted_clip.numbers)
    tracker = VideoTracker(
        bundle,
        backend=beside,
        clip_frames=count,
        recent_memories=recent_memories,
        memory_policy=memory_policy,
    )
    ours = TrackerLoop(tracker)
    theirs = reference.loop(count)
    noted = frames_to_note(prompted_clip.numbers)
    found = Verification(beside.differences, beside.inputs)
    for frame, picture in zip(prompted_clip.numbers, prompted_clip.pictures, strict=True):
        given = script.get(frame, ())
        beside.noting = frame in noted or bool(given)
        for shown in _step(ours, theirs, frame, picture, given):
            found.compared.append(shown.compared)
            worst = sorted([*found.worst, shown], key=lambda s: s.compared.j)
            found.worst = worst[:WORST_KEPT]
        watch()
    return found


def _step(
    ours: TrackerAdapter,
    theirs: TrackerAdapter,
    frame: int,
    picture: Picture,
    prompts: Sequence[Prompt],
) -> Iterator[Shown]:
    """Follow one frame on both sides and compare every object on it."""
    states, reference_states = (side.follow(picture, prompts) for side in (ours, theirs))
    for object_id, state in states.items():
        kept = (ours.remembered(object_id), theirs.remembered(object_id))
        both = (state, reference_states[object_id])
        yield _compare(frame, object_id, picture, both, kept)


def frames_to_note(frames: Sequence[int], count: int = NOTED_FRAMES) -> frozenset[int]:
    """`count` of the frames, the first two and the last among them, the others evenly between."""
    if len(frames) <= count:
        return frozenset(frames)
    places = np.linspace(1, len(frames) - 1, count - 1).round().astype(int)
    return frozenset([frames[0], *(frames[place] for place in places)])


def _compare(
    frame: int,
    object_id: int,
    picture: Picture,
    states: tuple[State, State],
    kept: tuple[Remembered | None, Remembered | None],
) -> Shown:
    size = (picture.shape[0], picture.shape[1])
    mask, reference_mask = (mask_of(state.logits, size) for state in states)
    memory, pointer = _drift(*kept)
    ours, theirs = states
    one_absent = ours.present != theirs.present
    compared = Compared(
        frame=frame,
        object_id=object_id,
        j=region_similarity(mask, reference_mask),
        f=boundary_accuracy(mask, reference_mask),
        present=ours.present,
        reference_present=theirs.present,
        logits=float("inf") if one_absent else float(np.abs(ours.logits - theirs.logits).max()),
        memory=memory,
        pointer=pointer,
    )
    return Shown(compared, picture, mask, reference_mask)


def _drift(ours: Remembered | None, theirs: Remembered | None) -> tuple[float | None, float | None]:
    if ours is None or theirs is None:
        return None, None
    memory, pointer = (difference(a, b) for a, b in zip(ours, theirs, strict=True))
    assert memory is not None
    assert pointer is not None
    return memory.relative, pointer.relative
