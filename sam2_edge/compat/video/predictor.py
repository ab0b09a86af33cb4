"""`SAM2VideoPredictor`: prompts on any frame of a video, in any order, and propagation both ways.

Behaves as `sam2` 1.1.0 does (`sam2_video_predictor.py`), but for memory: frames are read as they
are needed, and results lie in a file.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.compat.model import Sam2Model
from sam2_edge.compat.video.conditioning import Reach, conditioning
from sam2_edge.compat.video.frames import open_frames
from sam2_edge.compat.video.inputs import joined, mask_prompt, points_prompt
from sam2_edge.compat.video.masks import OutputKind, fill_holes, output_converter, video_masks
from sam2_edge.compat.video.spool import FrameOutput, Spool
from sam2_edge.compat.video.state import InferenceState, Track
from sam2_edge.compat.video.steps import Found, decode, decode_mask, encode_memory
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import Features, MemoryInputs
from sam2_edge.runtime.prompts import ModelPrompt

Answer = tuple[int, list[Any], Any]
"""Frame, ids of all objects, and their mask logits [N,1,H,W] float32 at the video's size."""


class SAM2VideoPredictor:
    """Segments and tracks objects through a video, interactively.

    model: see `open_model`. fill_hole_area: holes of at most so many pixels of the low-resolution
    mask are filled. non_overlap_masks: a pixel belongs to one object at most.
    clear_non_cond_mem_around_input: a prompt forgets the tracked frames around it.
    add_all_frames_to_correct_as_cond: a corrected frame becomes a conditioning one.
    binarize_mask_from_pts_for_mem_enc, dynamic_multimask_via_stability: as `apply_postprocessing`
    of the builder sets them. max_cond_frames_in_attn: conditioning frames used on a frame, the
    closest; -1 for all. memory_temporal_stride_for_eval: see `Reach`. output: see `OutputKind`.

    All but model and output may be changed at any time, as in the original.
    """

    def __init__(
        self,
        model: Sam2Model,
        *,
        fill_hole_area: int = 0,
        non_overlap_masks: bool = False,
        clear_non_cond_mem_around_input: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
        binarize_mask_from_pts_for_mem_enc: bool = False,
        dynamic_multimask_via_stability: bool = False,
        max_cond_frames_in_attn: int = -1,
        memory_temporal_stride_for_eval: int = 1,
        output: OutputKind = "numpy",
    ) -> None:
        if max_cond_frames_in_attn != -1 and max_cond_frames_in_attn < 2:
            raise Sam2EdgeError(
                f"max_cond_frames_in_attn is {max_cond_frames_in_attn}; give 2 or more, or -1"
            )
        if memory_temporal_stride_for_eval < 1:
            raise Sam2EdgeError(
                f"memory_temporal_stride_for_eval is {memory_temporal_stride_for_eval}; give 1 or "
                "more"
            )
        self.fill_hole_area = fill_hole_area
        self.non_overlap_masks = non_overlap_masks
        self.clear_non_cond_mem_around_input = clear_non_cond_mem_around_input
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        self.binarize_mask_from_pts_for_mem_enc = binarize_mask_from_pts_for_mem_enc
        self.dynamic_multimask_via_stability = dynamic_multimask_via_stability
        self.max_cond_frames_in_attn = max_cond_frames_in_attn
        self.memory_temporal_stride_for_eval = memory_temporal_stride_for_eval
        self._model = model
        self._geometry = model.graphs.geometry
        self._graphs = model.graphs
        self._give = output_converter(output)

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
        """See `build_sam2_video_predictor_hf`."""
        from sam2_edge.compat.build import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    @property
    def model(self) -> Sam2Model:
        """What the predictor runs, with its present option for unstable masks."""
        by_stability = self.dynamic_multimask_via_stability
        return replace(self._model, dynamic_multimask_via_stability=by_stability)

    @property
    def bundle(self) -> Bundle:
        """The model's bundle."""
        return self._model.bundle

    @property
    def image_size(self) -> int:
        """Side of the square model input, pixels."""
        return self._model.image_size

    def init_state(
        self,
        video_path: str | Path,
        offload_video_to_cpu: bool = False,  # noqa: ARG002, FBT001, FBT002 # the original's signature
        offload_state_to_cpu: bool = False,  # noqa: ARG002, FBT001, FBT002
        async_loading_frames: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> InferenceState:
        """Begin with a video: a folder of images, or a video file.

        The three options have no effect: frames are read when they are needed, and results are
        stored on disk.

        Raises SourceError when there is nothing to read.
        """
        frames = open_frames(video_path, self.image_size)
        rounding = self.bundle.manifest.memory.rounding
        return InferenceState(frames, Spool(self._geometry, rounding))

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,  # noqa: FBT001, FBT002 # the original's signature
        normalize_coords: bool = True,  # noqa: FBT001, FBT002
        box: Any = None,
    ) -> Answer:
        """Click on an object, known or new, on a frame, or draw a box around it.

        points: [N,2] of x, y. labels: [N], 1 foreground, 0 background. box: x1, y1, x2, y2.
        clear_old_points: forget the points that the frame has. normalize_coords: coordinates are
        pixels of the video; otherwise shares of its width and height.

        Raises PromptError for a prompt that cannot be used; nothing has changed then.
        """
        state = inference_state
        state.check_frame(frame_idx)
        if box is not None and not clear_old_points:
            raise PromptError(
                "a box comes before any points, so it cannot be added to old ones; give "
                "clear_old_points=True"
            )
        prompt = points_prompt(
            points,
            labels,
            box,
            frame_size=state.size,
            image_size=self.image_size,
            normalize=normalize_coords,
        )
        track = state.known_or_new(obj_id)
        if not clear_old_points:
            prompt = joined(track.points.get(frame_idx), prompt)
        self._graphs.check_points(len(prompt.labels))
        found, cond = self._click(state, frame_idx, track, prompt)
        track.points[frame_idx] = prompt
        track.masks.discard(frame_idx)
        return self._prompted(state, frame_idx, obj_id, track, found, cond=cond)

    def add_new_points(self, *args: Any, **kwargs: Any) -> Answer:
        """The former name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> Answer:
        """Say with a mask [H,W] of any size what an object, known or new, is on a frame.

        An empty mask says that it is not there.

        Raises PromptError for a mask that cannot be used; nothing has changed then.
        """
        state = inference_state
        state.check_frame(frame_idx)
        prompt = mask_prompt(mask, self.image_size)
        assert prompt.mask is not None  # it was given
        track = state.known_or_new(obj_id)
        found = decode_mask(self._graphs, self._features(state, frame_idx), prompt.mask)
        track.masks.add(frame_idx)
        track.points.pop(frame_idx, None)
        cond = self._conditions(track, frame_idx)
        return self._prompted(state, frame_idx, obj_id, track, found, cond=cond)

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Settle what was prompted since the last propagation, so that other frames may see it.

        Raises PromptError where an object has no prompt.
        """
        state = inference_state
        if not state.tracks:
            raise PromptError("no object has been prompted; add points, a box or a mask first")
        for object_id, track in state.tracks.items():
            for cond in (False, True):
                pending = track.pending.of_kind(cond=cond)
                for frame, output in pending.items():
                    self._remember(state, frame, output)
                    track.settled.of_kind(cond=cond)[frame] = output
                    self._forget_around(track, frame)
                pending.clear()
            if not track.settled.cond:
                raise PromptError(
                    f"object {object_id!r} has no prompt; add points, a box or a mask first"
                )
            for frame in track.settled.cond:
                track.settled.non_cond.pop(frame, None)

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,  # noqa: FBT001, FBT002 # the original's signature
    ) -> Iterator[Answer]:
        """Track every object from a frame on, or back from it in reverse, and yield each frame.

        start_frame_idx: the earliest conditioning frame if left out. max_frame_num_to_track: frames
        after the first; all if left out.

        Raises PromptError where an object has no prompt, or was removed meanwhile.
        """
        state = inference_state
        self.propagate_in_video_preflight(state)
        tracks = dict(state.tracks)
        if start_frame_idx is None:
            start_frame_idx = min(t for track in tracks.values() for t in track.settled.cond)
        for frame in state.order(start_frame_idx, max_frame_num_to_track, reverse=reverse):
            logits = []
            for object_id, track in tracks.items():
                if state.tracks.get(object_id) is not track:
                    raise PromptError(
                        f"object {object_id!r} was removed while it was tracked; call "
                        "propagate_in_video again"
                    )
                logits.append(self._propagate(state, frame, track, reverse=reverse))
            masks = video_masks(logits, state.size, exclusive=self.non_overlap_masks)
            yield frame, list(tracks), self._give(masks)

    def clear_all_prompts_in_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        need_output: bool = True,  # noqa: FBT001, FBT002 # the original's signature
    ) -> Answer | None:
        """Forget an object's prompts on a frame. What was found there stays, as on an ordinary
        frame.

        Raises PromptError for an unknown object.
        """
        state = inference_state
        state.check_frame(frame_idx)
        state.track(obj_id).clear_prompts(frame_idx)
        if not need_output:
            return None
        return self._answer(state, frame_idx, cond=state.pending_cond(frame_idx))

    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: Hashable,
        strict: bool = False,  # noqa: FBT001, FBT002 # the original's signature
        need_output: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[list[Any], list[tuple[int, Any]]]:
        """Forget an object; gives the ids that are left, and for every frame on which it was
        prompted the masks of the others.

        Raises PromptError for an unknown object, if `strict`.
        """
        state = inference_state
        if obj_id not in state.tracks and not strict:
            return list(state.tracks), []
        track = state.track(obj_id)
        del state.tracks[obj_id]
        if not state.tracks or not need_output:
            return list(state.tracks), []
        updated = []
        for frame in sorted({*track.points, *track.masks}):
            _, _, masks = self._answer(state, frame, cond=state.pending_cond(frame))
            updated.append((frame, masks))
        return list(state.tracks), updated

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget every object and prompt."""
        inference_state.tracks.clear()

    def _click(
        self, state: InferenceState, frame: int, track: Track, prompt: ModelPrompt
    ) -> tuple[Found, bool]:
        """The object by its points on a frame, and whether that conditions other frames."""
        cond = self._conditions(track, frame)
        previous = track.pending.of_kind(cond=cond).get(frame) or track.settled.find(frame)
        seen = None
        if frame in track.tracked:
            seen = self._seen(state, frame, track, reverse=track.tracked[frame])
        found = decode(
            self._graphs,
            self._features(state, frame),
            seen,
            prompt,
            previous=None if previous is None else previous.logits,
            by_stability=self.dynamic_multimask_via_stability,
        )
        return found, cond

    def _conditions(self, track: Track, frame: int) -> bool:
        """Whether a prompt on this frame makes it a conditioning one."""
        return frame not in track.tracked or self.add_all_frames_to_correct_as_cond

    def _prompted(
        self,
        state: InferenceState,
        frame: int,
        object_id: Hashable,
        track: Track,
        found: Found,
        *,
        cond: bool,
    ) -> Answer:
        """Keep what a prompt gave, and show it with the other objects."""
        state.tracks.setdefault(object_id, track)
        track.pending.of_kind(cond=cond)[frame] = self._store(state, found)
        return self._answer(state, frame, cond=cond)

    def _propagate(
        self, state: InferenceState, frame: int, track: Track, *, reverse: bool
    ) -> NDArray[np.float32]:
        """One object's logits [s,s] on the next frame."""
        output = track.settled.cond.get(frame)
        if output is not None:
            self._forget_around(track, frame)
        else:
            features = self._features(state, frame)
            seen = self._seen(state, frame, track, reverse=reverse)
            found = decode(self._graphs, features, seen)
            output = self._store(state, found)
            output.remember(*encode_memory(self._graphs, features, found, binarize=False))
            track.settled.non_cond[frame] = output
        track.tracked[frame] = reverse
        return output.logits

    def _store(self, state: InferenceState, found: Found) -> FrameOutput:
        """Holes are filled in what is stored and shown; the memory of a tracked frame is made of
        the mask as it was.
        """
        logits = fill_holes(found.logits, self.fill_hole_area)
        return state.spool.add(logits, found.pointer, found.object_score)

    def _remember(self, state: InferenceState, frame: int, output: FrameOutput) -> None:
        if output.has_memory:
            return
        found = Found(output.logits, output.pointer, float(output.object_score))
        binarize = self.binarize_mask_from_pts_for_mem_enc
        features = self._features(state, frame)
        output.remember(*encode_memory(self._graphs, features, found, binarize=binarize))

    def _forget_around(self, track: Track, frame: int) -> None:
        if not self.clear_non_cond_mem_around_input:
            return
        reach = self.memory_temporal_stride_for_eval * self._geometry.memory_slots
        for near in range(frame - reach, frame + reach + 1):
            track.settled.non_cond.pop(near, None)

    def _seen(
        self, state: InferenceState, frame: int, track: Track, *, reverse: bool
    ) -> MemoryInputs:
        reach = Reach(
            clip_frames=len(state.frames),
            reverse=reverse,
            max_cond=self._max_cond(),
            stride=self.memory_temporal_stride_for_eval,
        )
        return conditioning(track.settled, frame, reach, self._geometry)

    def _max_cond(self) -> int | None:
        """Engines are built for a number of memories."""
        limits = [] if self.max_cond_frames_in_attn == -1 else [self.max_cond_frames_in_attn]
        most = self.bundle.max_size("M")
        if most is not None:
            limits.append(most - self._geometry.recent_memories)
        return min(limits, default=None)

    def _features(self, state: InferenceState, frame: int) -> Features:
        return state.features(frame, self._graphs.encode)

    def _answer(self, state: InferenceState, frame: int, *, cond: bool) -> Answer:
        """Every object on a frame: what a prompt has just given, or what was found before."""
        outputs = [
            track.pending.of_kind(cond=cond).get(frame) or track.settled.find(frame)
            for track in state.tracks.values()
        ]
        logits = [None if output is None else output.logits for output in outputs]
        masks = video_masks(logits, state.size, exclusive=self.non_overlap_masks)
        return frame, list(state.tracks), self._give(masks)
