"""Tracking objects through a stream of frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError, PromptError, Sam2EdgeError
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.memory.bank import DEFAULT_MAX_COND_FRAMES, MemoryBank, MemoryBatch
from sam2_edge.runtime.memory.policies import (
    MemoryPolicy,
    MemoryPolicyName,
    open_policy,
    policy_slots,
)
from sam2_edge.runtime.memory.policies.objects import ObjectPolicies
from sam2_edge.runtime.memory.token_selection import cells_to_keep
from sam2_edge.runtime.model import Decoded, Decoder, Features
from sam2_edge.runtime.preprocess import Frame, check_frame, model_image
from sam2_edge.runtime.prompts import ModelPrompt, Prompt, model_prompt, prompts_by_object
from sam2_edge.runtime.results import FrameResult, ObjectResult


class VideoTracker:
    """Tracks objects from frame to frame in bounded memory.

    Call `track` with every frame. An object is added by a prompt, given with a frame or, through
    `prompt`, on the frame that was tracked last; there a further prompt refines the object.

    bundle: a bundle folder or a loaded bundle. backend: what runs it, see `BackendName`, or a
    backend that is open for this bundle. threads: CPU threads; None uses all cores.
    max_cond_frames: prompted frames remembered per object, the closest in time.
    recent_memories: last frames whose memory is used, None for as many as the model was trained
    with (6); fewer are faster and not exact. clip_frames: number of frames of the clip where it is
    known: the published predictor scales the ages of pointers by it in clips shorter than 16
    frames. remember_absent: whether frames on which an object is judged absent are remembered, as
    in the published predictor; otherwise its memory waits, no older, until it is seen again.
    memory_policy: which of the decoder's masks is taken and which frames are remembered
    (docs/guides/memory-policies.md): "original" as published, "motion" or "distractor", or an
    object such as `MotionMemory(weight=0.1)`.

    Raises BundleError or BackendError when the bundle cannot be used, Sam2EdgeError for values that
    cannot be or do not go together.
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
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._geometry = loaded.manifest.geometry
        trained = self._geometry.recent_memories
        if recent_memories is not None and recent_memories > trained:
            raise Sam2EdgeError(
                f"recent_memories is {recent_memories}; the model was trained with {trained}, give "
                "that or less"
            )
        policy = open_policy(memory_policy, loaded.manifest.model.name)
        rule = policy_slots(policy, trained, recent_memories)
        _check_engines_hold(loaded, max_cond_frames)
        self._backend: Backend = (
            open_backend(loaded, backend, threads=threads) if isinstance(backend, str) else backend
        )
        self._decoder = Decoder(self._backend, self._geometry)
        self._bank = MemoryBank(
            self._backend,
            self._geometry,
            max_cond_frames=max_cond_frames,
            rule=rule,
            max_batch=loaded.most("B"),
        )
        self._rules = ObjectPolicies(policy, self._backend)
        pointers = self._geometry.pointers
        self._span = pointers if clip_frames is None else min(clip_frames, pointers)
        self._remember_absent = remember_absent
        self._most_points = loaded.most("N")
        self._index = -1
        self._image: NDArray[np.uint8] | None = None
        self._frame_size = (0, 0)
        self._features: Features | None = None
        self._decoded: list[Decoded] = []
        self._results: dict[int, ObjectResult] = {}
        self._tracked: set[int] = set()

    @property
    def frame_index(self) -> int:
        """Number of the current frame, from 0; -1 before the first."""
        return self._index

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects that are tracked, in the order in which they were added."""
        return tuple(self._results)

    def track(self, frame: NDArray[Any], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Go on to the next frame, [H,W,3] uint8 BGR of any size, and find every object on it.

        prompts: objects to add on this frame. An object that is tracked already starts anew from
        its prompt here, without its memory, and remembers this frame as a prompted one, as in the
        published predictor; to correct what the tracker finds, use `prompt` after this call.

        Raises SourceError for a frame and PromptError for a prompt that cannot be used; the tracker
        is then unchanged.
        """
        start = time.perf_counter()
        picture = check_frame(frame)
        size = (picture.shape[0], picture.shape[1])
        image_size = self._geometry.image_size
        wanted = {
            object_id: self._checked(model_prompt(prompt, size, image_size))
            for object_id, prompt in prompts_by_object(prompts).items()
        }
        self._remember()
        self._advance(picture, size)
        known = [i for i in self._results if i not in wanted]
        if known:
            self._track_known(known)
        for object_id, prompt in wanted.items():
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

        Points, labels, box and mask are in the frame's pixels, as in `Prompt`. A refinement sees
        the object's memory and its present mask; give all points of this frame that still hold.

        Raises PromptError, also before the first frame.
        """
        prompt = Prompt(object_id, points, labels, box, mask)
        if self._image is None:
            raise PromptError("there is no frame yet; call track with the first frame")
        checked = model_prompt(prompt, self._frame_size, self._geometry.image_size)
        self._prompt(object_id, self._checked(checked))
        return self._results[object_id]

    def result(self) -> FrameResult:
        """What is known of the current frame, refinements included; no time was spent on it.

        Raises PromptError before the first frame.
        """
        if self._image is None:
            raise PromptError("there is no frame yet; call track with the first frame")
        return self._frame_result(time.perf_counter())

    def latest_memory(
        self, object_id: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """What is remembered of an object's last frame before the current one: memory [m,h,w] and
        pointer [C]. None where nothing is.
        """
        latest = self._bank.latest(object_id)
        if latest is None:
            return None
        memory, pointer = latest
        return self._backend.download(memory), self._backend.download(pointer)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object and forget it.

        Raises PromptError for an unknown id.
        """
        if object_id not in self._results:
            known = ", ".join(map(str, self._results)) or "none"
            raise PromptError(f"object {object_id} is not tracked; tracked are: {known}")
        del self._results[object_id]
        self._drop_decoded(object_id)
        self._bank.remove(object_id)
        self._rules.forget(object_id)
        self._tracked.discard(object_id)

    def reset(self) -> None:
        """Forget every object and frame; the next frame is number 0."""
        self._bank.clear()
        self._rules.clear()
        self._results.clear()
        self._decoded.clear()
        self._tracked.clear()
        self._image = self._features = None
        self._index = -1

    def _checked(self, prompt: ModelPrompt) -> ModelPrompt:
        """The prompt, unless engines take fewer points."""
        if self._most_points is not None and len(prompt.labels) > self._most_points:
            raise PromptError(
                f"{len(prompt.labels)} points, the corners of a box among them; this bundle's "
                f"engines take {self._most_points}: give fewer"
            )
        return prompt

    def _advance(self, picture: Frame, size: tuple[int, int]) -> None:
        self._index += 1
        self._image = model_image(picture, self._geometry.image_size)
        self._frame_size = size
        self._features = None
        self._tracked.clear()

    def _encoded(self) -> Features:
        """Features of the current frame, computed once and only if an object needs them."""
        if self._features is None:
            assert self._image is not None  # callers have a frame
            image = self._backend.upload(self._image)
            self._features = Features(**self._backend.run(Graph.IMAGE_ENCODER, {"image": image}))
        return self._features

    def _track_known(self, object_ids: Sequence[int]) -> None:
        features = self._encoded()
        for batch in self._bank.read(self._index, object_ids, span=self._span):
            conditioned = self._condition(features, batch)
            decoded = self._decoder.track(
                features, conditioned, batch.object_ids, self._rules.choose
            )
            self._accept(decoded)
            self._tracked.update(batch.object_ids)

    def _condition(self, features: Features, batch: MemoryBatch) -> Tensor:
        inputs = {
            "embedding": features.embedding,
            "memory": batch.memory,
            "memory_age": self._backend.upload(batch.memory_age),
            "pointers": batch.pointers,
            "pointer_age": self._backend.upload(batch.pointer_age),
        }
        if batch.memory_cells is not None:
            inputs["memory_cells"] = self._backend.upload(batch.memory_cells)
        return self._backend.run(Graph.MEMORY_ATTENTION, inputs)["conditioned"]

    def _prompt(self, object_id: int, prompt: ModelPrompt) -> None:
        """A prompt on the current frame. Where the object has not been tracked on it, the frame
        becomes a conditioning one and no memory is used (SAM 2, `is_init_cond_frame`).
        """
        features = self._encoded()
        initial = object_id not in self._tracked
        if prompt.mask is not None:
            decoded = self._decoder.mask(features, object_id, prompt.mask, conditioning=initial)
        else:
            conditioned = features.unconditioned
            if not initial:
                (batch,) = self._bank.read(self._index, [object_id], span=self._span)
                conditioned = self._condition(features, batch)
            decoded = self._decoder.prompt(
                features,
                conditioned,
                object_id,
                prompt,
                previous=self._previous_logits(object_id),
                conditioning=initial,
            )
        if initial:
            self._rules.begin(object_id)
        self._drop_decoded(object_id)
        self._accept(decoded)

    def _previous_logits(self, object_id: int) -> NDArray[np.float32] | None:
        """Logits that this frame's earlier result for the object had, if there is one."""
        for decoded in self._decoded:
            if object_id in decoded.object_ids:
                row = decoded.object_ids.index(object_id)
                return self._backend.download(decoded.mask_logits)[row, 0]
        return None

    def _accept(self, decoded: Decoded) -> None:
        self._decoded.append(decoded)
        download = self._backend.download
        logits, iou = download(decoded.mask_logits), download(decoded.iou)
        score = download(decoded.object_score)
        if self._geometry.memory_tokens is not None:
            # Chosen at once, as the arrays of the results are the user's from then on.
            decoded.memory_cells = cells_to_keep(logits[:, 0], self._geometry)
        for row, object_id in enumerate(decoded.object_ids):
            assert object_id is not None  # rows are dropped only later
            found = ObjectResult(
                object_id=int(object_id),
                logits=logits[row, 0],
                iou=float(iou[row]),
                object_score=float(score[row]),
                frame_size=self._frame_size,
            )
            self._results[found.object_id] = found
            self._rules.see(found, from_prompt=decoded.from_prompt)

    def _drop_decoded(self, object_id: int) -> None:
        """Leave the object's present result on this frame out of what will be remembered."""
        for decoded in self._decoded:
            decoded.object_ids = [None if i == object_id else i for i in decoded.object_ids]
        # However often an object is refined on a frame, its earlier masks hold no memory.
        self._decoded = [d for d in self._decoded if any(d.object_ids)]

    def _remember(self) -> None:
        """Write the memory of the frame that ends now.

        It waits until the next frame comes: until then a prompt may still change the masks, and
        the frame's result is out sooner.
        """
        for decoded in self._decoded:
            kept = [() if i is None else self._rules.keep(i) for i in decoded.object_ids]
            self._freeze_absent(decoded)
            if not any(decoded.object_ids):
                continue  # none of them is to be remembered
            memory = None
            if decoded.conditioning or any(kept):
                memory = self._encoded_memory(decoded)
            self._bank.write(
                self._index,
                decoded.object_ids,
                memory,
                decoded.pointer,
                conditioning=decoded.conditioning,
                keep=kept,
                cells=decoded.memory_cells,
            )
        self._decoded.clear()

    def _encoded_memory(self, decoded: Decoded) -> Tensor:
        batch = len(decoded.object_ids)
        assert self._features is not None  # something was decoded from them
        inputs = {
            "embedding": self._features.embedding,
            "mask_logits": decoded.mask_logits,
            "object_score": decoded.object_score,
            "binarize": self._backend.upload(np.full(batch, decoded.from_prompt, np.int32)),
        }
        return self._backend.run(Graph.MEMORY_ENCODER, inputs)["memory"]

    def _freeze_absent(self, decoded: Decoded) -> None:
        """Leave out what is not to be remembered of this frame."""
        for row, object_id in enumerate(decoded.object_ids):
            if object_id is None or decoded.conditioning:
                continue
            score = self._results[object_id].object_score
            if not np.isfinite(score) or (score <= 0 and not self._remember_absent):
                decoded.object_ids[row] = None
                self._bank.freeze(object_id)

    def _frame_result(self, start: float) -> FrameResult:
        return FrameResult(
            index=self._index,
            objects=tuple(self._results.values()),
            frame_size=self._frame_size,
            milliseconds=(time.perf_counter() - start) * 1e3,
        )


def _check_engines_hold(bundle: Bundle, max_cond_frames: int) -> None:
    """Raise BackendError where memory may grow beyond what engines were built for."""
    most = bundle.most("M")
    allowed = None if most is None else most - bundle.manifest.geometry.recent_memories
    if allowed is not None and max_cond_frames > allowed:
        raise BackendError(
            f"max_cond_frames is {max_cond_frames}, the engines of {bundle.path} were built for "
            f"{allowed}; lower it"
        )
