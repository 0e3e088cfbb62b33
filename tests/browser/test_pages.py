"""Every page, opened cold by its link: finished, readable at both widths, in both themes, and accessible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.server import PATIENCE, ROOT, Server, settled

pytestmark = pytest.mark.browser
PAGES = [path.stem for path in sorted((ROOT / "pages").glob("*.py"))]
#: Streamlit's own: rule → what its markup has in it. (Its navigation nests group headings in a list.)
BASELINE: dict[str, str] = json.loads((Path(__file__).parent / "axe_baseline.json").read_text())


def path_of(name: str) -> str:
    return "/" if name == "explore" else f"/{name}"


@pytest.mark.parametrize("name", PAGES)
def test_a_cold_link_opens_a_finished_page(page: Page, server: Server, name: str) -> None:
    page.goto(server.url + path_of(name))
    settled(page)
    expect(page.get_by_test_id("stSidebar")).to_contain_text("Data set")
    assert background(page) == "rgb(255, 255, 255)"
    assert page.locator("[data-testid=stException]").count() == 0
    assert len(page.get_by_test_id("stMainBlockContainer").inner_text()) > 200


def background(page: Page) -> str:
    return page.get_by_test_id("stApp").evaluate("node => getComputedStyle(node).backgroundColor")


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_in_the_dark_shows_the_page_without_scrolling_sideways(
    browser: Browser, server: Server, name: str
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    page.set_default_timeout(1000 * PATIENCE)
    try:
        page.goto(server.url + path_of(name))
        settled(page)
        main = page.get_by_test_id("stMain")
        assert main.evaluate("node => node.scrollWidth - node.clientWidth") <= 1
        assert background(page) == "rgb(18, 19, 23)"
    finally:
        page.close()


def _violations(page: Page) -> list[tuple[str, str, str]]:
    return [
        (violation["id"], node["html"][:200], node["failureSummary"][:300])
        for violation in Axe().run(page).response["violations"]
        for node in violation["nodes"]
        if not (violation["id"] in BASELINE and BASELINE[violation["id"]] in node["html"])
    ]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violation_beyond_streamlits_own(
    browser: Browser, server: Server, name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    try:
        page.goto(server.url + path_of(name))
        settled(page)
        page.wait_for_timeout(800)
        # What is drawn anew fades for a moment, and its contrast with it: a violation is what stays.
        found = _violations(page)
        for _ in range(5):
            if not found:
                break
            page.wait_for_timeout(1500)
            settled(page)
            found = _violations(page)
        assert not found, "\n".join(map(str, found))
    finally:
        page.close()
