"""The ASGI application around Streamlit: workers, security headers, a visitor's cookie."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hbm_core.store.access import is_visitor_token, visitor_token
from hbm_core.store.cluster import open_crew
from hbm_core.store.gallery import enter_into
from hbm_core.store.settings import Settings
from hbm_core.ui.session import COOKIE

#: How long a visitor is known: the longest that browsers keep a cookie.
COOKIE_SECONDS = 400 * 86400
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'; object-src 'none'; base-uri 'self'"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class SecurityHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, headers added to its answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)


class VisitorCookie:
    """Gives a browser without one the cookie by which its visitor's fits and uploads are found again.

    The cookie cannot be read by scripts, is not sent along by other sites' forms, and travels only encrypted
    where the page came so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a page's answer brings the cookie where it was absent or malformed."""
        if scope["type"] != "http" or is_visitor_token(HTTPConnection(scope).cookies.get(COOKIE)):
            await self.app(scope, receive, send)
            return

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("set-cookie", visitor_cookie(scope))
                    # A shared cache would hand one visitor's name to the next.
                    headers["cache-control"] = "no-store"
                    message["headers"] = headers.raw
            await send(message)

        await self.app(_unconditional(scope), receive, with_cookie)


def _unconditional(scope: Scope) -> Scope:
    """The request without its conditions where it asks for a page.

    A browser whose cookies were cleared, but not its cache, would hear "not modified", and stay unknown.
    """
    if "text/html" not in Headers(scope=scope).get("accept", ""):
        return scope
    kept = [pair for pair in scope["headers"] if pair[0] not in (b"if-none-match", b"if-modified-since")]
    return {**scope, "headers": kept}


def visitor_cookie(scope: Scope) -> str:
    """A fresh visitor's cookie, as the header says it."""
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    forwarded = Headers(scope=scope).get("x-forwarded-proto", "")
    secure = "; Secure" if "https" in (scope.get("scheme"), forwarded.split(",")[0].strip()) else ""
    return (
        f"{COOKIE}={visitor_token()}; Path=/{base}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}"
    )


def warm_up() -> None:
    """Import and run once what the first visitor would otherwise wait for."""
    from hbm_core.inference.exact import solve
    from hbm_core.plots.first_look import funnel, funnel_table
    from hbm_core.scenarios import scenarios
    from hbm_core.store.study import Study
    from hbm_core.ui import background, explore  # noqa: F401

    for id in scenarios():
        study = Study.default(id)
        if not study.declared.exact:
            study.spec(study.data())
            continue
        solve(study.spec(study.data())).settle()
    first = Study.default()
    funnel(*funnel_table(first.spec(first.data()).structure), "", "light").to_dict()
    # What lives until the server stops need not be walked by every collection.
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Start the workers with the server, and stop them with it."""
    settings = Settings.from_environment()
    supervisor = open_crew(settings)
    # A thread that answers in a moment must not wait behind those that compute for the usual 5 ms each time.
    sys.setswitchinterval(0.001)
    await asyncio.to_thread(supervisor.start)
    if settings.gallery:
        await asyncio.to_thread(enter_into, settings)
    await asyncio.to_thread(warm_up)
    try:
        yield {"settings": settings}
    finally:
        await asyncio.to_thread(supervisor.stop)


MIDDLEWARE = [Middleware(SecurityHeaders), Middleware(VisitorCookie)]
