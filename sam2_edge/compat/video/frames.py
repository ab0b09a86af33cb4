"""Frames by number, read on demand and resized as in the original, with Pillow.

Pillow resizes (bicubic, antialiased), so the model sees the pixels of the original;
`runtime.preprocess.model_image` is faster and close to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.image_file import read_image
from sam2_edge.runtime.sources.images import IMAGE_SUFFIXES, image_files, list_images
from sam2_edge.runtime.sources.video import open_video

JPEG_SUFFIXES = frozenset({".jpeg", ".jpg"})
"""What the original reads from a folder; other images are read if there are none of these."""

LOOKBACK = 16
"""Frames of a video that are cached, and decoded at once when an earlier one is needed."""

ModelImage = NDArray[np.uint8]
"""The image encoder's input: [1, S, S, 3] uint8 RGB."""


def open_frames(path: str | Path, image_size: int) -> FrameStore:
    """Open a folder of images or a video file; raise SourceError if there is nothing to read."""
    if not isinstance(path, (str, Path)):
        raise SourceError(
            f"a video given as {type(path).__name__}; give the path of a video file or of a folder "
            "of images"
        )
    location = Path(path)
    if location.is_dir():
        return FolderFrames(location, image_size)
    if not location.is_file():
        raise SourceError(f"{location} does not exist; give a video file or a folder of images")
    return VideoFrames(location, image_size)


class FolderFrames:
    """Images of a folder, in the order of the numbers in their names.

    Attributes:
        size: Height, width of the first image, pixels.
    """

    def __init__(self, folder: Path, image_size: int) -> None:
        suffixes = JPEG_SUFFIXES if list_images(folder, JPEG_SUFFIXES) else IMAGE_SUFFIXES
        self._files = image_files(folder, suffixes)
        self._image_size = image_size
        self.size = read_image(self._files[0]).shape[:2]

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> ModelImage:
        """Return frame `index`, from 0; raise SourceError if it cannot be decoded."""
        return _model_image(read_image(self._files[index]), self._image_size)


class VideoFrames:
    """Frames of a video file, each by its exact number.

    The file is decoded once to count its frames and to record their times. Later frames are reached
    by decoding. To reach an earlier one, the container is searched, and the time of the frame found
    gives its number; where times are not unique, the file is decoded from its start.

    Attributes:
        size: Height, width, pixels.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        self._path, self._image_size = path, image_size
        self._recent: OrderedDict[int, ModelImage] = OrderedDict()
        self._times = list(self._frame_times())
        if not self._times:
            raise SourceError(f"{path} has no frame that can be decoded; give another video")
        numbers = {time: index for index, time in enumerate(self._times)}
        self._numbers = numbers if len(numbers) == len(self._times) else {}
        self._capture, self._next = open_video(path), 0
        self.size = self._decode(0).shape[:2]

    def __len__(self) -> int:
        return len(self._times)

    def image(self, index: int) -> ModelImage:
        """Return frame `index`, from 0; raise SourceError if it cannot be decoded."""
        if index not in self._recent:
            self._read(index)
        self._recent.move_to_end(index)
        return self._recent[index]

    def _read(self, index: int) -> None:
        """Decode a frame; with an earlier one also those before it, for tracking in reverse."""
        first = index
        if index < self._next:
            first = max(0, index - LOOKBACK + 1)
            self._seek(first)
        for number in range(first, index + 1):
            if number in self._recent:
                continue
            self._recent[number] = _model_image(self._decode(number), self._image_size)
            if len(self._recent) > LOOKBACK:
                self._recent.popitem(last=False)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Advance to frame `index`, at or after the next one, and return it, [H, W, 3] BGR."""
        while self._next <= index:
            if not self._capture.grab():
                raise SourceError(
                    f"{self._path} has {len(self._times)} frames, but frame {self._next} cannot be "
                    "decoded again; was the file changed?"
                )
            self._next += 1
        ok, frame = self._capture.retrieve()
        if not ok:
            raise SourceError(f"frame {index} of {self._path} cannot be decoded; repair the file")
        return cast("NDArray[np.uint8]", frame)

    def _seek(self, index: int) -> None:
        """Go back, so that frame `index` is at or after the next one."""
        target = index
        while target > 0 and self._numbers:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, target)
            found = self._numbers.get(_time_ms(self._capture)) if self._capture.grab() else None
            if found is not None and found < index:
                self._next = found + 1
                return
            target -= LOOKBACK
        self._capture.release()
        self._capture, self._next = open_video(self._path), 0

    def _frame_times(self) -> Iterator[float]:
        capture = open_video(self._path)
        try:
            while capture.grab():
                yield _time_ms(capture)
        finally:
            capture.release()


FrameStore = FolderFrames | VideoFrames
"""Frames of a clip, in any order."""


def _model_image(frame: Frame, size: int) -> ModelImage:
    """Resize a BGR frame, aspect not kept (SAM 2, `_load_img_as_tensor`)."""
    image = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.uint8)[None]


def _time_ms(capture: cv2.VideoCapture) -> float:
    """Return the time of the frame that was grabbed last."""
    return float(capture.get(cv2.CAP_PROP_POS_MSEC))
