"""`SAM2VideoPredictor`: prompts on any frame of a video, in any order, and propagation both ways.

It behaves as `sam2` 1.1.0 (`sam2_video_predictor.py`) does, except for memory: frames are read on
demand, and outputs are stored in a file. With EdgeTAM it keeps corrections, as its package does.
"""
# ruff: noqa: FBT001, FBT002 - booleans are positional in the original's signatures

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph
from sam2_edge.compat.checkpoint import hub_checkpoint
from sam2_edge.compat.model import Sam2Model, build_model
from sam2_edge.compat.prompts import join_points, mask_prompt, points_prompt
from sam2_edge.compat.small_regions import VIDEO_MARGIN, remove_small_regions
from sam2_edge.compat.video.conditioning import MemoryReach, memory_inputs
from sam2_edge.compat.video.frames import open_frames
from sam2_edge.compat.video.masks import OutputKind, output_converter, video_masks
from sam2_edge.compat.video.spool import Spool, StoredOutput
from sam2_edge.compat.video.state import InferenceState, Track, whole_number
from sam2_edge.compat.video.steps import ObjectOutput, decode, decode_mask, encode_memory
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import MemoryInputs

FrameMasks = tuple[int, list[Any], Any]
"""Frame, ids of all objects, and their mask logits [N, 1, H, W] float32 at the video's size."""


@dataclass(eq=False)
class SAM2VideoPredictor:
    """Segments and tracks objects through a video, interactively.

    All options but output may be changed at any time.

    Attributes:
        model: From `open_model` or a builder.
        fill_hole_area: Largest area of holes to fill, pixels at the model's own mask resolution.
        non_overlap_masks: Whether a pixel belongs to one object at most.
        clear_non_cond_mem_around_input: Whether a prompt drops the tracked frames around it.
        add_all_frames_to_correct_as_cond: Whether a corrected frame becomes a conditioning one.
        binarize_mask_from_pts_for_mem_enc: Whether memory of prompted frames is made from binary
            masks.
        dynamic_multimask_via_stability: Whether to take the best of three masks where the single
            one is unstable.
        max_cond_frames_in_attn: Conditioning frames used on a frame, the closest; -1 for all.
        memory_temporal_stride_for_eval: Distance in frames between the memories before the last.
        output: What masks are returned as.

    Raises:
        Sam2EdgeError: For an invalid option.
    """

    model: Sam2Model
    _: KW_ONLY
    fill_hole_area: int = 0
    non_overlap_masks: bool = False
    clear_non_cond_mem_around_input: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    binarize_mask_from_pts_for_mem_enc: bool = False
    dynamic_multimask_via_stability: bool = False
    max_cond_frames_in_attn: int = -1
    memory_temporal_stride_for_eval: int = 1
    output: OutputKind = "numpy"

    def __post_init__(self) -> None:
        if self.max_cond_frames_in_attn != -1 and self.max_cond_frames_in_attn < 2:
            raise Sam2EdgeError(
                f"max_cond_frames_in_attn is {self.max_cond_frames_in_attn}; give 2 or more, or -1"
            )
        if self.memory_temporal_stride_for_eval < 1:
            raise Sam2EdgeError(
                "memory_temporal_stride_for_eval is "
                f"{self.memory_temporal_stride_for_eval}; give 1 or more"
            )
        self.image_size = self.model.image_size
        self._graphs = self.model.graphs
        self._convert = output_converter(self.output)

    @classmethod
    def from_pretrained(
        cls, model_id: str, *, output: OutputKind = "numpy", **kwargs: Any
    ) -> SAM2VideoPredictor:
        """Build a predictor for a bundle, "nano", or a repository of the Hugging Face Hub.

        Takes the options of `build_sam2_video_predictor` and raises its errors.
        """
        model, options = build_model(model_id, hub_checkpoint(model_id), **kwargs)
        return cls(model, output=output, **options)

    def init_state(
        self,
        video_path: str | Path,
        offload_video_to_cpu: bool = False,  # noqa: ARG002 - the original's signature
        offload_state_to_cpu: bool = False,  # noqa: ARG002
        async_loading_frames: bool = False,  # noqa: ARG002
    ) -> InferenceState:
        """Open a video: a folder of images, or a video file.

        The other arguments have no effect: frames are read on demand, and outputs are on disk.

        Raises:
            SourceError: If there is nothing to read.
        """
        frames = open_frames(video_path, self.image_size)
        spool = Spool(self._graphs.geometry, self._graphs.bundle.manifest.memory.rounding)
        return InferenceState(frames, spool, self._graphs.encode)

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> FrameMasks:
        """Prompt a known or new object on a frame with clicks, a box, or both.

        Args:
            frame_idx: Number of the frame.
            obj_id: Any hashable value.
            points: [N, 2] x, y.
            labels: [N], 1 foreground, 0 background.
            clear_old_points: Whether to drop the points that the frame has.
            normalize_coords: Whether coordinates are pixels of the video; otherwise they are
                shares of its width and height.
            box: x1, y1, x2, y2.

        Raises:
            PromptError: For a prompt that cannot be used; the state is unchanged.
        """
        state = inference_state
        frame_idx = state.frame_number(frame_idx)
        if box is not None and not clear_old_points:
            raise PromptError(
                "a box precedes all points, so it cannot be added to old ones; give "
                "clear_old_points=True"
            )
        size = state.frames.size if normalize_coords else (1, 1)
        prompt = points_prompt(points, labels, box, size=size, image_size=self.image_size)
        if not prompt.labels.size:
            raise PromptError("no points and no box; give at least one of them")
        track = state.track_or_new(obj_id)
        if not clear_old_points:
            prompt = join_points(track.points.get(frame_idx), prompt)
        self._graphs.check_points(prompt.labels.size)
        cond = self._is_conditioning(track, frame_idx)
        previous = track.pending.group(cond=cond).get(frame_idx) or track.outputs.find(frame_idx)
        memory = None
        if frame_idx in track.tracked:
            memory = self._memory(state, frame_idx, track, reverse=track.tracked[frame_idx])
        output = decode(
            self._graphs,
            state.features(frame_idx),
            memory,
            prompt,
            previous=None if previous is None else previous.logits,
            by_stability=self.dynamic_multimask_via_stability,
        )
        track.points[frame_idx] = prompt
        track.masks.discard(frame_idx)
        return self._add_pending(state, frame_idx, obj_id, track, output)

    def add_new_points(self, *args: Any, **kwargs: Any) -> FrameMasks:
        """Call `add_new_points_or_box`; its former name."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> FrameMasks:
        """Give the mask [H, W], of any size, of a known or new object on a frame.

        An empty mask means that the object is absent.

        Raises:
            PromptError: For a mask that cannot be used; the state is unchanged.
        """
        state = inference_state
        frame_idx = state.frame_number(frame_idx)
        resized = mask_prompt(mask, self.image_size)
        track = state.track_or_new(obj_id)
        output = decode_mask(self._graphs, state.features(frame_idx), resized)
        track.masks.add(frame_idx)
        track.points.pop(frame_idx, None)
        return self._add_pending(state, frame_idx, obj_id, track, output)

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Make the outputs of prompts since the last propagation visible to other frames.

        Raises:
            PromptError: If there is no object, or one has no prompt.
        """
        state = inference_state
        if not state.tracks:
            raise PromptError("no object has been prompted; add points, a box or a mask first")
        for object_id, track in state.tracks.items():
            for cond in (False, True):
                pending = track.pending.group(cond=cond)
                for frame, output in pending.items():
                    if not output.has_memory:
                        binarize = self.binarize_mask_from_pts_for_mem_enc
                        self._add_memory(state, frame, output, output.logits, binarize=binarize)
                    track.outputs.group(cond=cond)[frame] = output
                    self._clear_around(track, frame)
                pending.clear()
            if not track.outputs.cond:
                raise PromptError(
                    f"object {object_id!r} has no prompt; add points, a box or a mask first"
                )
            for frame in track.outputs.cond:
                track.outputs.non_cond.pop(frame, None)

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameMasks]:
        """Track every object from a frame on, or back from it in reverse, and yield each frame.

        Args:
            start_frame_idx: The earliest conditioning frame by default.
            max_frame_num_to_track: Number of frames after the first; all by default.
            reverse: Whether to go back.

        Raises:
            PromptError: If an object has no prompt, or is removed meanwhile.
        """
        state = inference_state
        self.propagate_in_video_preflight(state)
        tracks = dict(state.tracks)
        if start_frame_idx is None:
            start_frame_idx = min(t for track in tracks.values() for t in track.outputs.cond)
        start_frame_idx = whole_number(start_frame_idx, "start_frame_idx")
        if max_frame_num_to_track is not None:
            max_frame_num_to_track = whole_number(max_frame_num_to_track, "max_frame_num_to_track")
        for frame in state.frame_order(start_frame_idx, max_frame_num_to_track, reverse=reverse):
            logits = []
            for object_id, track in tracks.items():
                if state.tracks.get(object_id) is not track:
                    raise PromptError(
                        f"object {object_id!r} was removed during tracking; call "
                        "propagate_in_video again"
                    )
                logits.append(self._propagate(state, frame, track, reverse=reverse))
            yield frame, list(tracks), self._to_video(state, logits)

    def clear_all_prompts_in_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        need_output: bool = True,
    ) -> FrameMasks | None:
        """Drop an object's prompts on a frame; its output there stays.

        Raises:
            PromptError: For an unknown object.
        """
        frame_idx = inference_state.frame_number(frame_idx)
        inference_state.track(obj_id).clear_prompts(frame_idx)
        return self._current_masks(inference_state, frame_idx) if need_output else None

    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: Hashable,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[Any], list[tuple[int, Any]]]:
        """Remove an object.

        Returns:
            The remaining ids, and frames on which it was prompted with the masks of the others.

        Raises:
            PromptError: For an unknown object, if `strict`.
        """
        state = inference_state
        try:
            track = state.track(obj_id)
        except PromptError:
            if strict:
                raise
            return list(state.tracks), []
        del state.tracks[obj_id]
        frames = sorted({*track.points, *track.masks}) if state.tracks and need_output else []
        updated = [(frame, self._current_masks(state, frame)[2]) for frame in frames]
        return list(state.tracks), updated

    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove every object and prompt."""
        inference_state.tracks.clear()

    def _is_conditioning(self, track: Track, frame: int) -> bool:
        """Whether a prompt on this frame makes it a conditioning one."""
        return frame not in track.tracked or self.add_all_frames_to_correct_as_cond

    def _add_pending(
        self,
        state: InferenceState,
        frame: int,
        object_id: Hashable,
        track: Track,
        output: ObjectOutput,
    ) -> FrameMasks:
        """Store the output of a prompt, and return it with the other objects."""
        state.tracks.setdefault(object_id, track)
        cond = self._is_conditioning(track, frame)
        track.pending.group(cond=cond)[frame] = self._store(state, output)
        return self._current_masks(state, frame, cond=cond)

    def _propagate(
        self, state: InferenceState, frame: int, track: Track, *, reverse: bool
    ) -> NDArray[np.float32]:
        """Return one object's logits [s, s] on the next frame."""
        stored = track.outputs.cond.get(frame)
        if stored is not None:
            self._clear_around(track, frame)
        elif self.model.keeps_corrections and track.is_prompted(frame):
            stored = track.outputs.non_cond.get(frame)
        if stored is None:
            memory = self._memory(state, frame, track, reverse=reverse)
            output = decode(self._graphs, state.features(frame), memory)
            stored = self._store(state, output)
            # From the mask as decoded: holes are filled only in what is stored and returned.
            self._add_memory(state, frame, stored, output.logits, binarize=False)
            track.outputs.non_cond[frame] = stored
        track.tracked[frame] = reverse
        return stored.logits

    def _store(self, state: InferenceState, output: ObjectOutput) -> StoredOutput:
        logits = remove_small_regions(
            output.logits, hole_area=self.fill_hole_area, margin=VIDEO_MARGIN
        )
        return state.spool.add(logits, output.pointer, output.object_score)

    def _add_memory(
        self,
        state: InferenceState,
        frame: int,
        stored: StoredOutput,
        logits: NDArray[np.float32],
        *,
        binarize: bool,
    ) -> None:
        score = stored.object_score
        features = state.features(frame)
        stored.add_memory(*encode_memory(self._graphs, features, logits, score, binarize=binarize))

    def _clear_around(self, track: Track, frame: int) -> None:
        if self.clear_non_cond_mem_around_input:
            reach = self.memory_temporal_stride_for_eval * self._graphs.geometry.memory_slots
            for near in range(frame - reach, frame + reach + 1):
                track.outputs.non_cond.pop(near, None)

    def _memory(
        self, state: InferenceState, frame: int, track: Track, *, reverse: bool
    ) -> MemoryInputs:
        geometry = self._graphs.geometry
        limits = [] if self.max_cond_frames_in_attn == -1 else [self.max_cond_frames_in_attn]
        max_memories = self._graphs.bundle.max_size(Graph.MEMORY_ATTENTION, "M")  # of engines
        if max_memories is not None:
            limits.append(max_memories - geometry.recent_memories)
        reach = MemoryReach(
            clip_frames=len(state.frames),
            reverse=reverse,
            max_cond=min(limits, default=None),
            stride=self.memory_temporal_stride_for_eval,
        )
        return memory_inputs(track.outputs, frame, reach, geometry)

    def _current_masks(
        self, state: InferenceState, frame: int, *, cond: bool | None = None
    ) -> FrameMasks:
        """Return every object on a frame: pending outputs of one kind, or else earlier ones.

        Args:
            cond: The kind; by default conditioning if the frame has such a pending output.
        """
        tracks = state.tracks.values()
        if cond is None:
            cond = any(frame in track.pending.cond for track in tracks)
        found = (t.pending.group(cond=cond).get(frame) or t.outputs.find(frame) for t in tracks)
        logits = [None if output is None else output.logits for output in found]
        return frame, list(state.tracks), self._to_video(state, logits)

    def _to_video(self, state: InferenceState, logits: Sequence[NDArray[np.float32] | None]) -> Any:
        size = state.frames.size
        return self._convert(video_masks(logits, size, exclusive=self.non_overlap_masks))
