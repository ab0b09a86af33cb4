"""The message with one frame for a viewer: a JPEG image and run-length encoded masks.

Layout: length of the JSON header (uint32, little-endian), header, runs, JPEG. The header's "runs"
is the number of runs. A run is a little-endian uint32: object id in the high 8 bits, length in the
low 24. Runs cover the mask of "width" x "height" pixels row by row.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.palette import overlay_color
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sinks.jsonl import finite
from sam2_edge.runtime.streaming.loop import LoopResult

MAX_SIDE_PX = 960
"""Larger frames are scaled down to this width or height."""

JPEG_QUALITY = 80


def encode_frame(tracked: LoopResult, state: Mapping[str, Any]) -> bytes:
    """Encode one frame; `state` has more header fields."""
    image = _scaled_down(tracked.frame.picture)
    height, width = image.shape[:2]
    runs = run_lengths(tracked.result.index_mask((height, width)))
    frame_height, frame_width = tracked.frame.picture.shape[:2]
    clicks = tracked.edits.clicks
    header = {
        **state,
        "type": "frame",
        "frame": tracked.frame.index,
        "frame_width": frame_width,
        "frame_height": frame_height,
        "width": width,
        "height": height,
        "runs": len(runs),
        "undo": tracked.edits.undo,
        "redo": tracked.edits.redo,
        "objects": [
            {
                "id": entry.object_id,
                "name": tracked.result.names.get(entry.object_id, ""),
                "present": entry.present,
                "iou": finite(entry.iou, 3),
                "score": finite(entry.object_score, 2),
                "color": overlay_color(entry.object_id),
                "clicks": clicks[entry.object_id].points if entry.object_id in clicks else (),
            }
            for entry in tracked.result.objects
        ],
    }
    text = json.dumps(header).encode()
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return struct.pack("<I", len(text)) + text + runs.tobytes() + jpeg.tobytes()


def run_lengths(indexed: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Encode a mask [H, W] row by row as runs: value in the high 8 bits, length in the low 24."""
    flat = indexed.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.append(starts, len(flat)))
    return (flat[starts].astype(np.uint32) << 24 | lengths.astype(np.uint32)).astype("<u4")


def _scaled_down(image: Frame) -> Frame:
    height, width = image.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cast("Frame", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
