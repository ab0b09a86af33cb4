"""Tracking objects through a stream of frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.errors import BackendError, PromptError, Sam2EdgeError
from sam2_edge.runtime.backends import Backend, BackendName, Tensor
from sam2_edge.runtime.memory.bank import DEFAULT_MAX_COND_FRAMES, MemoryBank
from sam2_edge.runtime.memory.policies import (
    MemoryPolicy,
    MemoryPolicyName,
    open_policy,
    policy_slots,
)
from sam2_edge.runtime.memory.policies.objects import ObjectPolicies
from sam2_edge.runtime.memory.token_selection import select_cells
from sam2_edge.runtime.model import (
    MASK_PROMPT_SCORE,
    DecoderOutput,
    Features,
    clamp_logits,
    open_model,
)
from sam2_edge.runtime.preprocess import check_frame, model_image
from sam2_edge.runtime.prompts import ModelPrompt, Prompt, model_prompt, prompts_by_object
from sam2_edge.runtime.results import FrameResult, ObjectResult


@dataclass(slots=True)
class _Batch:
    """Objects decoded together on the current frame; on the device until memory is written.

    Attributes:
        object_ids: Of each row.
        current: Whether a row is still its object's result on this frame.
        mask_logits: [B, 1, s, s].
        pointer: [B, C].
        object_score: [B].
        iou: [B].
        conditioning: The frame conditions later ones.
        from_prompt: A prompt made these masks, so memory is made from the binarized masks.
        memory_cells: [B, N] int32, the cells of their memories to attend to; None for all.
    """

    object_ids: tuple[int, ...]
    current: NDArray[np.bool_]
    mask_logits: Tensor
    pointer: Tensor
    object_score: Tensor
    iou: Tensor
    conditioning: bool
    from_prompt: bool
    memory_cells: NDArray[np.int32] | None = None


class VideoTracker:
    """Tracks objects from frame to frame in bounded memory.

    Call `track` with every frame. A prompt adds an object, either together with a frame or, with
    `prompt`, on the latest frame, where further prompts refine it.

    Args:
        bundle: A bundle, its folder, or the name of a bundled model.
        backend: What runs the graphs: a name, or a backend that is open for this bundle.
        threads: CPU threads; None for all cores.
        max_cond_frames: Conditioning (prompted) frames kept per object, the closest in time.
        recent_memories: Latest frames whose memory is used; None for as many as the model was
            trained with (6). Fewer are faster and not exact.
        clip_frames: Number of frames of the clip, where it is known. The published predictor
            scales the ages of pointers by it in clips of fewer than 16 frames.
        remember_absent: Whether to store memory of frames on which an object is judged absent, as
            the published predictor does. Otherwise its memory is frozen, and does not age, until
            the object is seen again.
        memory_policy: Which of the decoder's masks is taken and which frames are remembered:
            "original" as published, or the experimental "motion" and "distractor", or an object
            such as `MotionMemory(weight=0.1)`.

    Raises:
        BundleError: If the bundle cannot be used.
        BackendError: If the backend is missing or cannot run the bundle.
        Sam2EdgeError: For invalid or conflicting arguments.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: BackendName | Backend = "auto",
        threads: int | None = None,
        max_cond_frames: int = DEFAULT_MAX_COND_FRAMES,
        recent_memories: int | None = None,
        clip_frames: int | None = None,
        remember_absent: bool = True,
        memory_policy: MemoryPolicyName | MemoryPolicy = "original",
    ) -> None:
        for name, value in (
            ("max_cond_frames", max_cond_frames),
            ("recent_memories", recent_memories),
            ("clip_frames", clip_frames),
        ):
            if value is not None and value < 1:
                raise Sam2EdgeError(f"{name} is {value}; give 1 or more")
        self._model = open_model(bundle, backend, threads=threads)
        geometry = self._model.geometry
        if recent_memories is not None and recent_memories > geometry.recent_memories:
            raise Sam2EdgeError(
                f"recent_memories is {recent_memories}; the model was trained with "
                f"{geometry.recent_memories}, give that or less"
            )
        _check_engines_hold(self._model.bundle, max_cond_frames)
        policy = open_policy(memory_policy, self._model.bundle.manifest.model.name)
        self._bank = MemoryBank(
            self._model.backend,
            geometry,
            max_cond_frames=max_cond_frames,
            slot_policy=policy_slots(policy, geometry.recent_memories, recent_memories),
            max_batch=self._model.max_objects,
        )
        self._policies = ObjectPolicies(policy, self._model.backend)
        self._span = min(clip_frames or geometry.pointers, geometry.pointers)
        self._remember_absent = remember_absent
        self._index = -1
        self._image: NDArray[np.uint8] | None = None
        self._frame_size = (0, 0)
        self._features: Features | None = None
        self._batches: list[_Batch] = []
        self._results: dict[int, ObjectResult] = {}
        self._tracked: set[int] = set()

    @property
    def frame_index(self) -> int:
        """Number of the current frame, from 0; -1 before the first."""
        return self._index

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the tracked objects, in the order in which they were added."""
        return tuple(self._results)

    def track(self, frame: NDArray[Any], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Advance to the next frame and find every object on it.

        Args:
            frame: [H, W, 3] uint8 BGR of any size.
            prompts: Objects to add on this frame. An object that is already tracked starts over
                from its prompt, without its memory, as in the published predictor; to correct
                what the tracker finds, call `prompt` after `track`.

        Raises:
            SourceError: For a frame that cannot be used; the tracker is unchanged.
            PromptError: For a prompt that cannot be used; the tracker is unchanged.
        """
        start = time.perf_counter()
        picture = check_frame(frame)
        size = (picture.shape[0], picture.shape[1])
        given = {i: self._checked(p, size) for i, p in prompts_by_object(prompts).items()}
        self._remember()
        self._index += 1
        self._image = model_image(picture, self._model.geometry.image_size)
        self._frame_size = size
        self._features = None
        self._tracked.clear()
        known = [i for i in self._results if i not in given]
        if known:
            self._track_known(known)
        for object_id, prompt in given.items():
            self._prompt(object_id, prompt)
        return self._frame_result(start)

    def prompt(
        self,
        object_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
    ) -> ObjectResult:
        """Add an object on the current frame, or refine it there.

        A refinement sees the object's memory and its present mask. Give all points of this frame
        that still hold. Points, labels, box and mask are as in `Prompt`.

        Raises:
            PromptError: For a prompt that cannot be used, and before the first frame.
        """
        self._check_frame()
        prompt = Prompt(object_id, points, labels, box, mask)
        self._prompt(object_id, self._checked(prompt, self._frame_size))
        return self._results[object_id]

    def result(self) -> FrameResult:
        """Return the objects on the current frame, refinements included.

        Raises:
            PromptError: Before the first frame.
        """
        self._check_frame()
        return self._frame_result(time.perf_counter())

    def latest_memory(
        self, object_id: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return an object's newest memory [m, h, w] and pointer [C]; None if it has none."""
        latest = self._bank.latest(object_id)
        if latest is None:
            return None
        memory, pointer = latest
        return self._model.backend.download(memory), self._model.backend.download(pointer)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object and drop its memory.

        Raises:
            PromptError: For an unknown id.
        """
        if object_id not in self._results:
            known = ", ".join(map(str, self._results)) or "none"
            raise PromptError(f"object {object_id} is not tracked; tracked are: {known}")
        del self._results[object_id]
        self._discard(object_id)
        self._bank.remove(object_id)
        self._policies.forget(object_id)
        self._tracked.discard(object_id)

    def reset(self) -> None:
        """Drop every object and frame; the next frame is number 0."""
        self._bank.clear()
        self._policies.clear()
        self._results.clear()
        self._batches.clear()
        self._tracked.clear()
        self._image = self._features = None
        self._index = -1

    def _check_frame(self) -> None:
        if self._image is None:
            raise PromptError("there is no frame yet; call track with the first frame")

    def _checked(self, prompt: Prompt, frame_size: tuple[int, int]) -> ModelPrompt:
        checked = model_prompt(prompt, frame_size, self._model.geometry.image_size)
        self._model.check_points(len(checked.labels))
        return checked

    def _encoded(self) -> Features:
        """Features of the current frame, computed once and only if an object needs them."""
        if self._features is None:
            assert self._image is not None  # callers have a frame
            self._features = self._model.encode(self._image)
        return self._features

    def _track_known(self, object_ids: Sequence[int]) -> None:
        """Find objects that are not prompted on this frame."""
        features = self._encoded()
        for ids, inputs in self._bank.read(self._index, object_ids, span=self._span):
            conditioned = self._model.attend(features, inputs)
            output = self._model.decode(features, conditioned, multimask=True)
            batch = _batch(ids, output, conditioning=False, from_prompt=False)
            chosen = self._policies.choose(ids, output)
            if chosen:
                self._replace_masks(batch, output, chosen)
            self._accept(batch)
            self._tracked.update(ids)

    def _prompt(self, object_id: int, prompt: ModelPrompt) -> None:
        """Find one object by its prompt.

        If the object has not been tracked on this frame, the frame becomes a conditioning one and
        no memory is used (SAM 2, `is_init_cond_frame`).
        """
        features, initial = self._encoded(), object_id not in self._tracked
        if prompt.mask is not None:
            logits, pointer = self._model.decode_mask(features, prompt.mask)
            upload = self._model.backend.upload
            batch = _Batch(
                object_ids=(object_id,),
                current=np.ones(1, np.bool_),
                mask_logits=logits,
                pointer=pointer,
                object_score=upload(np.array([MASK_PROMPT_SCORE], np.float32)),
                iou=upload(np.ones(1, np.float32)),
                conditioning=initial,
                from_prompt=True,
            )
        else:
            conditioned = features.unconditioned
            if not initial:
                ((_, inputs),) = self._bank.read(self._index, [object_id], span=self._span)
                conditioned = self._model.attend(features, inputs)
            output = self._model.decode(
                features,
                conditioned,
                prompt,
                multimask=prompt.wants_multimask,
                mask_input=self._previous_logits(object_id),
            )
            batch = _batch((object_id,), output, conditioning=initial, from_prompt=True)
        if initial:
            self._policies.begin(object_id)
        self._discard(object_id)
        self._accept(batch)

    def _previous_logits(self, object_id: int) -> NDArray[np.float32] | None:
        """The object's logits [1, 1, s, s] from an earlier result on this frame."""
        for batch in self._batches:
            for row in np.flatnonzero(batch.current):
                if batch.object_ids[row] == object_id:
                    return clamp_logits(self._model.backend.download(batch.mask_logits)[row][None])
        return None

    def _replace_masks(self, batch: _Batch, output: DecoderOutput, chosen: dict[int, int]) -> None:
        """Replace the decoder's choice, by row, with other masks of its output."""
        backend = self._model.backend
        iou, offered = backend.download(batch.iou), backend.download(output.iou)
        for row, index in chosen.items():
            backend.copy(output.masks[row][index], batch.mask_logits[row][0])
            backend.copy(output.mask_pointers[row][index], batch.pointer[row])
            iou[row] = offered[row, index]
        batch.iou = backend.upload(iou)

    def _accept(self, batch: _Batch) -> None:
        """Make a batch the present result of its objects."""
        self._batches.append(batch)
        download = self._model.backend.download
        logits, iou = download(batch.mask_logits), download(batch.iou)
        score = download(batch.object_score)
        if self._model.geometry.memory_tokens is not None:
            # Selected now: the arrays of the results belong to the user afterwards.
            batch.memory_cells = select_cells(logits[:, 0], self._model.geometry)
        for row, object_id in enumerate(batch.object_ids):
            found = ObjectResult(
                object_id=int(object_id),
                logits=logits[row, 0],
                iou=float(iou[row]),
                object_score=float(score[row]),
                frame_size=self._frame_size,
            )
            self._results[found.object_id] = found
            self._policies.observe(found, from_prompt=batch.from_prompt)

    def _discard(self, object_id: int) -> None:
        """Leave the object's present result on this frame out of what will be remembered."""
        for batch in self._batches:
            batch.current &= np.array([i != object_id for i in batch.object_ids])
        # Masks of a frame that is refined many times must not pile up.
        self._batches = [batch for batch in self._batches if batch.current.any()]

    def _remember(self) -> None:
        """Write the memory of the frame that ends.

        This happens when the next frame arrives: until then a prompt may change the masks, and
        the frame's result is out sooner.
        """
        for batch in self._batches:
            keep = [
                self._policies.keep(i) if current else ()
                for i, current in zip(batch.object_ids, batch.current, strict=True)
            ]
            self._freeze_absent(batch)
            if not batch.current.any():
                continue
            memory = None
            if batch.conditioning or any(keep):
                memory = self._model.encode_memory(
                    self._encoded(),
                    batch.mask_logits,
                    batch.object_score,
                    binarize=batch.from_prompt,
                )
            self._bank.write(
                self._index,
                batch.object_ids,
                memory,
                batch.pointer,
                rows=batch.current,
                conditioning=batch.conditioning,
                keep=keep,
                cells=batch.memory_cells,
            )
        self._batches.clear()

    def _freeze_absent(self, batch: _Batch) -> None:
        """Leave out absent objects that are not to be remembered."""
        if batch.conditioning:
            return
        for row in np.flatnonzero(batch.current):
            object_id = batch.object_ids[row]
            score = self._results[object_id].object_score
            if not np.isfinite(score) or (score <= 0 and not self._remember_absent):
                batch.current[row] = False
                self._bank.freeze(object_id)

    def _frame_result(self, start: float) -> FrameResult:
        return FrameResult(
            index=self._index,
            objects=tuple(self._results.values()),
            frame_size=self._frame_size,
            milliseconds=(time.perf_counter() - start) * 1e3,
        )


def _batch(
    object_ids: tuple[int, ...], output: DecoderOutput, *, conditioning: bool, from_prompt: bool
) -> _Batch:
    return _Batch(
        object_ids=object_ids,
        current=np.ones(len(object_ids), np.bool_),
        mask_logits=output.best_mask,
        pointer=output.pointer,
        object_score=output.object_score,
        iou=output.best_iou,
        conditioning=conditioning,
        from_prompt=from_prompt,
    )


def _check_engines_hold(bundle: Bundle, max_cond_frames: int) -> None:
    """Raise BackendError if memory may grow beyond what the engines were built for."""
    limit = bundle.max_size("M")
    allowed = None if limit is None else limit - bundle.manifest.geometry.recent_memories
    if allowed is not None and max_cond_frames > allowed:
        raise BackendError(
            f"max_cond_frames is {max_cond_frames}; the engines of {bundle.path} were built for "
            f"{allowed}; lower it"
        )
