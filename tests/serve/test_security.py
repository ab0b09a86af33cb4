"""Who may view and control the loop."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from sam2_edge import Sam2EdgeError
from sam2_edge.serve.origins import is_local, parse_origin
from sam2_edge.serve.security import make_access
from tests.helpers.prefix_proxy import PREFIX, prefix_proxy
from tests.helpers.site import TOKEN, Site, next_frame


def test_without_a_token_only_loopback_names_are_answered(open_site: Site) -> None:
    assert httpx.get(open_site.url(), headers={"host": "evil.example"}).status_code == 401
    assert httpx.get(open_site.url(), headers={"host": "localhost:99"}).status_code == 200
    assert httpx.get(open_site.url("/healthz"), headers={"host": "probe"}).text == "ok"


@pytest.mark.parametrize("path", ["/", "/app.js", "/masks.zip", "/metrics"])
def test_every_page_requires_the_token(guarded_site: Site, path: str) -> None:
    url = guarded_site.url(path)
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, params={"token": TOKEN[:-1]}).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_token_in_the_url_becomes_a_cookie(guarded_site: Site) -> None:
    with httpx.Client() as client:
        first = client.get(guarded_site.url(), params={"token": TOKEN})
        assert (first.status_code, first.headers["location"]) == (303, "./")
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


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "file://", "http://evil.example", "https://robot.example.evil.example"),
        *("https://{host}", "ftp://{host}", "chrome-extension://{host}", "http://{host}:1"),
        *("http://robot.example", "https://robot.example:8443", "https://x@robot.example"),
        *("https://robot.example/page", "http://127.0.0.1", "https://[::1", "\u00e9"),
    ],
)
def test_a_websocket_of_another_origin_is_refused(guarded_site: Site, origin: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    origin = origin.format(host=f"127.0.0.1:{guarded_site.port}")
    with pytest.raises(InvalidStatus) as refused:
        guarded_site.socket(additional_headers={**headers, "origin": origin})
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "HTTPS://Robot.Example",
        "https://robot.example:443",
        "https://robot.example.",
        "http://{host}",
    ],
)
def test_an_origin_may_be_spelled_in_many_ways(guarded_site: Site, origin: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    origin = origin.format(host=f"127.0.0.1:{guarded_site.port}")
    with guarded_site.socket(additional_headers={**headers, "origin": origin}) as socket:
        next_frame(socket)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https://Robot.example:443/", "https://robot.example"),
        ("http://robot.example.:80", "http://ROBOT.example:"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("https://r\u00f6bot.example", "https://xn--rbot-5qa.example"),
    ],
)
def test_equal_origins_compare_equal(first: str, second: str) -> None:
    assert parse_origin(first) == parse_origin(second) is not None


@pytest.mark.parametrize(
    "token", ["x" * 15, "", "\ud800" * 16, "\u00e9" * 16, "a b" * 16, "x\n" * 16]
)
def test_a_token_that_no_request_can_carry_is_rejected(token: str) -> None:
    with pytest.raises(Sam2EdgeError, match="token"):
        make_access("0.0.0.0", token, ())  # noqa: S104


@pytest.mark.parametrize("prefix", ["Bearer", "bearer", "BEARER "])
def test_a_token_with_any_printable_character_works_everywhere(prefix: str) -> None:
    token = "+&#%=?/;,\"'<>\\[]{}|^`~!$()*"  # noqa: S105
    with Site(make_access("127.0.0.1", token, ())) as site, httpx.Client() as client:
        bearer = {"authorization": f"{prefix} {token}"}
        assert httpx.get(site.url(), headers=bearer).status_code == 200
        assert client.get(site.url(f"?token={quote(token, safe='')}")).status_code == 303
        assert client.get(site.url()).status_code == 200


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"authorization": b"Bearer \xff\xe9"}},
        {"headers": {"authorization": TOKEN}},
        {"headers": {"authorization": f"Basic {TOKEN}"}},
        {"headers": {"cookie": b"sam2_edge_token=\xff\xfe"}},
        {"params": {"token": TOKEN + "\n"}},
    ],
)
def test_malformed_credentials_are_refused(guarded_site: Site, request_: dict[str, Any]) -> None:
    assert httpx.get(guarded_site.url(), **request_).status_code == 401
    assert httpx.get(guarded_site.url("?token=%ff%ed%a0%80")).status_code == 401


def test_a_wrong_token_in_the_url_does_not_replace_a_good_cookie(guarded_site: Site) -> None:
    good = {"cookie": f"sam2_edge_token={TOKEN}"}
    answer = httpx.get(guarded_site.url(), params={"token": "x" * 20}, headers=good)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert "set-cookie" not in answer.headers


def test_without_a_token_no_cookie_is_set(open_site: Site) -> None:
    answer = httpx.get(open_site.url(), params={"token": "x" * 20})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_sent_to_the_page_only(guarded_site: Site) -> None:
    with prefix_proxy(guarded_site.port) as url, httpx.Client() as client:
        assert client.get(url, params={"token": TOKEN}, follow_redirects=True).status_code == 200
        assert [cookie.path for cookie in client.cookies.jar] == [PREFIX.rstrip("/")]
        assert client.get(f"{url}metrics?token={TOKEN}").headers["location"] == "./metrics"


def test_other_origins_require_a_token() -> None:
    with pytest.raises(
        Sam2EdgeError, match="--allow-origin https://robot.example requires a token"
    ):
        make_access("localhost", None, ["https://robot.example"])
    assert make_access("0.0.0.0", None, ["https://robot.example"]).token  # noqa: S104


def test_a_short_token_and_a_malformed_origin_are_rejected() -> None:
    with pytest.raises(Sam2EdgeError, match="a token of 5 characters is easy to guess"):
        make_access("0.0.0.0", "short", ())  # noqa: S104
    with pytest.raises(Sam2EdgeError, match="robot.example is not an origin; give it as https"):
        make_access("localhost", None, ["robot.example"])
