"""The explorer's script has an address of its own, and the component fetches it from there."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Match

from hbm_core.ui import explorer_script
from hbm_core.ui.explorer_component import joined
from hbm_core.ui.metrics import ROUTES
from tests.asynchronous import run


def answers(path: str) -> object:
    """What the server calls for an address: of its routes the first that takes it."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    return next(route.endpoint for route in ROUTES if route.matches(scope)[0] is Match.FULL)


def test_the_script_is_served_and_may_be_kept_for_good():
    assert answers(f"/{explorer_script.path()}") is explorer_script.script
    answer = run(explorer_script.script(Request({"type": "http", "method": "GET", "headers": []})))
    assert bytes(answer.body).decode() == joined()
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]


def test_another_script_has_no_address():
    assert answers("/api/explorer-0123456789abcdef.js") is not explorer_script.script


def test_the_message_names_the_script_instead_of_repeating_it(monkeypatch):
    monkeypatch.setattr(explorer_script, "get_option", lambda name: "/pooling/")
    said = explorer_script.loader()
    assert f'"/pooling/{explorer_script.path()}"' in said
    assert len(said) < 600
