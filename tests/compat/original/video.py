"""The published video predictor beside ours, with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.measure import label

from sam2_edge.bundle.contract import BFLOAT16_TOLERANCE, PARITY_TOLERANCE
from sam2_edge.compat import SAM2VideoPredictor
from sam2_edge.models.checkpoints import load_model
from tests.helpers.clips import moving_shapes
from tests.helpers.parity import ROUNDED_MEDIAN
from tools.original_names import to_original

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SIZE = 128
SEED = 1
OVERRIDES = [f"++model.image_size={SIZE}"]


def original_predictor(checkpoint: Path | None = None, **arguments: Any) -> Any:
    """The published predictor at `SIZE`."""
    from sam2.build_sam import build_sam2_video_predictor

    overrides = [*OVERRIDES, *arguments.pop("hydra_overrides_extra", [])]
    return build_sam2_video_predictor(
        CONFIG, checkpoint, device="cpu", hydra_overrides_extra=overrides, **arguments
    )


def write_original_checkpoint(path: Path) -> None:
    """Write random weights of SAM 2.1 tiny as an original .pt file."""
    loaded = load_model("sam2.1-hiera-tiny", random_seed=SEED, image_size=SIZE)
    state = to_original(loaded.model.state_dict(), original_predictor().state_dict())
    torch.save({"model": state}, path)


def connected_components(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what the original's CUDA extension does: labels and areas, 8-connected."""
    labels, areas = [], []
    for one in mask[:, 0].numpy():
        found = label(one, connectivity=2)
        sizes = np.bincount(found.ravel())
        sizes[0] = 0
        labels.append(found)
        areas.append(sizes[found])
    return (
        torch.from_numpy(np.stack(labels))[:, None],
        torch.from_numpy(np.stack(areas))[:, None],
    )


def keep_memory_in_float32(predictor: Any, patch: pytest.MonkeyPatch) -> None:
    """Store memory as float32 with the same, rounded values. With memory and no pointer, 1.1.0
    otherwise multiplies bfloat16 by float32 weights and fails, outside of autocast.
    """
    run, encode = predictor._run_single_frame_inference, predictor._run_memory_encoder

    def run_in_float(*args: Any, **arguments: Any) -> Any:
        output, masks = run(*args, **arguments)
        if output["maskmem_features"] is not None:
            output["maskmem_features"] = output["maskmem_features"].float()
        return output, masks

    def encode_in_float(*args: Any, **arguments: Any) -> Any:
        memory, position = encode(*args, **arguments)
        return memory.float(), position

    patch.setattr(predictor, "_run_single_frame_inference", run_in_float)
    patch.setattr(predictor, "_run_memory_encoder", encode_in_float)


def write_clip(folder: Path, frames: int, size: tuple[int, int] = (SIZE, SIZE)) -> Path:
    """Write a folder of JPEG files 00000.jpg and so on."""
    folder.mkdir()
    for index, frame in enumerate(moving_shapes(frames, size).frames):
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), frame)
    return folder


@dataclass
class PredictorPair:
    """Calls both predictors, and compares their results."""

    original: Any
    ours: SAM2VideoPredictor
    original_state: Any
    state: Any
    tracked: bool = False
    seen: list[NDArray[np.float32]] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, original: Any, ours: SAM2VideoPredictor, clip: Path) -> PredictorPair:
        return cls(original, ours, original.init_state(str(clip)), ours.init_state(str(clip)))

    def call(self, name: str, *args: Any, **arguments: Any) -> None:
        """Make a call that returns frame, ids and masks."""
        published = getattr(self.original, name)(self.original_state, *args, **arguments)
        self._compare(getattr(self.ours, name)(self.state, *args, **arguments), published)

    def click(self, frame: int, obj: int, *points: tuple[float, ...], **arguments: Any) -> None:
        """Click at points of x, y, label."""
        array = np.array(points, np.float32)
        labels = array[:, 2].astype(np.int32)
        arguments |= {"points": array[:, :2], "labels": labels}
        self.call("add_new_points_or_box", frame, obj, **arguments)

    def propagate(self, **arguments: Any) -> list[int]:
        """Track with both, and return the frames."""
        self.tracked = True
        frames = []
        both: Iterator[Any] = zip(
            self.ours.propagate_in_video(self.state, **arguments),
            self.original.propagate_in_video(self.original_state, **arguments),
            strict=True,
        )
        for ours, published in both:
            self._compare(ours, published)
            frames.append(ours[0])
        return frames

    def remove(self, obj: int, **arguments: Any) -> list[int]:
        """Remove an object, and return the updated frames."""
        ids, frames = self.ours.remove_object(self.state, obj, **arguments)
        want_ids, want = self.original.remove_object(self.original_state, obj, **arguments)
        assert ids == list(want_ids)
        assert [frame for frame, _ in frames] == sorted(frame for frame, _ in want)
        for (frame, ours), (_, published) in zip(
            frames, sorted(want, key=lambda x: x[0]), strict=True
        ):
            self._compare((frame, ids, ours), (frame, ids, published))
        return [frame for frame, _ in frames]

    def reset(self) -> None:
        self.original.reset_state(self.original_state)
        self.ours.reset_state(self.state)

    def _compare(self, ours: Any, published: Any) -> None:
        frame, ids, masks = ours
        assert (frame, list(ids)) == (published[0], list(published[1]))
        got, want = masks.numpy(), published[2].numpy()
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        self.seen += list(got[:, 0])
        # Memory is rounded only once something has been tracked.
        tolerance = BFLOAT16_TOLERANCE if self.tracked else PARITY_TOLERANCE["fp32"]
        if self.ours.non_overlap_masks:
            got, want = _where_one_wins(got, want, tolerance)
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
        sure = np.abs(want) > tolerance
        np.testing.assert_array_equal(got[sure] > 0, want[sure] > 0)
        if self.tracked:
            self.differences += [float(np.abs(a - b).max()) for a, b in zip(got, want, strict=True)]

    def assert_meaningful(self) -> None:
        """Masks vary over the frame and from call to call, or parity would prove nothing; and most
        frames differ far less than the ones that rounding affects most.
        """
        assert np.median(self.differences) < ROUNDED_MEDIAN
        varied = [m for m in self.seen if m.std() > 0.5]
        assert len(varied) >= 0.5 * len(self.seen)
        spread = np.ptp([float(m.mean()) for m in varied])
        assert spread > 0.5


def _where_one_wins(
    got: NDArray[np.float32], want: NDArray[np.float32], tolerance: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return exclusive masks [N, 1, H, W] as [N, K], without pixels where objects are so close
    that rounding decides.
    """
    np.testing.assert_allclose(got.max(axis=0), want.max(axis=0), rtol=0, atol=tolerance)
    same = got.argmax(axis=0) == want.argmax(axis=0)
    assert same.mean() > 0.95
    return got[:, same], want[:, same]
