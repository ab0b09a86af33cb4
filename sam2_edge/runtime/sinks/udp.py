"""Results over UDP for other processes of a robot: one JSON datagram per object and frame."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.jsonl import json_record
from sam2_edge.runtime.sources import SourceFrame

MAX_DATAGRAM_BYTES = 60_000
"""Below UDP's own limit of 65,507."""


class UdpJson:
    """Sends the records of `JsonLines`; `rle` is null if the mask would make a datagram too large.

    If there is no receiver, datagrams are lost without an error.

    Raises:
        SinkError: If the address cannot be resolved.
    """

    starts_new_file = False

    def __init__(self, host: str, port: int) -> None:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind)
        except (OSError, OverflowError) as error:
            raise SinkError(
                f"{host}:{port} is not a valid UDP address: {error}; give HOST:PORT"
            ) from error
        self._address = address
        self._socket.settimeout(0)

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Send every object of a frame."""
        for entry in result.objects:
            record = json_record(frame, result, entry)
            data = json.dumps(record).encode()
            if len(data) > MAX_DATAGRAM_BYTES:
                data = json.dumps(record | {"rle": None}).encode()
            with suppress(OSError):  # no receiver, no network, or its buffer is full
                self._socket.sendto(data, self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
