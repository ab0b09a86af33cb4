"""What a source is, by what exists first and by its spelling then; and how to print it."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import unquote

_CSI = re.compile(r"csi(?::(\d+))?", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/(?:video\d+|v4l/.+)")
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(//.*)", re.IGNORECASE | re.DOTALL)
# pathlib shortens the two slashes of a URL to one.
_URL_OF_PATH = re.compile(r"([a-z][a-z0-9+.-]+):(/.*)", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?", re.DOTALL)
_ELEMENT = re.compile(r"[a-z][\w/-]*(?![\w/.:=-])", re.IGNORECASE)
_SECRET = re.compile(
    r"((?:pass|pas|pwd|pw|token|secret|key|auth|sig|cred|session)[\w-]*=)[^\s/]+", re.IGNORECASE
)


class SourceKind(Enum):
    """What a source is."""

    FILE = "file"
    FOLDER = "folder"
    DEVICE = "camera device"
    NUMBER = "camera number"
    CSI = "CSI camera"
    PIPELINE = "GStreamer pipeline"
    STREAM = "network stream"


@dataclass(frozen=True, slots=True)
class Location:
    """A source's kind, and its path, number, URL or pipeline; `str` hides its credentials."""

    kind: SourceKind
    text: str

    @property
    def is_camera(self) -> bool:
        """Whether it is a camera, a stream or a pipeline rather than a file or folder."""
        return self.kind not in (SourceKind.FILE, SourceKind.FOLDER)

    @property
    def path(self) -> Path:
        """The path of a file or folder."""
        return Path(self.text)

    def __str__(self) -> str:
        return redact(self.text)


def locate(source: str | Path) -> Location:
    """Tell what a source is.

    A file, folder or device that exists is taken for what it is, whatever its name. Other names are
    taken for a GStreamer pipeline (with " ! "), a CSI camera (csi, csi:1), the number of a camera,
    a URL (in any case) or a camera that is not connected (/dev/video0). What is left is a file.
    """
    text = str(source)
    existing = _existing(Path(source))
    if existing is not None:
        return Location(existing, text)
    url = (_URL_OF_PATH if isinstance(source, Path) else _URL).fullmatch(text)
    if " ! " in text:
        kind = SourceKind.PIPELINE
    elif _CSI.fullmatch(text):
        kind = SourceKind.CSI
    elif text.isascii() and text.isdecimal():
        kind = SourceKind.NUMBER
    elif url and url[1].lower() == "file":
        path = Path("/", unquote(url[2], errors="surrogateescape").removeprefix("//localhost/"))
        return Location(_existing(path) or SourceKind.FILE, str(path))
    elif url:
        kind = SourceKind.STREAM
    elif _DEVICE.fullmatch(text):
        kind = SourceKind.DEVICE
    else:
        kind = SourceKind.FILE
    return Location(kind, text)


def csi_sensor(location: Location) -> int:
    """Return the number of a CSI camera's sensor."""
    found = _CSI.fullmatch(location.text)
    return int(found[1] or 0) if found else 0


def redact(source: str | Path) -> str:
    """Return a source as it may be printed, logged and stored: without credentials.

    Of a URL, the user, the password and the query are left out; of a pipeline, everything but the
    names of its elements. Paths stay as they are.
    """
    text = str(source)
    if " ! " in text:
        elements = [_ELEMENT.match(part.strip()) for part in _QUOTED.sub('""', text).split("!")]
        return " ! ".join(element[0] if element else "..." for element in elements)
    url = _URL_OF_PATH.fullmatch(text)
    if url is None or url[1].lower() == "file":
        return text
    slashes = "//" if url[2].startswith("//") else "/"
    # The last @ ends the credentials: passwords may hold another one, or a slash.
    credentials, at, rest = url[2][len(slashes) :].rpartition("@")
    place, query, _ = re.split(r"([?#]|$)", rest, maxsplit=1)
    hidden = _SECRET.sub(r"\1***", place)
    user = "***@" if at and credentials else ""
    return f"{url[1]}:{slashes}{user}{hidden}{'?***' if query else ''}"


def _existing(path: Path) -> SourceKind | None:
    """Return what exists at a path; None if nothing does."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return SourceKind.FILE  # opening it tells the reason
    except (OSError, ValueError):  # nothing, or a name that no file can have
        return None
    if stat.S_ISDIR(mode):
        return SourceKind.FOLDER
    return SourceKind.DEVICE if stat.S_ISCHR(mode) else SourceKind.FILE
