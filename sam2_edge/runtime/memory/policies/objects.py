"""The policies of a tracker's objects; validates their decisions."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from functools import partial

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.backends.base import Backend
from sam2_edge.runtime.memory.policies.base import (
    CANDIDATES,
    MaskCandidates,
    MemoryPolicy,
    ObjectPolicy,
    Outcome,
)
from sam2_edge.runtime.memory.slots import Keep
from sam2_edge.runtime.model import DecoderOutput
from sam2_edge.runtime.results import MASK_LOGIT, ObjectResult

EVERY_FRAME = (Keep.RECENT,)


class ObjectPolicies:
    """Policies by object. "original" has none: `objects` is empty."""

    def __init__(self, policy: MemoryPolicy, backend: Backend) -> None:
        self._policy = policy
        self._backend = backend
        self.objects: dict[int, ObjectPolicy] = {}
        self._outcomes: dict[int, Outcome] = {}

    def begin(self, object_id: int) -> None:
        """Start or restart an object on the current frame."""
        policy = self._policy.follow()
        if policy is not None:
            self.objects[object_id] = policy

    def forget(self, object_id: int) -> None:
        """Drop an object, if it is known."""
        self.objects.pop(object_id, None)
        self._outcomes.pop(object_id, None)

    def save(self, object_id: int) -> tuple[ObjectPolicy, Outcome | None] | None:
        """Copy an object's policy and the outcome that it has for this frame."""
        policy = self.objects.get(object_id)
        outcome = self._outcomes.get(object_id)
        return None if policy is None else (copy.deepcopy(policy), outcome)

    def restore(self, object_id: int, saved: tuple[ObjectPolicy, Outcome | None] | None) -> None:
        """Replace an object's policy by a saved one; None drops it."""
        self.forget(object_id)
        if saved is None:
            return
        policy, outcome = saved
        self.objects[object_id] = copy.deepcopy(policy)
        if outcome is not None:
            self._outcomes[object_id] = outcome

    def clear(self) -> None:
        """Drop every object."""
        self.objects.clear()
        self._outcomes.clear()

    def choose(self, object_ids: Sequence[int], output: DecoderOutput) -> dict[int, int]:
        """Return, by row, the masks to use instead of the decoder's own choice.

        Raises:
            Sam2EdgeError: If a policy chooses an invalid mask.
        """
        rows = [row for row, i in enumerate(object_ids) if i in self.objects]
        if not rows:
            return {}
        download = self._backend.download
        iou, scores = download(output.iou), download(output.object_score)
        chosen = {}
        for row in rows:
            if not scores[row] > 0:  # the mask of an absent object is empty in any case
                continue
            candidates = MaskCandidates(iou[row], partial(download, output.masks[row]))
            index = self.objects[object_ids[row]].choose(candidates)
            if index not in CANDIDATES:
                raise Sam2EdgeError(
                    f"the memory policy {self._policy.name} chose mask {index!r}; it may choose "
                    f"{', '.join(map(str, CANDIDATES))}"
                )
            if index != candidates.best:
                chosen[row] = index
        return chosen

    def observe(self, result: ObjectResult, *, from_prompt: bool) -> None:
        """Record an object's result on this frame, replacing an earlier one.

        The mask is copied now, because the caller owns the result's arrays afterwards.
        """
        if result.object_id in self.objects:
            mask = result.logits > MASK_LOGIT
            outcome = Outcome(mask, result.iou, result.object_score, from_prompt)
            self._outcomes[result.object_id] = outcome

    def keep(self, object_id: int) -> Collection[Keep]:
        """Return how to keep an object's memory of the frame that ends.

        Raises:
            Sam2EdgeError: If a policy does not return a collection of `Keep`.
        """
        policy = self.objects.get(object_id)
        if policy is None:
            return EVERY_FRAME
        kept = policy.keep(self._outcomes[object_id])
        if not (isinstance(kept, Collection) and all(isinstance(kind, Keep) for kind in kept)):
            raise Sam2EdgeError(
                f"the memory policy {self._policy.name} keeps a memory as {kept!r}; it may return "
                "a collection of Keep.RECENT, Keep.TRANSIENT and Keep.ANCHOR, which may be empty"
            )
        return kept
