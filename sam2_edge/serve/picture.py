"""What a viewer is sent of one frame: the picture as JPEG, and the masks as runs.

A message is a length (uint32, little-endian), so many bytes of JSON, the runs, and the JPEG. The
JSON says "runs", their number. A run is a uint32: object id in the high 8 bits, length in the low
24; runs follow the rows of the mask picture, of "width" x "height" pixels.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sinks.jsonl import finite
from sam2_edge.runtime.sinks.overlay import color_of
from sam2_edge.runtime.streaming.loop import LoopResult

MAX_SIDE_PX = 960
"""Pixels of the picture that is sent; larger frames are made smaller."""

JPEG_QUALITY = 80


def message(tracked: LoopResult, state: Mapping[str, Any], names: Mapping[int, str]) -> bytes:
    """The message for one frame. state: further fields for the JSON."""
    picture = small(tracked.frame.picture)
    height, width = picture.shape[:2]
    encoded = runs(tracked.result.index_mask((height, width)))
    frame_height, frame_width = tracked.frame.picture.shape[:2]
    header = {
        **state,
        "type": "frame",
        "frame": tracked.frame.index,
        "frame_width": frame_width,
        "frame_height": frame_height,
        "width": width,
        "height": height,
        "runs": len(encoded),
        "objects": [
            {
                "id": found.object_id,
                "name": names.get(found.object_id, ""),
                "present": found.present,
                "iou": finite(found.iou, 3),
                "score": finite(found.object_score, 2),
                "color": color_of(found.object_id)[::-1],
            }
            for found in tracked.result.objects
        ],
    }
    text = json.dumps(header).encode()
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return struct.pack("<I", len(text)) + text + encoded.tobytes() + jpeg.tobytes()


def small(picture: Frame) -> Frame:
    """The picture, at most `MAX_SIDE_PX` pixels wide and high."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cast("Frame", cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def runs(indexed: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Runs of equal values of a mask [H,W], row by row: value in the high 8 bits, length below."""
    flat = indexed.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.append(starts, len(flat)))
    return (flat[starts].astype(np.uint32) << 24 | lengths.astype(np.uint32)).astype("<u4")
