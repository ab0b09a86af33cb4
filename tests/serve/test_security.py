"""Who may view and control the loop."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from sam2_edge import Sam2EdgeError
from sam2_edge.serve.security import is_local, make_access
from tests.helpers.site import TOKEN, Site, next_frame


def test_without_a_token_only_loopback_names_are_answered(open_site: Site) -> None:
    assert httpx.get(open_site.url(), headers={"host": "evil.example"}).status_code == 401
    assert httpx.get(open_site.url(), headers={"host": "localhost:99"}).status_code == 200
    assert httpx.get(open_site.url("/healthz"), headers={"host": "probe"}).text == "ok"


@pytest.mark.parametrize("path", ["/", "/app.js", "/masks.png", "/metrics"])
def test_every_page_requires_the_token(guarded_site: Site, path: str) -> None:
    url = guarded_site.url(path)
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, params={"token": TOKEN[:-1]}).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_token_in_the_url_becomes_a_cookie(guarded_site: Site) -> None:
    with httpx.Client() as client:
        first = client.get(guarded_site.url(), params={"token": TOKEN})
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get(guarded_site.url()).status_code == 200


def test_a_stale_cookie_does_not_override_a_valid_token(guarded_site: Site) -> None:
    stale = {"cookie": "sam2_edge_token=" + "x" * 32}
    bearer = {**stale, "authorization": f"Bearer {TOKEN}"}
    in_url = httpx.get(guarded_site.url(), params={"token": TOKEN}, headers=stale)
    assert in_url.status_code == 303
    assert httpx.get(guarded_site.url(), headers=bearer).status_code == 200


def test_behind_a_tls_proxy_the_cookie_is_secure(guarded_site: Site) -> None:
    proxied = {"host": "robot.example"}
    answer = httpx.get(guarded_site.url(), params={"token": TOKEN}, headers=proxied)
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("host", ["[::1", "a b", "\u00e9".encode()])
def test_a_malformed_host_is_rejected(open_site: Site, host: str | bytes) -> None:
    assert httpx.get(open_site.url(), headers={"host": host}).status_code in (400, 401)


def test_a_websocket_requires_the_token_and_an_allowed_origin(guarded_site: Site) -> None:
    cookie = {"cookie": f"sam2_edge_token={TOKEN}"}
    with pytest.raises(InvalidStatus):
        guarded_site.socket()
    with pytest.raises(InvalidStatus):
        guarded_site.socket(additional_headers=cookie, origin="http://evil.example")
    for origin in (None, guarded_site.url(""), "https://robot.example"):
        with guarded_site.socket(additional_headers=cookie, origin=origin) as socket:
            next_frame(socket)


def test_a_public_address_gets_a_random_token() -> None:
    tokens = {make_access("0.0.0.0", None, ()).token for _ in range(3)}  # noqa: S104
    assert len(tokens) == 3
    assert all(token and len(token) >= 32 for token in tokens)


def test_a_loopback_address_needs_no_token() -> None:
    assert make_access("127.0.0.1", None, ()).token is None
    assert make_access("::1", None, ()).token is None
    assert make_access("localhost", TOKEN, ()).token == TOKEN
    assert is_local("127.3.4.5")
    assert not is_local("robot.local")


def test_a_short_token_and_a_malformed_origin_are_rejected() -> None:
    with pytest.raises(Sam2EdgeError, match="a token of 5 characters is easy to guess"):
        make_access("0.0.0.0", "short", ())  # noqa: S104
    with pytest.raises(Sam2EdgeError, match="robot.example is not an origin; give it as https"):
        make_access("localhost", None, ["robot.example"])
