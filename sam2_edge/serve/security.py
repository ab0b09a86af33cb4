"""Who may look and steer: token, host and origin, headers, and how often a viewer may ask."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from sam2_edge.errors import Sam2EdgeError

COOKIE = "sam2_edge_token"

HEADERS = {
    # Scripts, styles and connections are the page's own; pictures come over the WebSocket.
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
"""Messages of one viewer."""

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """token: None lets in whoever reaches this machine's own address. origins: of pages elsewhere
    that may connect too, such as https://robot.example behind a proxy.
    """

    token: str | None
    origins: Sequence[str] = ()

    def is_authorized(self, connection: HTTPConnection) -> bool:
        """Whether a request comes from somebody who may look and steer."""
        if self.token is None:
            # A page elsewhere whose name is made to point here would come under its own name.
            return is_local(_host_name(connection)) or self._is_listed(connection)
        given = (
            connection.cookies.get(COOKIE, ""),  # perhaps of an earlier start
            connection.query_params.get("token", ""),
            connection.headers.get("authorization", "").removeprefix("Bearer "),
        )
        token = self.token.encode()
        return any(hmac.compare_digest(one.encode(), token) for one in given)

    def is_own_page(self, connection: HTTPConnection) -> bool:
        """Whether a WebSocket was opened by our page; programs send no origin."""
        origin = connection.headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        return _place(origin) == connection.headers.get("host")

    def is_encrypted(self, connection: HTTPConnection) -> bool:
        """Whether the viewer came over TLS, here or at a proxy."""
        listed = any(o.startswith("https:") for o in self.origins) and self._is_listed(connection)
        return connection.url.scheme == "https" or listed

    def _is_listed(self, connection: HTTPConnection) -> bool:
        host = connection.headers.get("host", "")
        return any(_place(origin) == host for origin in self.origins)


@dataclass(slots=True)
class TokenBucket:
    """How often one viewer may still ask: a bucket that fills up again."""

    left: float = BURST
    _last_s: float = field(default_factory=time.monotonic)

    def take(self) -> bool:
        """Whether one more message is allowed now."""
        now = time.monotonic()
        self.left = min(BURST, self.left + RATE_PER_S * (now - self._last_s))
        self._last_s = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def access_for(host: str, token: str | None, origins: Sequence[str]) -> Access:
    """The access rules for an address to listen on; a token is made where one is needed.

    Raises Sam2EdgeError for a token that is too short, and for origins that are none.
    """
    if token is not None and len(token) < 16:
        raise Sam2EdgeError(
            f"a token of {len(token)} characters can be guessed; give 16 or more, or leave it out "
            "to have one made"
        )
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
            raise Sam2EdgeError(f"{origin} is not an origin; give it as https://robot.example")
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    return Access(token, tuple(origins))


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host in _LOCAL_HOSTS:
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


def _place(origin: str) -> str | None:
    """Host and port of an origin; None where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
