"""Web origins in one spelling, so that two that mean the same compare equal."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port of a page (RFC 6454)."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """Parse an origin such as `https://robot.example:8443`; None if it is not one.

    Case, a default port, a trailing dot or slash, non-ASCII names and the spelling of an IPv6
    address make no difference.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    host = _normal_host(parts.hostname or "")
    if not host or parts.scheme not in _DEFAULT_PORTS or port == 0:
        return None
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])


def parse_host(header: str, scheme: str = "http") -> Origin | None:
    """Parse a Host header of a request with a scheme; None if it is malformed."""
    if set(header) & set("/?#\\"):
        return None
    return parse_origin(f"{scheme}://{header}")


def is_local(host: str) -> bool:
    """Return whether an address is reachable from this machine only."""
    host = _normal_host(host)
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _normal_host(host: str) -> str:
    host = host.lower().removesuffix(".")
    try:
        return ip_address(host).compressed
    except ValueError:
        pass
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return ""
