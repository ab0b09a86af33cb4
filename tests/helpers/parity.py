"""Compares the runtime with the PyTorch loop, prompt by prompt and frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sam2_edge import Bundle, ObjectResult, Prompt, VideoTracker
from sam2_edge.bundle.contract import BFLOAT16_TOLERANCE, PARITY_TOLERANCE
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceResult, ReferenceTracker
from sam2_edge.runtime.results import full_size

TOLERANCES = {"none": PARITY_TOLERANCE["fp32"], "bfloat16": BFLOAT16_TOLERANCE}
"""Absolute, on mask logits, by the rounding of stored memory."""

ROUNDED_MEDIAN = 1e-3
"""With rounded memory, the median over frames of the largest difference: without rounding on one
side it is 2.7e-3 and more."""

UNDECIDED = 4e-5
"""Several times the difference of two fp32 implementations of this model."""


def reference_prompt(prompt: Prompt) -> ReferencePrompt:
    """Return the same prompt for PyTorch, on a frame of the model's size."""
    if prompt.mask is not None:
        return ReferencePrompt(mask=torch.from_numpy(prompt.mask.astype(np.float32)))
    coords, labels = [], []
    if prompt.box is not None:
        x1, y1, x2, y2 = prompt.box
        coords += [[x1, y1], [x2, y2]]
        labels += [2, 3]
    if prompt.points is not None:
        coords += list(prompt.points)
        labels += list(prompt.labels) if prompt.labels is not None else [1] * len(prompt.points)
    return ReferencePrompt(torch.tensor(coords, dtype=torch.float32), torch.tensor(labels))


@dataclass
class Pair:
    """The runtime and PyTorch side by side; every step is compared immediately."""

    tracker: VideoTracker
    reference: ReferenceTracker
    tolerance: float
    seen: list[ObjectResult] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, bundle: Bundle, model: PreTrainedModel, clip_frames: int | None = None) -> Pair:
        rounding = bundle.manifest.memory.rounding
        tracker = VideoTracker(bundle, threads=1, clip_frames=clip_frames)
        reference = ReferenceTracker(model, clip_frames=clip_frames, memory_rounding=rounding)
        return cls(tracker, reference, TOLERANCES[rounding])

    def track(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> None:
        got = self.tracker.track(frame, prompts)
        image = torch.from_numpy(frame[..., ::-1].copy())
        wanted = {p.object_id: reference_prompt(p) for p in prompts}
        self._compare(got.objects, self.reference.track(image, wanted))
        for object_id in wanted:
            self._assert_decided(got[object_id])

    def track_all(
        self,
        frames: Iterable[NDArray[np.uint8]],
        prompts: Mapping[int, Sequence[Prompt]],
    ) -> None:
        """Track frames, with prompts by frame number."""
        for index, frame in enumerate(frames):
            self.track(frame, prompts.get(index, ()))

    def prompt(self, prompt: Prompt) -> None:
        got = self.tracker.prompt(
            prompt.object_id,
            points=prompt.points,
            labels=prompt.labels,
            box=prompt.box,
            mask=prompt.mask,
        )
        want = self.reference.prompt(prompt.object_id, reference_prompt(prompt))
        self._compare([got], {prompt.object_id: want})
        self._assert_decided(got)

    def remove(self, object_id: int) -> None:
        self.tracker.remove(object_id)
        self.reference.remove(object_id)

    def _assert_decided(self, result: ObjectResult) -> None:
        """Check that no pixel of a prompted mask is too close to zero.

        Its memory is made from the binarized mask. Where the order of a sum decides a pixel, the
        loops may rightly diverge by more than the strict tolerance.
        """
        if self.tolerance >= BFLOAT16_TOLERANCE:
            return
        size = self.tracker._model.geometry.image_size
        closest = float(np.abs(full_size(result.logits, (size, size))).min())
        assert closest > UNDECIDED, f"choose another prompt: a logit is {closest:.1e} from zero"

    def _compare(self, got: Sequence[ObjectResult], want: Mapping[int, ReferenceResult]) -> None:
        assert {r.object_id for r in got} == want.keys()
        for result in got:
            expected = want[result.object_id]
            logits = expected.logits.numpy()
            np.testing.assert_allclose(result.logits, logits, rtol=0, atol=self.tolerance)
            self.differences.append(float(np.abs(result.logits - logits).max()))
            sure = np.abs(logits) > self.tolerance
            np.testing.assert_array_equal(result.logits[sure] > 0, logits[sure] > 0)
            assert abs(result.object_score - expected.object_score) < self.tolerance
            assert abs(result.iou - expected.iou) < self.tolerance
            self.seen.append(result)

    def assert_meaningful(self, min_share: float = 0.5) -> None:
        """Check that the comparison is meaningful and that rounding affects single frames only.

        Most masks must be neither empty nor full, and their logits must vary.
        """
        assert np.median(self.differences) < ROUNDED_MEDIAN
        varied = [
            r for r in self.seen if 0.02 < (r.logits > 0).mean() < 0.98 and r.logits.std() > 0.5
        ]
        assert len(varied) >= min_share * len(self.seen)
