"""Tracking objects through a stream of frames."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import PromptError
from sam2_edge.runtime.backends import Backend, BackendName
from sam2_edge.runtime.decoded import DecodedBatch
from sam2_edge.runtime.memory.bank import DEFAULT_MAX_COND_FRAMES, MemoryBank
from sam2_edge.runtime.memory.pending import PendingFrame
from sam2_edge.runtime.memory.policies import (
    MemoryPolicy,
    MemoryPolicyName,
    open_policy,
    policy_slots,
)
from sam2_edge.runtime.memory.policies.objects import ObjectPolicies
from sam2_edge.runtime.memory.saved import SavedObject
from sam2_edge.runtime.memory.token_selection import select_cells
from sam2_edge.runtime.model import Features, NotCopyable, clamp_logits, open_model
from sam2_edge.runtime.preprocess import PreparedFrame, prepare_frame
from sam2_edge.runtime.prompts import (
    ModelPrompt,
    Prompt,
    checked_name,
    model_prompt,
    prompts_by_object,
)
from sam2_edge.runtime.readout import BITS, Readout
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.tracker_limits import check_memories, check_numbers


class VideoTracker(NotCopyable):
    """Tracks objects from frame to frame in bounded memory.

    Call `track` with every frame. Prompts passed to `track` add objects. `prompt` adds an object on
    the current frame, or refines one.

    Args:
        bundle: A bundle, its folder, or the name of a bundled model.
        backend: Name of a backend, or a backend opened for this bundle.
        threads: CPU threads; None for all cores.
        max_cond_frames: Conditioning (prompted) frames kept per object, the closest in time.
        recent_memories: Number of recent frames whose memory is used; None for the number that the
            model was trained with (6). Fewer are faster but not exact.
        clip_frames: Number of frames in the clip, if known. The published predictor normalizes
            pointer ages by it in clips of fewer than 16 frames.
        remember_absent: Whether to store memories of frames on which an object is judged absent, as
            the published predictor does. Otherwise the object's memory is frozen, and does not age,
            until it reappears.
        memory_policy: How masks and remembered frames are chosen: "original" as published, the
            experimental "motion" or "distractor", or a policy such as `MotionMemory(weight=0.1)`.
        logits: Whether every result keeps its logits. Otherwise, on a GPU, results have masks, and
            logits can be read until the next frame is tracked. On a CPU they always have logits.

    Raises:
        BundleError: If the bundle cannot be used.
        BackendError: If the backend is missing or cannot run the bundle.
        Sam2EdgeError: If arguments are invalid or conflict.
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
        logits: bool = False,
    ) -> None:
        check_numbers(
            max_cond_frames=max_cond_frames,
            recent_memories=recent_memories,
            clip_frames=clip_frames,
        )
        self._model = open_model(bundle, backend, threads=threads)
        geometry = self._model.geometry
        check_memories(self._model.bundle, max_cond_frames, recent_memories)
        policy = open_policy(memory_policy, self._model.bundle.manifest.model.name)
        self._bank = MemoryBank(
            self._model.backend,
            geometry,
            max_cond_frames=max_cond_frames,
            slot_policy=policy_slots(policy, geometry.recent_memories, recent_memories),
            max_batch=self._model.max_attention,
            max_rows=self._model.bundle.max_size(Graph.MEMORY_ATTENTION, "R"),
        )
        self._policies = ObjectPolicies(policy, self._model.backend)
        self._pending = PendingFrame(
            self._model, self._bank, self._policies, remember_absent=remember_absent
        )
        # Policies and the choice of tokens look at the masks as the decoder made them.
        needed = logits or policy.name != "original" or geometry.memory_tokens is not None
        self._readout = Readout(self._model, logits=needed)
        self._span = min(clip_frames or geometry.pointers, geometry.pointers)
        self._index = -1
        self._image: NDArray[np.uint8] | None = None
        self._frame_size = (0, 0)
        self._features: Features | None = None
        self._results: dict[int, ObjectResult] = {}
        self._tracked: set[int] = set()
        self._names: dict[int, str] = {}

    @property
    def frame_index(self) -> int:
        """Number of the current frame, from 0; -1 before the first."""
        return self._index

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the tracked objects, in the order in which they were added."""
        return tuple(self._results)

    @property
    def names(self) -> dict[int, str]:
        """Names of the tracked objects that have one, by id."""
        return {object_id: name for object_id, name in self._names.items() if name}

    @property
    def on_device(self) -> bool:
        """Whether the model runs beside the CPU, on a GPU."""
        return self._model.backend.on_device

    def prepare(self, frame: NDArray[Any]) -> PreparedFrame:
        """Check and resize a frame for `track`; any thread may do so while another tracks.

        Args:
            frame: [H, W, 3] uint8 BGR of any size; it is not needed afterwards.

        Raises:
            SourceError: If the frame is invalid.
        """
        return prepare_frame(frame, self._model.geometry.image_size)

    def track(
        self, frame: NDArray[Any] | PreparedFrame, prompts: Sequence[Prompt] = ()
    ) -> FrameResult:
        """Advance to the next frame and find every object on it.

        Args:
            frame: [H, W, 3] uint8 BGR of any size, or what `prepare` made of it.
            prompts: Objects to add on this frame. As in the published predictor, an object that is
                already tracked starts over from its prompt, without its memory; to correct its
                mask instead, call `prompt` after `track`.

        Raises:
            SourceError: If the frame is invalid; the tracker is unchanged.
            PromptError: If a prompt is invalid; the tracker is unchanged.
        """
        start = time.perf_counter()
        prepared = prepare_frame(frame, self._model.geometry.image_size)
        size = prepared.size
        checked: dict[int, ModelPrompt] = {}
        if prompts:
            checked = {i: self._checked(p, size) for i, p in prompts_by_object(prompts).items()}
        names = {p.object_id: checked_name(p.name) for p in prompts if p.name is not None}
        self._pending.write(self._index, self._features, self._results)
        self._index += 1
        self._image, self._frame_size = prepared.pixels, size
        self._features = None
        self._tracked.clear()
        unprompted = [i for i in self._results if i not in checked]
        if unprompted:
            self._track_unprompted(unprompted)
        for object_id, prompt in checked.items():
            self._prompt(object_id, prompt)
        for object_id, name in names.items():
            self.rename(object_id, name)
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
        """Add an object on the current frame, or refine it.

        A refinement starts from the object's memory and its current mask. Repeat the earlier points
        on this frame that still apply. Points, labels, box and mask are as in `Prompt`.

        Raises:
            PromptError: If the prompt is invalid, or there is no frame yet.
        """
        self._check_frame()
        prompt = Prompt(object_id, points, labels, box, mask)
        self._prompt(object_id, self._checked(prompt, self._frame_size))
        return self._results[object_id]

    def rename(self, object_id: int, name: str) -> None:
        """Give a tracked object a name, which is in the results from now on; empty for none.

        Raises:
            PromptError: If the object is not tracked, or the name is not one of `checked_name`.
        """
        self._check_tracked(object_id)
        self._names[object_id] = checked_name(name)

    def result(self) -> FrameResult:
        """Return the objects on the current frame, including refinements.

        Raises:
            PromptError: If there is no frame yet.
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
        return self._model.backend.download(memory).astype(np.float32), pointer

    def remove(self, object_id: int) -> None:
        """Stop tracking an object and drop its memory.

        Raises:
            PromptError: If the object is not tracked.
        """
        self._check_tracked(object_id)
        del self._results[object_id]
        self._names.pop(object_id, None)
        self._pending.discard(object_id)
        self._bank.remove(object_id)
        self._policies.forget(object_id)
        self._tracked.discard(object_id)

    def save(self, object_id: int) -> SavedObject:
        """Copy all that is known of an object on the current frame to the host, for `restore`.

        Raises:
            PromptError: If the object is not tracked.
        """
        self._check_tracked(object_id)
        assert self._image is not None  # there is an object, so there is a frame
        return SavedObject(
            frame_index=self._index,
            image=weakref.ref(self._image),
            object_id=object_id,
            name=self._names.get(object_id, ""),
            tracked=object_id in self._tracked,
            decoding=self._pending.save(object_id, self._encoded()),
            memories=self._bank.save(object_id),
            policy=self._policies.save(object_id),
        )

    def restore(self, saved: SavedObject) -> None:
        """Bring an object back as it was saved, whether or not it is tracked now.

        On the frame on which it was saved, everything is as it was. On another one it is tracked
        from the memory that it had, as if the frames in between had not been.
        """
        self._check_frame()
        object_id = saved.object_id
        self._bank.restore(object_id, saved.memories)
        self._policies.restore(object_id, saved.policy)
        if saved.image() is self._image:
            batch = self._pending.restore(object_id, saved.decoding)
            (self._results[object_id],) = self._readout.read(batch, self._frame_size)
            (self._tracked.add if saved.tracked else self._tracked.discard)(object_id)
        else:
            self._pending.write_saved(saved, self._index)
            self._track_unprompted([object_id])
        self.rename(object_id, saved.name)

    def reset(self) -> None:
        """Drop every object and frame; the next frame is number 0."""
        self._bank.clear()
        self._policies.clear()
        self._results.clear()
        self._names.clear()
        self._pending.clear()
        self._tracked.clear()
        self._image = self._features = None
        self._index = -1

    def close(self) -> None:
        """Release all memory, and the backend unless it was passed in; ends the tracker's use."""
        self.reset()
        self._model.close()

    def __enter__(self) -> VideoTracker:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _check_tracked(self, object_id: int) -> None:
        if object_id not in self._results:
            tracked = ", ".join(map(str, self._results)) or "none"
            raise PromptError(f"object {object_id} is not tracked; tracked objects: {tracked}")

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

    def _track_unprompted(self, object_ids: Sequence[int]) -> None:
        features = self._encoded()
        ordered = self._bank.in_batches(self._index, object_ids)
        size = self._model.max_objects or len(ordered)
        for start in range(0, len(ordered), size):
            ids = tuple(ordered[start : start + size])
            batches = self._bank.read(self._index, ids, span=self._span)
            conditioned = self._model.attend(features, *batches)
            outputs = self._readout.allocate(len(ids), self._frame_size)
            bits = outputs.pop(BITS, None)
            output = self._model.decode(features, conditioned, multimask=True, outputs=outputs)
            batch = DecodedBatch.of(ids, output, bits=bits)
            if self._policies.objects:
                chosen = self._policies.choose(ids, output)
                batch.replace_masks(output, chosen, self._model.backend)
            self._accept(batch)
            self._tracked.update(ids)

    def _prompt(self, object_id: int, prompt: ModelPrompt) -> None:
        """Find one object from its prompt.

        If the object has not been tracked on this frame, the frame becomes a conditioning frame,
        and no memory is used (SAM 2, `is_init_cond_frame`).
        """
        features, initial = self._encoded(), object_id not in self._tracked
        if prompt.mask is not None:
            logits, pointer = self._model.decode_mask(features, prompt.mask)
            batch = DecodedBatch.of_mask(
                object_id, logits, pointer, self._model.backend, conditioning=initial
            )
        else:
            conditioned = features.unconditioned
            if not initial:
                batches = self._bank.read(self._index, [object_id], span=self._span)
                conditioned = self._model.attend(features, *batches)
            previous = self._pending.logits(object_id)
            output = self._model.decode(
                features,
                conditioned,
                prompt,
                multimask=prompt.wants_multimask,
                mask_input=None if previous is None else clamp_logits(previous),
            )
            batch = DecodedBatch.of((object_id,), output, conditioning=initial, from_prompt=True)
        if initial:
            self._policies.begin(object_id)
        self._pending.discard(object_id)
        self._accept(batch)

    def _accept(self, batch: DecodedBatch) -> None:
        """Make a batch the current result of its objects."""
        self._pending.add(batch)
        results = self._readout.read(batch, self._frame_size)
        if self._model.geometry.memory_tokens is not None:
            # Select them now: afterwards the caller owns the result arrays and may modify them.
            logits = np.stack([result.logits for result in results])
            batch.memory_cells = select_cells(logits, self._model.geometry)
        for result in results:
            self._results[result.object_id] = result
            if self._policies.objects:
                self._policies.observe(result, from_prompt=batch.from_prompt)

    def _frame_result(self, start: float) -> FrameResult:
        return FrameResult(
            index=self._index,
            objects=tuple(self._results.values()),
            frame_size=self._frame_size,
            milliseconds=(time.perf_counter() - start) * 1e3,
            names=self.names,
        )
