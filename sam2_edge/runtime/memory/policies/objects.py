"""The rules of all objects of a tracker: what each is shown, and what it says, checked."""

from __future__ import annotations

from collections.abc import Collection
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
from sam2_edge.runtime.model import Offered
from sam2_edge.runtime.results import MASK_LOGIT, ObjectResult

EVERY_FRAME = (Keep.RECENT,)


class ObjectPolicies:
    """Rules by object; under a policy without rules it asks nothing and fetches nothing."""

    def __init__(self, policy: MemoryPolicy, backend: Backend) -> None:
        self._policy = policy
        self._backend = backend
        self._rules: dict[int, ObjectPolicy] = {}
        self._outcomes: dict[int, Outcome] = {}

    def begin(self, object_id: int) -> None:
        """Follow an object from the present frame on, as if it had never been there."""
        rule = self._policy.follow()
        if rule is not None:
            self._rules[object_id] = rule

    def forget(self, object_id: int) -> None:
        """Leave an object; unknown ones are no error."""
        self._rules.pop(object_id, None)
        self._outcomes.pop(object_id, None)

    def clear(self) -> None:
        """Leave every object."""
        self._rules.clear()
        self._outcomes.clear()

    def choose(self, offered: Offered) -> dict[int, int]:
        """By row, the masks to take where they are not the decoder's own choice.

        Raises Sam2EdgeError for a rule that names no mask.
        """
        ruled = [row for row, i in enumerate(offered.object_ids) if i in self._rules]
        if not ruled:
            return {}
        iou = self._backend.download(offered.iou)
        scores = self._backend.download(offered.object_score)
        taken = {}
        for row in ruled:
            if not scores[row] > 0:  # of an absent object there is one mask, an empty one
                continue
            offer = MaskCandidates(iou[row], partial(self._backend.download, offered.masks[row]))
            index = self._rules[offered.object_ids[row]].choose(offer)
            if index not in CANDIDATES:
                raise Sam2EdgeError(
                    f"the memory policy {self._policy.name} chose mask {index!r}; it may take "
                    f"{', '.join(map(str, CANDIDATES))}"
                )
            if index != offer.best:
                taken[row] = index
        return taken

    def see(self, found: ObjectResult, *, from_prompt: bool) -> None:
        """Take note of what an object's mask is on this frame, in place of what it was there.

        Noted at once, as the result's arrays are the user's from then on.
        """
        if found.object_id in self._rules:
            mask = found.logits > MASK_LOGIT
            outcome = Outcome(mask, found.iou, found.object_score, from_prompt)
            self._outcomes[found.object_id] = outcome

    def keep(self, object_id: int) -> Collection[Keep]:
        """What the memory of an object's frame, which ends now, is kept as.

        Raises Sam2EdgeError for a rule that names something else.
        """
        rule = self._rules.get(object_id)
        if rule is None:
            return EVERY_FRAME
        kept = rule.keep(self._outcomes[object_id])
        if not (isinstance(kept, Collection) and all(isinstance(kind, Keep) for kind in kept)):
            raise Sam2EdgeError(
                f"the memory policy {self._policy.name} keeps a memory as {kept!r}; it may give "
                "any of Keep.RECENT, Keep.PASSING and Keep.ANCHOR, or nothing"
            )
        return kept
