"""Access control: token, host and origin checks, response headers, rate limit."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from sam2_edge.errors import Sam2EdgeError

COOKIE = "sam2_edge_token"

HEADERS = {
    # Scripts, styles and connections are the page's own; images arrive over the WebSocket.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

RATE_PER_S, BURST = 20.0, 40.0
"""Limits on the messages of one viewer."""

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Access:
    """Who may view and control the loop.

    Attributes:
        token: What a viewer must present; None admits everyone who uses a loopback address.
        origins: Origins of further pages that may connect, such as https://robot.example for a
            proxy.
    """

    token: str | None
    origins: Sequence[str] = ()

    def is_authorized(self, connection: HTTPConnection) -> bool:
        """Whether a request may view and control the loop."""
        if self.token is None:
            # A foreign page whose DNS name was rebound to this machine still sends that name.
            return is_local(_host_name(connection)) or self._is_listed(connection)
        given = (
            connection.cookies.get(COOKIE, ""),  # may be of an earlier start
            connection.query_params.get("token", ""),
            connection.headers.get("authorization", "").removeprefix("Bearer "),
        )
        token = self.token.encode()
        return any(hmac.compare_digest(one.encode(), token) for one in given)

    def is_same_origin(self, connection: HTTPConnection) -> bool:
        """Whether this server's page opened a WebSocket, or a program, which sends no origin."""
        origin = connection.headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        return _netloc(origin) == connection.headers.get("host")

    def is_encrypted(self, connection: HTTPConnection) -> bool:
        """Whether a request came over TLS, here or at a proxy."""
        tls_proxy = any(origin.startswith("https:") for origin in self.origins)
        return connection.url.scheme == "https" or (tls_proxy and self._is_listed(connection))

    def _is_listed(self, connection: HTTPConnection) -> bool:
        host = connection.headers.get("host", "")
        return any(_netloc(origin) == host for origin in self.origins)


class TokenBucket:
    """Rate limit of one viewer: `BURST` messages at once, `RATE_PER_S` on average."""

    def __init__(self) -> None:
        self._left = BURST
        self._updated_s = time.monotonic()

    def take(self) -> bool:
        """Take a token for one message; False if there is none."""
        now = time.monotonic()
        self._left = min(BURST, self._left + RATE_PER_S * (now - self._updated_s))
        self._updated_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def make_access(host: str, token: str | None, origins: Sequence[str]) -> Access:
    """Make the access rules for an address to listen on, with a random token if one is needed.

    Raises:
        Sam2EdgeError: If the token is too short or an origin is malformed.
    """
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise Sam2EdgeError(
            f"a token of {len(token)} characters is easy to guess; give {MIN_TOKEN_LENGTH} or "
            "more, or omit it to have one generated"
        )
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
            raise Sam2EdgeError(f"{origin} is not an origin; give it as https://robot.example")
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    return Access(token, tuple(origins))


def is_local(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(connection: HTTPConnection) -> str:
    try:
        return urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None if it is malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
