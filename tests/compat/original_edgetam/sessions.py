"""The calls that original EdgeTAM and ours both execute, and how their results are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 256
"""Pixels of the model input."""

CONFIG = "configs/edgetam.yaml"
OVERRIDES = [
    f"++model.image_size={SIZE}",
    f"++model.memory_attention.layer.self_attention.feat_sizes=[{SIZE // 16},{SIZE // 16}]",
    f"++model.memory_attention.layer.cross_attention.q_sizes=[{SIZE // 16},{SIZE // 16}]",
]
"""What the original needs for that size."""

Results = dict[str, NDArray[np.float32]]
"""Arrays by the call that returned them."""

Call = tuple[str, dict[str, Any]]
"""A method of the video predictor, and its arguments after the state."""


def _points(frame: int, obj: int, *points: tuple[float, float, int], **more: Any) -> Call:
    """A call that adds clicks x, y, label."""
    array = np.array(points, np.float32)
    labels = array[:, 2].astype(np.int32)
    arguments = {"frame_idx": frame, "obj_id": obj, "points": array[:, :2], "labels": labels}
    return "add_new_points_or_box", arguments | more


def _box(frame: int, obj: int, *box: float) -> Call:
    array = np.array(box, np.float32)
    return "add_new_points_or_box", {"frame_idx": frame, "obj_id": obj, "box": array}


def _mask(frame: int, obj: int, size: tuple[int, int], rows: slice, columns: slice) -> Call:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return "add_new_mask", {"frame_idx": frame, "obj_id": obj, "mask": mask}


def _track(**arguments: Any) -> Call:
    return "propagate_in_video", arguments


@dataclass(frozen=True)
class Session:
    """Calls on one clip.

    Attributes:
        name: Name of its files.
        frames: Number of frames.
        size: Height and width of a frame.
        calls: In this order.
        objects: Ids of the objects.
        fill_hole_area: Largest area of holes to fill, pixels. Where others follow, a pixel within
            rounding distance of zero could open a hole, and everything after that would differ.
    """

    name: str
    frames: int
    size: tuple[int, int]
    calls: Sequence[Call]
    objects: Sequence[int] = (1,)
    fill_hole_area: int = 0


SESSIONS = (
    Session(
        "clicks",
        frames=9,
        size=(SIZE, SIZE),
        calls=(
            _points(0, 1, (68, 76, 1)),
            _points(0, 1, (190, 180, 0), clear_old_points=False),
            _track(),
            _points(4, 1, (100, 120, 0)),
            _points(4, 1, (60, 60, 1), clear_old_points=False),
            _track(start_frame_idx=4, max_frame_num_to_track=3),
            _points(6, 1, (120, 60, 1)),
            _track(start_frame_idx=6, reverse=True, max_frame_num_to_track=2),
        ),
    ),
    Session(
        "two_objects",
        frames=6,
        size=(SIZE, SIZE),
        calls=(
            _points(0, 3, (68, 76, 1), (150, 40, 1)),
            _box(0, 8, 140, 140, 240, 240),
            _track(max_frame_num_to_track=3),
            _points(2, 8, (180, 100, 0)),
            _track(start_frame_idx=2),
        ),
        objects=(3, 8),
    ),
    Session(
        "masks",
        frames=7,
        size=(90, 200),
        calls=(
            _mask(1, 1, (90, 200), slice(10, 45), slice(30, 70)),
            _track(start_frame_idx=1, max_frame_num_to_track=3),
            _mask(5, 1, (300, 300), slice(40, 90), slice(100, 180)),
            _track(start_frame_idx=5),
            _track(start_frame_idx=5, reverse=True, max_frame_num_to_track=2),
            _mask(6, 1, (90, 200), slice(0), slice(0)),
            _track(start_frame_idx=6, reverse=True, max_frame_num_to_track=2),
        ),
    ),
    Session(
        "holes",
        frames=2,
        size=(SIZE, SIZE),
        calls=(_points(0, 1, (68, 76, 1), (150, 40, 1)), _track(max_frame_num_to_track=1)),
        fill_hole_area=8,
    ),
)

ROUNDED = SESSIONS[1]
"""The one that is repeated with memory rounded to bfloat16, as published."""

IMAGE_PROMPTS: tuple[dict[str, Any], ...] = (
    {"point_coords": np.array([[100, 90]]), "point_labels": np.array([1])},
    {
        "point_coords": np.array([[100, 90], [30, 200]]),
        "point_labels": np.array([1, 0]),
        "box": np.array([20, 30, 200, 220]),
        "multimask_output": False,
    },
)
"""Prompts of the image predictor; a third one refines the second with its mask."""


def perform(predictor: Any, clip: Path, session: Session, objects: Sequence[int]) -> Results:
    """Make those of a session's calls that concern these objects; the masks by call and object."""
    predictor.fill_hole_area = session.fill_hole_area
    state = predictor.init_state(video_path=str(clip))
    results: Results = {}
    for number, (name, arguments) in enumerate(session.calls):
        if arguments.get("obj_id", objects[0]) not in objects:
            continue
        returned = getattr(predictor, name)(state, **arguments)
        for frame, ids, masks in returned if name == "propagate_in_video" else [returned]:
            for obj, mask in zip(ids, masks, strict=True):
                results[f"{number} {name} frame {frame} object {obj}"] = np.asarray(mask)[0]
    return results


def segment(predictor: Any, image: Path) -> Results:
    """Masks, scores and low-resolution logits of the image prompts."""
    predictor.set_image(np.array(Image.open(image)))
    results: Results = {}
    low_res: Any = None
    for number, prompt in enumerate((*IMAGE_PROMPTS, IMAGE_PROMPTS[-1])):
        refining = number == len(IMAGE_PROMPTS)
        given = {**prompt, "mask_input": low_res} if refining else prompt
        masks, scores, low_res = predictor.predict(**given, return_logits=True)
        for name, value in (("masks", masks), ("scores", scores), ("low_res", low_res)):
            results[f"{number} {name}"] = value
    return results
