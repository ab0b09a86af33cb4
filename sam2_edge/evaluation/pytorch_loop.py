"""The reference tracking loop in PyTorch: transformers' video models.

For tracking, transformers differs from the published predictors (`sam2` 1.1.0, EdgeTAM, SAM 3) in
six ways. This loop follows the published ones:

1. a refining prompt uses the current mask of the frame (`add_new_points_or_box`);
2. the pointer of a mask prompt comes from the single-mask output (`_use_mask_as_output`);
3. the memory of a mask prompt is computed from its low-resolution logits
   (`propagate_in_video_preflight`);
4. a prompt binarizes the memory mask of its own object only, not those of all objects on the frame:
   here each object has its own session;
5. SAM 3 brings masks from the size of the image to 16 pixels a cell before a learned reduction:
   that of a mask prompt before it (`add_new_mask`), that for the memory after the sigmoid
   (`SimpleMaskDownSampler`);
6. EdgeTAM rounds what it stores to bfloat16, as SAM 2 does; transformers rounds that of SAM 2 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sam2_edge.bundle.contract import MemoryRounding
from sam2_edge.models.families import family_of
from sam2_edge.models.family import Family
from sam2_edge.runtime.model import LOGIT_LIMIT


@dataclass(frozen=True, slots=True)
class ReferencePrompt:
    """Points or a mask, on the model's input of S x S pixels.

    Attributes:
        coords: [N, 2] float32, pixels; box corners first.
        labels: [N] int64.
        mask: [S, S] float32, 0 or 1.
    """

    coords: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """One object on one frame: logits [S/4, S/4], pointer [C], memory of the geometry's shape."""

    logits: Tensor
    pointer: Tensor
    memory: Tensor
    object_score: float
    iou: float


class ReferenceTracker:
    """Runs a model frame by frame; memory grows without bound, so use short clips.

    Args:
        model: The model to run.
        clip_frames: Number of frames in the clip; None for a stream of unknown length.
        memory_rounding: "none" skips the published rounding of stored memory.
    """

    def __init__(
        self,
        model: Any,
        *,
        clip_frames: int | None = None,
        memory_rounding: MemoryRounding = "bfloat16",
    ) -> None:
        self._model = _as_published(model)
        self._family = family_of(model.config)
        self._rounded = memory_rounding == "bfloat16"
        self._span = clip_frames
        self._sessions: dict[int, Any] = {}
        self._image: Tensor | None = None
        self._index = -1

    def track(
        self, image: Tensor, prompts: Mapping[int, ReferencePrompt] | None = None
    ) -> dict[int, ReferenceResult]:
        """Track the next frame, uint8 [S, S, 3] RGB, with prompts by object id."""
        self._index += 1
        device = image.device
        self._image = normalized(image, self._family)
        prompts = prompts or {}
        for object_id in prompts.keys() - self._sessions.keys():
            session = self._family.session_class(
                dtype=torch.float32,
                inference_device=device,
                inference_state_device=device,
                video_storage_device=device,
            )
            session.obj_id_to_idx(object_id)
            self._sessions[object_id] = session
        results = {}
        features: dict[str, Any] | None = None
        for object_id, session in self._sessions.items():
            session.add_new_frame(self._image, self._index)
            if features is not None:
                session.cache.cache_vision_features(self._index, features)
            if object_id in prompts:
                self._add(session, object_id, prompts[object_id])
            results[object_id] = self._run(session)
            features = session.cache.get_vision_features(self._index)
            del session.processed_frames[self._index]
        return results

    def prompt(self, object_id: int, prompt: ReferencePrompt) -> ReferenceResult:
        """Refine an object on the current frame."""
        assert self._image is not None
        session = self._sessions[object_id]
        session.add_new_frame(self._image, self._index)
        self._add(session, object_id, prompt)
        return self._run(session)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object."""
        del self._sessions[object_id]

    def _add(self, session: Any, object_id: int, prompt: ReferencePrompt) -> None:
        session.remove_point_inputs(0, self._index)
        session.remove_mask_inputs(0, self._index)
        add_prompt(session, object_id, prompt, self._index)

    def _run(self, session: Any) -> ReferenceResult:
        allowed = self._model.config.max_object_pointers_in_encoder
        try:
            if self._span is not None:
                self._model.config.max_object_pointers_in_encoder = min(allowed, self._span)
            # Passing the frame selects streaming, in which transformers ignores the clip's length.
            frame = session.get_frame(self._index)
            self._model._encode_new_memory = partial(
                _encode_memory, self._model, self._family, self._rounded
            )
            self._model(inference_session=session, frame_idx=self._index, frame=frame)
        finally:
            self._model.__dict__.pop("_encode_new_memory", None)
            self._model.config.max_object_pointers_in_encoder = allowed
        stored = session.output_dict_per_obj[0]
        prompted = self._index in stored["cond_frame_outputs"]
        kind = "cond_frame_outputs" if prompted else "non_cond_frame_outputs"
        output = stored[kind][self._index]
        output.pop("high_res_masks", None)
        shape = self._family.geometry(self._model.config).memory_shape
        memory = output["maskmem_features"].float()
        # Latents are stored as [1, T, m], cells as [h*w, 1, m].
        memory = memory[0] if len(shape) == 2 else memory[:, 0].T
        return ReferenceResult(
            logits=output["pred_masks"].reshape(output["pred_masks"].shape[-2:]),
            pointer=output["object_pointer"].flatten(),
            memory=memory.reshape(shape),
            object_score=float(output["object_score_logits"]),
            iou=float(self._model.sam2_edge_last_iou),
        )


def normalized(image: Tensor, family: Family) -> Tensor:
    """Normalize an image, uint8 [S, S, 3] RGB, as transformers expects it: [3, S, S] float32."""
    mean, std = (torch.tensor(x, device=image.device) for x in (family.mean, family.std))
    return ((image.float() / 255.0 - mean) / std).permute(2, 0, 1)


def add_prompt(session: Any, object_id: int, prompt: ReferencePrompt, frame: int) -> None:
    """Add an object's prompt to a session of transformers."""
    index = session.obj_id_to_idx(object_id)
    if prompt.mask is not None:
        session.add_mask_inputs(index, frame, prompt.mask[None, None])
    else:
        assert prompt.coords is not None
        assert prompt.labels is not None
        points = {
            "point_coords": prompt.coords[None, None],
            "point_labels": prompt.labels[None, None],
        }
        session.add_point_inputs(index, frame, points)
    session.obj_with_new_inputs.append(object_id)


def _encode_memory(
    model: Any,
    family: Family,
    rounded: bool,  # noqa: FBT001 # bound by `partial`
    current_vision_feats: Tensor,
    pred_masks_high_res: Tensor,
    object_score_logits: Tensor,
    is_mask_from_pts: bool,  # noqa: FBT001 # transformers' own signature
) -> tuple[Tensor, Tensor]:
    """`_encode_new_memory` with or without the rounding to bfloat16, which not all families do."""
    height, width = model.backbone_feature_sizes[-1]
    features = current_vision_feats.permute(1, 2, 0)
    features = features.reshape(*features.shape[:2], height, width)
    mask = pred_masks_high_res.sigmoid()
    if is_mask_from_pts:
        mask = (pred_masks_high_res > 0).float()
    mask = mask * model.config.sigmoid_scale_for_mem_enc + model.config.sigmoid_bias_for_mem_enc
    side = height * model.config.mask_downsampler_total_stride
    memory, position = model.memory_encoder(features, _resized(mask, side))
    if model.occlusion_spatial_embedding_parameter is not None and float(object_score_logits) <= 0:
        memory = memory + model.occlusion_spatial_embedding_parameter[..., None, None]
    if family.geometry(model.config).memory_latents is not None:
        memory, position = model.spatial_perceiver(memory, position)
    else:
        memory, position = (x.flatten(2).permute(2, 0, 1) for x in (memory, position))
    return memory.bfloat16() if rounded else memory, position


def _resized(mask: Tensor, side: int) -> Tensor:
    """A mask [1, 1, S, S] at another size; antialiasing has no effect where it is enlarged."""
    return F.interpolate(mask, size=(side, side), mode="bilinear", antialias=True)


def _as_published(model: Any) -> Any:
    """Correct differences 1 to 3, and 5 of mask prompts, on this instance (once).

    Each decoding's best IoU is recorded.
    """
    if hasattr(model, "sam2_edge_last_iou"):
        return model
    run, forward, use_mask = (
        model._run_single_frame_inference,
        model._single_frame_forward,
        model._use_mask_as_output,
    )

    def run_with_previous(
        *, inference_session: Any, frame_idx: int, obj_idx: int, **rest: Any
    ) -> Any:
        if rest["point_inputs"] is not None:
            for stored in inference_session.output_dict_per_obj[obj_idx].values():
                if frame_idx in stored:
                    previous = stored[frame_idx]["pred_masks"]
                    clamped = previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
                    rest["prev_sam_mask_logits"] = clamped.reshape(1, 1, *clamped.shape[-2:])
        return run(
            inference_session=inference_session, frame_idx=frame_idx, obj_idx=obj_idx, **rest
        )

    def forward_recording_iou(**arguments: Any) -> Any:
        output = forward(**arguments)
        model.sam2_edge_last_iou = output.iou_scores.max()
        return output

    def use_mask_published(backbone: Tensor, high_res: list[Tensor], mask: Tensor) -> Any:
        side = model.prompt_encoder.mask_input_size[0] * model.mask_downsample.stride[0]
        changes = {
            "multimask_output": False,
            "input_masks": model.mask_downsample(_resized(mask, side)),
        }
        model._single_frame_forward = lambda **a: forward(**(a | changes))
        try:
            output = use_mask(backbone, high_res, mask)
        finally:
            model._single_frame_forward = forward_recording_iou
        size = (model.image_size, model.image_size)
        output.high_res_masks = F.interpolate(output.pred_masks, size=size, mode="bilinear")
        model.sam2_edge_last_iou = output.iou_scores.max()
        return output

    model.sam2_edge_last_iou = torch.tensor(0.0)
    model._run_single_frame_inference = run_with_previous
    model._single_frame_forward = forward_recording_iou
    model._use_mask_as_output = use_mask_published
    return model
