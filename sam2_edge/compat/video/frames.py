"""Frames by number, read when they are needed and resized as the original does, with Pillow.

Pillow decodes and resizes (bicubic, which antialiases) so that the model sees the pixels that the
original gives it; `runtime.frames.model_image` is faster and close.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources.images import image_files

JPEG_SUFFIXES = frozenset({".jpeg", ".jpg"})
"""What the original reads of a folder. Where a folder has such files, others are passed over."""

LOOKBACK = 16
"""Frames of a video kept at once, and decoded at once when an earlier one is asked for."""

ModelImage = NDArray[np.uint8]
"""The image encoder's input: [1,S,S,3] uint8 RGB."""


class FrameStore(Protocol):
    """Frames of a clip, in any order.

    size: height, width of the first frame in pixels.
    """

    size: tuple[int, int]

    def __len__(self) -> int: ...

    def image(self, index: int) -> ModelImage:
        """Frame `index`, from 0, as the image encoder takes it."""
        ...


def open_frames(path: str | Path, image_size: int) -> FrameStore:
    """Open a folder of images or a video file.

    Raises SourceError when there is nothing to read.
    """
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
    """Images of a folder, in the order of the numbers in their names."""

    def __init__(self, folder: Path, image_size: int) -> None:
        self._files = _frames_of(folder)
        self._image_size = image_size
        with _opened(self._files[0]) as picture:
            self.size = (picture.height, picture.width)

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> ModelImage:
        """See `FrameStore.image`.

        Raises SourceError when the file cannot be decoded.
        """
        path = self._files[index]
        with _opened(path) as picture:
            try:
                return model_image(picture.convert("RGB"), self._image_size)
            except (OSError, SyntaxError, ValueError) as error:  # Pillow's, by format
                raise SourceError(f"{path} cannot be decoded ({error}); repair it") from error


class VideoFrames:
    """Frames of a video file, each by its exact number.

    The file is decoded once to count its frames and to note their times. Later frames are reached
    by decoding on. An earlier one is reached through the container's index, and the time of the
    frame that comes tells its number; where times do not tell, the file is decoded from its start.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        self._path, self._image_size = path, image_size
        self._recent: OrderedDict[int, ModelImage] = OrderedDict()
        self._times = list(self._frame_times())
        if not self._times:
            raise SourceError(f"{path} has no frame that can be decoded; give another video")
        numbers = {time: index for index, time in enumerate(self._times)}
        self._numbers = numbers if len(numbers) == len(self._times) else {}
        self._capture, self._next = _open_video(path), 0
        self.size = self._decode(0).shape[:2]

    def __len__(self) -> int:
        return len(self._times)

    def image(self, index: int) -> ModelImage:
        """See `FrameStore.image`.

        Raises SourceError when the video cannot be decoded up to there.
        """
        if index not in self._recent:
            self._read(index)
        self._recent.move_to_end(index)
        return self._recent[index]

    def _read(self, index: int) -> None:
        """Decode a frame; with an earlier one, those before it too, which reverse tracking wants
        next.
        """
        first = index
        if index < self._next:
            first = max(0, index - LOOKBACK + 1)
            self._seek(first)
        for number in range(first, index + 1):
            if number in self._recent:
                continue
            picture = Image.fromarray(cv2.cvtColor(self._decode(number), cv2.COLOR_BGR2RGB))
            self._recent[number] = model_image(picture, self._image_size)
            if len(self._recent) > LOOKBACK:
                self._recent.popitem(last=False)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Go on to frame `index`, at or after the next one: [H,W,3] BGR."""
        while self._next <= index:
            if not self._capture.grab():
                raise SourceError(
                    f"{self._path} has {len(self._times)} frames, but frame {self._next} cannot be "
                    "decoded again; was the file changed?"
                )
            self._next += 1
        ok, picture = self._capture.retrieve()
        if not ok:
            raise SourceError(f"frame {index} of {self._path} cannot be decoded; repair the file")
        return cast("NDArray[np.uint8]", picture)

    def _seek(self, index: int) -> None:
        """Go back, so that frame `index` is at or after the next one."""
        wanted = index
        while wanted > 0 and self._numbers:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, wanted)
            found = self._numbers.get(_time(self._capture)) if self._capture.grab() else None
            if found is not None and found < index:
                self._next = found + 1
                return
            wanted -= LOOKBACK
        self._capture.release()
        self._capture, self._next = _open_video(self._path), 0

    def _frame_times(self) -> Iterator[float]:
        capture = _open_video(self._path)
        try:
            while capture.grab():
                yield _time(capture)
        finally:
            capture.release()


def model_image(picture: Image.Image, size: int) -> ModelImage:
    """An RGB picture as the encoder's input [1,size,size,3], aspect not kept (SAM 2,
    `_load_img_as_tensor`).
    """
    resized = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.uint8)[None]


def _frames_of(folder: Path) -> list[Path]:
    if any(path.suffix.lower() in JPEG_SUFFIXES for path in folder.iterdir()):
        return image_files(folder, JPEG_SUFFIXES)
    return image_files(folder)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be decoded as an image; remove or repair it") from error


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be opened as a video; check that it is one")
    return capture


def _time(capture: cv2.VideoCapture) -> float:
    """The time of the frame that was grabbed last, milliseconds."""
    return float(capture.get(cv2.CAP_PROP_POS_MSEC))
