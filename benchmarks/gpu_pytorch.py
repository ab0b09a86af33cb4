"""The steps of `benchmarks/gpu.py` that need PyTorch: exports, the reference, and its speed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.gpu_runner import Workspace
from benchmarks.gpu_steps import (
    NANO_REFERENCE,
    REFERENCE,
    Figures,
    Frames,
    accuracy,
    agreement,
    clicks,
    frames_of,
    script,
    timed,
    used_memory,
)
from sam2_edge import Prompt
from sam2_edge.evaluation.pytorch import reference_prompt
from sam2_edge.evaluation.pytorch_loop import (
    ReferenceTracker,
    add_prompt,
    normalized,
)
from sam2_edge.evaluation.tracker import MemoryAndPointer
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.checkpoints import LoadedModel, load_model
from sam2_edge.models.families import family_of
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.results import FrameResult, ObjectResult

Dtype = Literal["fp32", "bf16"]

COMPILED_PARTS = ("vision_encoder", "memory_attention", "memory_encoder", "mask_decoder")


def loaded(work: Workspace, model: str) -> LoadedModel:
    """Load "model" or "nano" of the settings."""
    settings = work.settings
    if model == "nano":
        return load_model(settings.nano)
    return load_model(settings.model, random_seed=settings.seed)


def on_device(work: Workspace, model: str) -> Any:
    """Load a model with fused attention, and let float32 be float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found: Any = loaded(work, model).model
    found.set_attn_implementation("sdpa")
    return found.to(work.settings.torch_device)


def precision_of(work: Workspace, dtype: Dtype) -> AbstractContextManager[Any]:
    """Return the context in which PyTorch computes in this precision."""
    kind = work.settings.torch_device.partition(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=dtype == "bf16")


def export(work: Workspace, *, model: str, precision: Any) -> Figures:
    """Write a bundle of ONNX graphs for GPUs."""
    options = ExportOptions(precision=precision, target="gpu")
    target = work.folder / f"{model}-{precision}"
    bundle = export_bundle(loaded(work, model), target, options, overwrite=True)
    yield {"image_size": bundle.manifest.image_size}


class ReferenceLoop:
    """`ReferenceTracker` on the GPU as a `Tracker`, from the runtime's own pixels."""

    def __init__(self, work: Workspace, model: str, dtype: Dtype = "fp32") -> None:
        self._model = on_device(work, model)
        self._device, self._size = work.settings.torch_device, self._model.config.image_size
        self._work, self._dtype = work, dtype
        self.reset()

    def reset(self) -> None:
        """Drop every object."""
        self._tracker, self._index = ReferenceTracker(self._model), -1

    @torch.inference_mode()
    def track(self, frame: Frames, prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Track the next frame."""
        self._index += 1
        height, width = frame.shape[:2]
        scaled = {p.object_id: reference_prompt(p, (height, width), self._size) for p in prompts}
        image = torch.from_numpy(model_image(frame, self._size)[0]).to(self._device)
        with precision_of(self._work, self._dtype):
            found = self._tracker.track(image, scaled)
        objects = tuple(
            ObjectResult(i, r.logits.float().cpu().numpy(), r.iou, r.object_score, (height, width))
            for i, r in found.items()
        )
        return FrameResult(self._index, objects, (height, width), 0.0)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object."""
        self._tracker.remove(object_id)

    def latest_memory(self, object_id: int) -> MemoryAndPointer | None:
        """Return nothing: memories are not compared."""


def reference(work: Workspace) -> Figures:
    """Keep what PyTorch finds in float32, for `parity`."""
    pictures, prompts = frames_of(work), clicks(work)
    present = np.zeros((len(pictures), len(prompts) + 1), bool)
    kept: dict[str, NDArray[Any]] = {"present": present}
    shares = []
    for result in script(ReferenceLoop(work, "model"), pictures, prompts):
        for entry in result.objects:
            kept[f"{result.index}/{entry.object_id}"] = entry.logits
            present[result.index, entry.object_id] = entry.present
            shares.append(float((entry.logits > 0).mean()))
    np.savez(work.folder / REFERENCE, **kept)  # type: ignore[arg-type] # NumPy's own stub
    yield {"masks": len(shares), "mean_share_of_frame": float(np.mean(shares))}


def parity(work: Workspace, *, dtype: Dtype) -> Figures:
    """Compare PyTorch in another precision with its own float32: a yardstick."""
    loop = ReferenceLoop(work, "model", dtype)
    yield agreement(work, script(loop, frames_of(work), clicks(work)), dtype)


def nano(work: Workspace) -> Figures:
    """Measure accuracy on held-out clips, and keep the masks."""
    figures, masks = accuracy(work, ReferenceLoop(work, "nano"))
    np.savez_compressed(work.folder / NANO_REFERENCE, masks=np.stack(masks))
    yield figures


class PyTorchTarget:
    """transformers' streaming model with all objects in one session, frames resized on the GPU."""

    def __init__(self, work: Workspace, dtype: Dtype, *, compiled: bool) -> None:
        self._model = on_device(work, "model")
        self._family = family_of(self._model.config)
        self._work, self._dtype, self._device = work, dtype, work.settings.torch_device
        self._size, self._frame_size = self._model.config.image_size, work.settings.frame[::-1]
        if compiled:
            for part in COMPILED_PARTS:
                module = getattr(self._model, part)
                dynamic = True if part == "memory_attention" else None
                module.forward = torch.compile(module.forward, dynamic=dynamic)
        self.reset()

    def reset(self) -> None:
        """Drop every object."""
        places = ("inference_device", "inference_state_device", "video_storage_device")
        self._session = self._family.session_class(
            dtype=torch.float32, **dict.fromkeys(places, self._device)
        )
        self._index = -1
        if self._device != "cpu":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def prepare(self, frame: Frames) -> torch.Tensor:
        """Resize and normalize a frame: [3, S, S] on the device."""
        picture = torch.from_numpy(frame).to(self._device).permute(2, 0, 1)[None].float()
        sizes, mode = (self._size, self._size), "bilinear"
        resized = F.interpolate(picture, sizes, mode=mode, antialias=True)
        return normalized(resized[0].permute(1, 2, 0).flip(-1), self._family)

    @torch.inference_mode()
    def step(self, prepared: torch.Tensor, prompts: Sequence[Prompt]) -> None:
        """Track a frame and bring its masks to the host."""
        self._index += 1
        session, index = self._session, self._index
        height, width = self._frame_size
        session.add_new_frame(prepared, index)
        for prompt in prompts:
            scaled = reference_prompt(prompt, (height, width), self._size)
            add_prompt(session, prompt.object_id, scaled, index)
        with precision_of(self._work, self._dtype):
            output = self._model(inference_session=session, frame_idx=index, frame=prepared)
        masks = F.interpolate(output.pred_masks.float(), (height, width), mode="bilinear") > 0
        masks.cpu().numpy()
        # The published predictor keeps neither.
        del session.processed_frames[index]
        for stored in session.output_dict_per_obj.values():
            for outputs in stored.values():
                outputs.get(index, {}).pop("high_res_masks", None)


def speed(work: Workspace, *, dtype: Dtype, compiled: bool) -> Figures:
    """Time whole frames for every number of objects."""
    before = used_memory()
    yield from timed(work, PyTorchTarget(work, dtype, compiled=compiled), before)
