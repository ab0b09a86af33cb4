"""The policies of all objects of a tracker: what each is shown and what it decides, checked."""

from __future__ import annotations

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
    """Policies by object: `objects`, which is empty under "original"."""

    def __init__(self, policy: MemoryPolicy, backend: Backend) -> None:
        self._policy = policy
        self._backend = backend
        self.objects: dict[int, ObjectPolicy] = {}
        self._outcomes: dict[int, Outcome] = {}

    def begin(self, object_id: int) -> None:
        """Start over with an object on the present frame."""
        policy = self._policy.follow()
        if policy is not None:
            self.objects[object_id] = policy

    def forget(self, object_id: int) -> None:
        """Drop an object, if it is known."""
        self.objects.pop(object_id, None)
        self._outcomes.pop(object_id, None)

    def clear(self) -> None:
        """Drop every object."""
        self.objects.clear()
        self._outcomes.clear()

    def choose(self, object_ids: Sequence[int], output: DecoderOutput) -> dict[int, int]:
        """Return, by row, the masks to take in place of the decoder's own choice.

        Raises:
            Sam2EdgeError: If a policy names something that is not a mask.
        """
        rows = [row for row, i in enumerate(object_ids) if i in self.objects]
        if not rows:
            return {}
        download = self._backend.download
        iou, scores = download(output.iou), download(output.object_score)
        chosen = {}
        for row in rows:
            if not scores[row] > 0:  # an absent object has one mask, which is empty
                continue
            candidates = MaskCandidates(iou[row], partial(download, output.masks[row]))
            index = self.objects[object_ids[row]].choose(candidates)
            if index not in CANDIDATES:
                raise Sam2EdgeError(
                    f"the memory policy {self._policy.name} chose mask {index!r}; it may take "
                    f"{', '.join(map(str, CANDIDATES))}"
                )
            if index != candidates.best:
                chosen[row] = index
        return chosen

    def observe(self, found: ObjectResult, *, from_prompt: bool) -> None:
        """Record an object's mask on this frame, in place of an earlier one.

        This happens at once: the result's arrays belong to the user afterwards.
        """
        if found.object_id in self.objects:
            mask = found.logits > MASK_LOGIT
            outcome = Outcome(mask, found.iou, found.object_score, from_prompt)
            self._outcomes[found.object_id] = outcome

    def keep(self, object_id: int) -> Collection[Keep]:
        """Return what the memory of the frame that ends is kept as.

        Raises:
            Sam2EdgeError: If a policy returns something that is not a collection of `Keep`.
        """
        policy = self.objects.get(object_id)
        if policy is None:
            return EVERY_FRAME
        kept = policy.keep(self._outcomes[object_id])
        if not (isinstance(kept, Collection) and all(isinstance(kind, Keep) for kind in kept)):
            raise Sam2EdgeError(
                f"the memory policy {self._policy.name} keeps a memory as {kept!r}; it may return "
                "any of Keep.RECENT, Keep.TRANSIENT and Keep.ANCHOR, or nothing"
            )
        return kept
