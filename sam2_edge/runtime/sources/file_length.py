"""Whether a video file is shorter than its container declares: proof that it was cut off."""

from __future__ import annotations

from typing import BinaryIO

_SEGMENT = b"\x18\x53\x80\x67"
_SLACK_BYTES = 8
"""Some writers of AVI count the header of the file in its size."""

_SYNC = 0x47
_TS_PACKET_BYTES = 188


def is_cut_off(file: BinaryIO) -> bool:
    """Return whether bytes at the end of a video file are missing.

    ISO media (MP4, MOV), Matroska, AVI and MPEG transport streams tell; other containers do not,
    and neither do files that a recorder wrote without knowing their end.
    """
    before = file.tell()
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(64)
    try:
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return _end_of_boxes(file, size) > size
        if start[:4] == b"RIFF":
            return _end_of_riff(file, size) > size + _SLACK_BYTES
        if start[:4] == b"\x1a\x45\xdf\xa3":
            return _end_of_segment(start) > size
        file.seek(_TS_PACKET_BYTES)
        if start[:1] == file.read(1) == bytes([_SYNC]):
            return size % _TS_PACKET_BYTES != 0
    finally:
        file.seek(before)
    return False


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last top-level box of ISO media ends."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # up to the end of the file, or padding
            return size
        position += length
    return position


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """Return where the last RIFF chunk ends; large AVI files have several."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or length == 0:  # something appended, or no size written
            return position
        position += 8 + length + length % 2
    return position


def _end_of_segment(start: bytes) -> int:
    """Return where the segment of a Matroska file ends; 0 if that is unknown."""
    header_bytes, width = _variable_number(start[4:])
    position = 4 + width + (header_bytes or 0)
    if start[position : position + 4] != _SEGMENT:
        return 0
    length, width = _variable_number(start[position + 4 :])
    return 0 if length is None else position + 4 + width + length


def _variable_number(data: bytes) -> tuple[int | None, int]:
    """Return a number of EBML, None if it stands for unknown, and its width in bytes."""
    if not data or data[0] == 0:
        return None, 1
    width = 9 - data[0].bit_length()
    mask = (1 << 7 * width) - 1
    number = int.from_bytes(data[:width], "big") & mask
    return (None if number == mask else number), width
