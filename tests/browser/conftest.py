"""One server for all tests that visit it, and a page that tells what its console complained of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.browser.server import EAGER, PATIENCE, Server, serve


@pytest.fixture(scope="session")
def server(chromium_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serve(folder / "store", folder / "server.log", HBM_WORKERS="1", **EAGER) as running:
        yield running


class Errors(list[str]):
    """What the browser's console complained about."""


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    opened = context.new_page()
    opened.set_default_timeout(1000 * PATIENCE)
    errors = Errors()

    def listen(message: ConsoleMessage) -> None:
        # Opened at /page, Streamlit's client first asks for /page/_stcore/… to learn where it is mounted.
        probing = "404" in message.text and "/_stcore/" in str(message.location.get("url", ""))
        if message.type == "error" and not probing:
            errors.append(message.text)

    opened.on("console", listen)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    assert not errors, f"the console says: {errors}"


@pytest.fixture
def shots() -> Path:
    folder = Path(__file__).parents[2] / "shots"
    folder.mkdir(exist_ok=True)
    return folder
