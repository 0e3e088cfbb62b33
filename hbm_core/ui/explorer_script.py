"""The explorer's JavaScript under an address of its own.

Streamlit sends a component's script along with its data, at every change of a prior: five times the bytes.
"""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response
from streamlit import get_option

from hbm_core.ui.explorer_component import joined


@cache
def path() -> str:
    """Path of the script under the app's own; another script has another."""
    return f"api/explorer-{sha256(joined().encode()).hexdigest()[:16]}.js"


async def script(request: Request) -> Response:
    """Send the script, to be kept for as long as its address lasts."""
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(joined(), media_type="text/javascript", headers=headers)


def loader() -> str:
    """What Streamlit sends instead: a module that fetches the script.

    Where a proxy serves the app under a path that the server does not know of, the page's own path leads
    there.
    """
    base = (get_option("server.baseUrlPath") or "").strip("/")
    own = json.dumps(f"/{base}/{path()}" if base else f"/{path()}")
    return f"""
const own = new URL({own}, window.location.origin).href;
const beside = new URL({json.dumps(path())}, window.location.origin + window.location.pathname).href;
const {{ default: explorer }} = await import(own).catch(() => import(beside));
export default explorer;
"""
