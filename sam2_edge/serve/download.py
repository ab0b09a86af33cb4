"""The download of a frame: its picture, the masks, and a list of the objects with their names."""

from __future__ import annotations

import io
import json
import zipfile

from PIL import Image

from sam2_edge.runtime.sinks.jsonl import json_record
from sam2_edge.runtime.sinks.masks import indexed_image
from sam2_edge.runtime.streaming.loop import LoopResult

JPEG_QUALITY = 95


def pack_masks(tracked: LoopResult) -> bytes:
    """Pack one frame as a ZIP archive of frame.jpg, masks.png and objects.json.

    Pixels of masks.png are object ids. objects.json has the records of the JSON lines.
    """
    frame, result = tracked.frame, tracked.result
    records = [json_record(frame, result, entry) for entry in result.objects]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        picture = Image.fromarray(frame.picture[..., ::-1])
        archive.writestr("frame.jpg", _encoded(picture, "JPEG", quality=JPEG_QUALITY))
        archive.writestr("masks.png", _encoded(indexed_image(result.index_mask()), "PNG"))
        archive.writestr("objects.json", json.dumps(records, indent=1) + "\n")
    return packed.getvalue()


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()
