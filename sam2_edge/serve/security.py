"""Access control: token, host and origin checks, response headers and rate limits."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.serve.origins import is_local, parse_host, parse_origin

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
"""Headers of every answer, those to malformed requests included."""

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
            host = parse_host(connection.headers.get("host", ""))
            return host is not None and is_local(host.host)
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        return (
            self._is_token(connection.cookies.get(COOKIE, ""))  # possibly from an earlier run
            or self.is_authorized_by_url(connection)
            or (scheme.lower() == "bearer" and self._is_token(bearer.strip()))
        )

    def is_authorized_by_url(self, connection: HTTPConnection) -> bool:
        """Return whether the URL of a request has the token."""
        return self._is_token(connection.query_params.get("token", ""))

    def is_same_origin(self, connection: HTTPConnection) -> bool:
        """Return whether a WebSocket comes from an allowed page, or a program without an origin."""
        header = connection.headers.get("origin")
        if header is None:
            return True
        origin = parse_origin(header)
        # This server speaks plain HTTP; a page of another scheme is a proxy's and has to be listed.
        return origin is not None and (
            origin == parse_host(connection.headers.get("host", ""))
            or origin in map(parse_origin, self.origins)
        )

    def is_encrypted(self, connection: HTTPConnection) -> bool:
        """Return whether a request came through a proxy with TLS."""
        host = parse_host(connection.headers.get("host", ""), "https")
        return host is not None and host in map(parse_origin, self.origins)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())


class TokenBucket:
    """A rate limit: `burst` at once, `rate_per_s` on average; by default on messages."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens = burst
        self._updated_s = time.monotonic()

    def take(self) -> bool:
        """Take a token; returns False if there is none."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + self._rate_per_s * (now - self._updated_s))
        self._updated_s = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def make_access(host: str, token: str | None, origins: Sequence[str]) -> Access:
    """Create the access rules for a listening address, with a random token if one is required.

    Raises:
        Sam2EdgeError: If the token is too short or has characters that a URL, a header or a cookie
            cannot carry, an origin is malformed, or pages of other origins would need no token.
    """
    if token is not None:
        _check_token(token)
    for origin in origins:
        if parse_origin(origin) is None:
            raise Sam2EdgeError(f"{origin} is not an origin; give it as https://robot.example")
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    if token is None and origins:
        raise Sam2EdgeError(
            f"--allow-origin {origins[0]} requires a token, because whoever reaches the proxy "
            "could control the loop; set SAM2_EDGE_TOKEN"
        )
    return Access(token, tuple(origins))


def _check_token(token: str) -> None:
    if not all("!" <= character <= "~" for character in token):
        raise Sam2EdgeError(
            "the token has a character other than printable ASCII, which a header cannot carry; "
            "make one with: openssl rand -hex 24"
        )
    if len(token) < MIN_TOKEN_LENGTH:
        raise Sam2EdgeError(
            f"a token of {len(token)} characters is easy to guess; give {MIN_TOKEN_LENGTH} or "
            "more, or omit it to have one generated"
        )
