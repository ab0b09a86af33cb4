"""Access control: token, host and origin checks, response headers and rate limits."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from starlette.requests import HTTPConnection

from sam2_edge.errors import Sam2EdgeError

COOKIE = "sam2_edge_token"

HEADERS = {
    # Only same-origin scripts, styles and connections; images arrive over the WebSocket.
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
"""Rate limit on each viewer's messages."""

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Access:
    """Who may view and control the loop.

    Attributes:
        token: Secret that viewers must present; None admits everyone who uses a loopback address.
        origins: Additional origins that may connect, such as https://robot.example for a proxy.
    """

    token: str | None
    origins: Sequence[str] = ()

    def is_authorized(self, connection: HTTPConnection) -> bool:
        """Return whether a request may view and control the loop."""
        if self.token is None:
            # Against DNS rebinding: a foreign page's requests still carry its host name.
            host = _split(f"//{connection.headers.get('host', '')}").hostname
            return is_local(host or "") or self._is_listed(connection)
        candidates = (
            connection.cookies.get(COOKIE, ""),  # possibly from an earlier run
            connection.query_params.get("token", ""),
            connection.headers.get("authorization", "").removeprefix("Bearer "),
        )
        token = self.token.encode()
        return any(hmac.compare_digest(text.encode(), token) for text in candidates)

    def is_same_origin(self, connection: HTTPConnection) -> bool:
        """Return whether a WebSocket comes from an allowed page, or a program without an origin."""
        origin = connection.headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        return _split(origin).netloc == connection.headers.get("host")

    def is_encrypted(self, connection: HTTPConnection) -> bool:
        """Return whether a request was encrypted with TLS, by this server or a proxy."""
        tls_proxy = any(origin.startswith("https:") for origin in self.origins)
        return connection.url.scheme == "https" or (tls_proxy and self._is_listed(connection))

    def _is_listed(self, connection: HTTPConnection) -> bool:
        host = connection.headers.get("host", "")
        return any(_split(origin).netloc == host for origin in self.origins)


class TokenBucket:
    """Rate limit of one viewer: `BURST` messages at once, `RATE_PER_S` on average."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._updated_s = time.monotonic()

    def take(self) -> bool:
        """Take a token for one message; returns False if there is none."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + RATE_PER_S * (now - self._updated_s))
        self._updated_s = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def make_access(host: str, token: str | None, origins: Sequence[str]) -> Access:
    """Create the access rules for a listening address, with a random token if one is required.

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
    """Return whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    """Split a URL; all parts are empty if it is malformed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
