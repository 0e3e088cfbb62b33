"""The cookie by which a browser is known again, on answers made up here."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from streamlit import config

from hbm_core.store.access import is_visitor_token, visitor_token
from hbm_core.ui.server import COOKIE_SECONDS, MIDDLEWARE, SecurityHeaders, VisitorCookie
from tests.asynchronous import run


def answered(kind="text/html; charset=utf-8", cookie=None, scheme="http", asked=None, **headers):
    """Headers of an answer of that kind, through the middleware; `asked` gets those that the app saw."""
    asked = [] if asked is None else asked
    sent = []

    async def app(scope, receive, send):
        asked.extend(name.decode() for name, _ in scope["headers"])
        start = [(b"content-type", kind.encode()), (b"cache-control", b"public, max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message):
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if cookie is not None:
        given.append((b"cookie", f"other=1; hbm_visitor={cookie}".encode()))
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": scheme, "headers": given}
    run(VisitorCookie(app)(scope, None, send))
    assert sent[-1]["body"] == b"x"
    return [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


def cookie_of(headers):
    (text,) = [value for name, value in headers if name == "set-cookie"]
    return SimpleCookie(text)["hbm_visitor"]


def test_a_page_brings_the_cookie_out_of_reach_of_scripts_and_other_sites():
    headers = answered()
    cookie = cookie_of(headers)
    assert is_visitor_token(cookie.value)
    assert cookie["httponly"] and cookie["samesite"] == "Lax" and cookie["path"] == "/"
    assert int(cookie["max-age"]) == COOKIE_SECONDS >= 180 * 86400
    assert not cookie["secure"] and not cookie["domain"]
    assert dict(headers)["cache-control"] == "no-store", "no cache hands one visitor's name to the next"
    assert cookie_of(answered()).value != cookie.value


@pytest.mark.parametrize("how", [{"scheme": "https"}, {"x_forwarded_proto": "https, http"}])
def test_where_the_page_came_encrypted_so_does_the_cookie(how):
    assert cookie_of(answered(**how))["secure"]


def test_the_cookie_stays_under_the_base_path(monkeypatch):
    real = config.get_option
    monkeypatch.setattr(
        "streamlit.get_option", lambda name: "/pool/ing/" if name == "server.baseUrlPath" else real(name)
    )
    assert cookie_of(answered())["path"] == "/pool/ing"


def test_a_known_browser_keeps_its_cookie_and_its_cache():
    headers = answered(cookie=visitor_token())
    assert not [name for name, _ in headers if name == "set-cookie"]
    assert dict(headers)["cache-control"] == "public, max-age=60"


@pytest.mark.parametrize("bad", ["", "short", "x" * 33, "a" * 31 + "%", "'; DROP TABLE uploads"])
def test_a_malformed_cookie_is_replaced(bad):
    assert is_visitor_token(cookie_of(answered(cookie=bad)).value)


@pytest.mark.parametrize("kind", ["application/json", "text/javascript", "image/png"])
def test_what_is_no_page_brings_no_cookie(kind):
    assert not [name for name, _ in answered(kind) if name == "set-cookie"]


def test_a_browser_that_kept_its_cache_but_not_its_cookies_gets_a_whole_page():
    asked = []
    cookie_of(answered(asked=asked, accept="text/html,*/*", if_none_match='"1"', if_modified_since="then"))
    assert asked == ["accept"]
    answered(asked=(known := []), accept="text/html", if_none_match='"1"', cookie=visitor_token())
    assert "if-none-match" in known


def test_the_server_uses_it_and_the_security_headers():
    used = [one.cls for one in MIDDLEWARE]
    assert VisitorCookie in used and SecurityHeaders in used
