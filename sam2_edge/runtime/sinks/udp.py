"""Results over UDP for other processes of a robot: one JSON datagram per object and frame."""

from __future__ import annotations

import json
import re
import socket

from sam2_edge.errors import LostResultError, SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.jsonl import json_record
from sam2_edge.runtime.sources import SourceFrame

MAX_DATAGRAM_BYTES = 60_000
"""Below UDP's own limit of 65,507."""


_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})")

MAX_HOST_LENGTH = 253
"""Limit of DNS names, in characters."""


class UdpJson:
    """Sends the records of `JsonLines`; `rle` is null if the mask would make a datagram too large.

    If there is no receiver, datagrams are lost without an error.

    Args:
        host: A name or an address, which is resolved once.
        port: 1 to 65535.

    Raises:
        SinkError: If the address is invalid or cannot be resolved.
    """

    starts_new_file = False

    def __init__(self, host: str, port: int) -> None:
        if not 0 < len(host) <= MAX_HOST_LENGTH:
            raise SinkError(
                f"a UDP host has {len(host)} characters; give a name or an address of 1 to "
                f"{MAX_HOST_LENGTH}"
            )
        if not 0 < port < 65536:
            raise SinkError(f"UDP port {port} does not exist; give one from 1 to 65535")
        self._name = f"{host}:{port}"
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind)
        except (OSError, ValueError) as error:  # ValueError: letters that no name can have
            reason = error.strerror if isinstance(error, OSError) else "it is not a host name"
            raise SinkError(
                f"UDP address {self._name} cannot be used: {reason}; give the HOST:PORT of a "
                "machine that this one can reach"
            ) from error
        self._address = address
        self._socket.settimeout(0)

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Send every object of a frame.

        Raises:
            LostResultError: If there is no network, or it is too slow.
        """
        failure: OSError | None = None
        for entry in result.objects:
            record = json_record(frame, result, entry)
            data = json.dumps(record).encode()
            if len(data) > MAX_DATAGRAM_BYTES:
                data = json.dumps(record | {"rle": None}).encode()
            try:
                self._socket.sendto(data, self._address)
            except OSError as error:
                failure = error
        if failure is not None:
            raise LostResultError(
                f"results for {self._name} are lost: {failure.strerror}; sending continues"
            ) from failure

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def parse_address(text: str) -> tuple[str, int] | None:
    """Split HOST:PORT, where an IPv6 address is in brackets; None if it is something else."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        return None
    return match["v6"] or match["host"], int(match["port"])
