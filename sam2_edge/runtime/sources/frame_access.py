"""Frames of a video file by their exact numbers.

The packets of the file are listed once, without decoding. A frame is then reached by decoding from
the key frame before it. The numbers are those of `VideoFile`, which counts decoded frames.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.video import open_decoder

CHECKED_FRAMES = 32
"""Frames that are decoded to check the list of packets. Some decoders give no picture for some
packets, or two packets hold one picture: then the whole file is decoded to list its frames."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Times of the frames in the order of display, and which of them can be decoded first.

    Attributes:
        count: Number of frames.
        times: Their times, rising; empty if the file has no usable times.
        keys: Numbers of the key frames, rising.
    """

    count: int
    times: array[int]
    keys: list[int]


class NumberedFrames:
    """Frames of a video file, each by its exact number.

    Raises:
        SourceError: If the file is no video or has no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = _read_index(path)
        self._decoder = open_decoder(path)
        self._frames, self._next = self._decoder.frames(), 0

    def __len__(self) -> int:
        return self._index.count

    def read(self, number: int) -> Frame:
        """Return frame `number`, from 0, as [H, W, 3] uint8 BGR.

        Raises:
            SourceError: If it cannot be decoded.
        """
        key = self._key_before(number)
        if number < self._next or key > self._next:
            self._start_at(key)
        for frame in self._frames:
            if self._index.times and frame.pts != self._index.times[self._next]:
                break
            self._next += 1
            if self._next > number:
                return self._decoder.picture(frame)
        raise SourceError(
            f"frame {self._next} of {self._path} cannot be decoded, though it has {len(self)} "
            "frames; repair the file"
        )

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    def _key_before(self, number: int) -> int:
        """Return the number of the last key frame up to a frame; 0 if there is none."""
        place = bisect_right(self._index.keys, number)
        return self._index.keys[place - 1] if place else 0

    def _start_at(self, key: int) -> None:
        """Make a key frame, or an earlier one if its pictures are not complete, the next frame."""
        while key > 0:
            frames = self._frames_from(key)
            if frames is not None:
                self._frames, self._next = frames, key
                return
            key = self._key_before(key // 2)
        self._decoder.restart()
        self._frames, self._next = self._decoder.frames(), 0

    def _frames_from(self, key: int) -> Iterator[av.VideoFrame] | None:
        """Return the frames from a key frame on; None if pictures before it are needed."""
        time = self._index.times[key]
        decoded = self._decoder.frames_from(self._packets_from(time, key))
        for frame in decoded:
            # Frames that precede the key frame in time need pictures before it.
            if frame.pts is not None and frame.pts >= time:
                complete = frame.pts == time and frame.key_frame
                return itertools.chain([frame], decoded) if complete else None
        return None

    def _packets_from(self, time: int, key: int) -> Iterator[av.Packet[Any]]:
        """Return the packets from a key frame on."""
        # Some containers are searched inexactly: then from the key frame before, then from 0.
        for start in (time, self._index.times[self._key_before(key - 1)]):
            self._decoder.seek(start)
            found = _after(self._decoder.packets(), time)
            if found is not None:
                return found
        self._decoder.restart()
        return _after(self._decoder.packets(), time) or iter(())


def _after(packets: Iterator[av.Packet[Any]], time: int) -> Iterator[av.Packet[Any]] | None:
    """Return packets from that of the key frame at `time` on; None if it has passed."""
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None and packet.pts >= time:
            return itertools.chain([packet], packets) if packet.pts == time else None
    return None


def _read_index(path: Path) -> _Index:
    times, keys = _packet_times(path)
    with closing(open_decoder(path)) as decoder:
        frames = decoder.frames()
        first = [frame.pts for frame in itertools.islice(frames, CHECKED_FRAMES)]
        if not first:
            raise SourceError(f"{path} has no frame that can be decoded; give another video")
        if times and first[0] is not None:
            del times[: bisect_left(times, first[0])]  # packets before the first key frame
            if list(times[: len(first)]) == first:
                return _Index(len(times), times, _numbers_of(keys, times))
        return _Index(len(first) + sum(1 for _ in frames), array("q"), [])


def _packet_times(path: Path) -> tuple[array[int], list[int]]:
    """Return the times of packets, rising, and of those with key frames; empty if unusable."""
    times, keys = array("q"), []
    with closing(open_decoder(path)) as decoder:
        for packet in decoder.shown_packets():
            if packet.pts is None:
                return array("q"), []
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    if len(set(times)) < len(times):
        return array("q"), []
    return array("q", sorted(times)), keys


def _numbers_of(times: list[int], of: array[int]) -> list[int]:
    """Return the numbers of frames by their times, rising."""
    return sorted(bisect_left(of, time) for time in times if time >= of[0])
