"""COCO output: one file per video, with run lengths as masks."""

from __future__ import annotations

import json
from io import FileIO
from pathlib import Path
from typing import Any

from sam2_edge.errors import SinkError, printable, reason_of
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks.files import check_new_file, open_output
from sam2_edge.runtime.sources import SourceFrame


class CocoFile:
    """A JSON file in the format of COCO: an image per frame, an annotation per object and frame.

    Masks are compressed run lengths. The category is the object, under its name, so that every
    annotation of an object has the same `category_id`, its id; `track_id` is the same number.

    Attributes:
        size_bytes: Bytes written so far.

    Raises:
        SinkError: If the file exists and `overwrite` is not set, or the path cannot be used.
    """

    starts_new_file = False

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_new_file(path, overwrite=overwrite, suffix=".json")
        self.size_bytes = 0
        self._path, self._overwrite = path, overwrite
        self._file: FileIO | None = None
        self._images: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}
        self._annotations = 0

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Append the annotations of a frame; the first frame creates the file."""
        height, width = result.frame_size
        self._images.append(
            {
                "id": frame.index,
                "file_name": printable(frame.name),
                "height": height,
                "width": width,
            }
        )
        for entry in result.objects:
            name = printable(result.names.get(entry.object_id, "")) or f"object {entry.object_id}"
            self._names[entry.object_id] = name
            if entry.present and entry.area:
                self._annotations += 1
                self._append(_annotation(self._annotations, frame.index, entry))

    def close(self) -> None:
        """Finish the file."""
        if not self._images:
            return
        categories = [{"id": key, "name": name} for key, name in sorted(self._names.items())]
        self._put("]" if self._annotations else '{"annotations":[]')
        self._put(f',"images":{json.dumps(self._images)},"categories":{json.dumps(categories)}}}\n')
        if self._file is not None:
            self._file.close()

    def _append(self, annotation: dict[str, Any]) -> None:
        start = ",\n" if self._annotations > 1 else '{"annotations":[\n'
        self._put(start + json.dumps(annotation))

    def _put(self, text: str) -> None:
        try:
            if self._file is None:
                self._file = open_output(self._path, overwrite=self._overwrite)
            self.size_bytes += self._file.write(text.encode())
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {reason_of(error)}") from error


def _annotation(number: int, image: int, entry: ObjectResult) -> dict[str, Any]:
    assert entry.box is not None  # present, with pixels
    x0, y0, x1, y1 = entry.box
    return {
        "id": number,
        "image_id": image,
        "category_id": entry.object_id,
        "track_id": entry.object_id,
        "segmentation": entry.to_rle(),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": entry.area,
        "iscrowd": 0,
    }
