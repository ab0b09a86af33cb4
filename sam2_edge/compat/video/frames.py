"""Frames by number, read on demand and resized as in the original, with Pillow.

Pillow resizes (bicubic, antialiased), so the model sees the pixels of the original;
`runtime.preprocess.model_image` is faster and close to it.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.frame_access import NumberedFrames
from sam2_edge.runtime.sources.image_file import read_image
from sam2_edge.runtime.sources.images import IMAGE_SUFFIXES, image_files, list_images
from sam2_edge.runtime.sources.location import SourceKind, locate
from sam2_edge.runtime.sources.video import video_path

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
    location = locate(path)
    if location.kind is SourceKind.FOLDER:
        return FolderFrames(location.path, image_size)
    return VideoFrames(video_path(path), image_size)


class FolderFrames:
    """Images of a folder, in the order of the numbers in their names.

    Attributes:
        size: Height, width of the last image, pixels, as in the original if they differ.
    """

    def __init__(self, folder: Path, image_size: int) -> None:
        suffixes = JPEG_SUFFIXES if list_images(folder, JPEG_SUFFIXES) else IMAGE_SUFFIXES
        self._files = image_files(folder, suffixes)
        self._image_size = image_size
        self.size = read_image(self._files[-1]).shape[:2]

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> ModelImage:
        """Return frame `index`, from 0; raise SourceError if it cannot be decoded."""
        return _model_image(read_image(self._files[index]), self._image_size)


class VideoFrames:
    """Frames of a video file, each by its exact number.

    Attributes:
        size: Height, width of the first frame, pixels.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        self._image_size = image_size
        self._recent: OrderedDict[int, ModelImage] = OrderedDict()
        self._video, self._last = NumberedFrames(path), -1
        self.size = self._read(0).shape[:2]

    def __len__(self) -> int:
        return len(self._video)

    def image(self, index: int) -> ModelImage:
        """Return frame `index`, from 0; raise SourceError if it cannot be decoded."""
        if index not in self._recent:
            # With an earlier frame also those before it, for tracking in reverse.
            first = index if index > self._last else max(0, index - LOOKBACK + 1)
            for number in range(first, index + 1):
                self._read(number)
        self._recent.move_to_end(index)
        return self._recent[index]

    def _read(self, number: int) -> Frame:
        picture = self._video.read(number)
        self._recent[number], self._last = _model_image(picture, self._image_size), number
        if len(self._recent) > LOOKBACK:
            self._recent.popitem(last=False)
        return picture


FrameStore = FolderFrames | VideoFrames
"""Frames of a clip, in any order."""


def _model_image(frame: Frame, size: int) -> ModelImage:
    """Resize a BGR frame, aspect not kept (SAM 2, `_load_img_as_tensor`)."""
    image = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.uint8)[None]
