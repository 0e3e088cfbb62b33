"""The page Data in a real browser: a file is brought, corrected and used; nothing in it runs anywhere."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server, settled

pytestmark = pytest.mark.browser
NAMES = (
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=2</script>",
    "[x](javascript:window.pwned=3)",
    "$\\href{javascript:window.pwned=4}{y}$",
    '<a href="javascript:window.pwned=5">click</a>',
    '=HYPERLINK("http://localhost/","y")',
    "@SUM(1)",
    "<b>bold</b> :red[loud]",
    "{datum.unit}",
    "מדרסה \u202eabc",
)
COVARIATE = "<svg onload=window.pwned=6>"
#: Pages and the views in them that show names.
VISITS = {
    "": [],
    "shrinkage": ["Scatter", "Ranks", "Ledger", "Lenders", "Close-ups"],
    "trace": [],
    "covariance": ["Heat map", "Funnel"],
    "data": ["Your table", "First look"],
    "fits": [],
}


def table() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["unit", "effect", "se", COVARIATE])
    writer.writerows([name, 5 * place - 20, 5 + place, place % 4] for place, name in enumerate(NAMES))
    return text.getvalue().encode()


def bring(page: Page, server: Server, content: bytes, name: str) -> None:
    page.goto(f"{server.url}/data")
    settled(page)
    page.get_by_test_id("stMain").get_by_text("Your table", exact=True).click()
    settled(page)
    file = {"name": name, "mimeType": "text/csv", "buffer": content}
    page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]


def inert(page: Page) -> None:
    page.wait_for_timeout(400)
    assert page.evaluate("() => window.pwned === undefined")
    assert page.locator("img[src='x'], a[href^='javascript'], svg[onload]").count() == 0
    assert (
        page.locator("b, strong", has_text="bold")
        .filter(has_text="bold")
        .evaluate_all("nodes => nodes.filter(node => node.textContent.trim() === 'bold').length")
        == 0
    )
    assert page.get_by_test_id("stException").count() == 0


def test_names_that_mean_harm_are_text_on_every_page(page: Page, server: Server) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    bring(page, server, table(), "../../<img src=x onerror=window.pwned=7>.csv")
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("In order: 10 rows")
    inert(page)
    with page.expect_download() as download:
        main.get_by_role("button", name="Download as CSV").last.click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    cells = [row[0] for row in csv.reader(io.StringIO(text))][1:]
    assert [cell for cell in cells if cell[0] in "=@+-\t"] == []
    main.get_by_role("button", name="Use these data").click()
    expect(main).to_contain_text("data now, on every page")
    query = urlsplit(page.url).query
    seen = ""
    for name, views in VISITS.items():
        page.goto(f"{server.url}/{name}?{query}")
        settled(page, 60_000)
        inert(page)
        for view in views:
            choice = page.get_by_test_id("stMain").get_by_text(view, exact=True)
            if choice.count():
                choice.first.click()
                settled(page, 60_000)
                inert(page)
        seen += page.get_by_test_id("stMain").inner_text()
    assert "<img src=x" in seen or "</script>" in seen
    assert not dialogs


def test_a_link_that_quotes_markup_shows_it_as_text(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/?model=[here](https://example.org)<img src=x onerror=window.pwned=1>$x$")
    settled(page)
    warning = page.get_by_test_id("stAlert")
    expect(warning).to_contain_text("//example.org)<img src=x onerror=window.pwned=1>$x$")
    assert warning.locator("a").count() == 0
    inert(page)


def test_a_link_that_says_a_thing_twice_is_not_silently_the_last(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/?model=weak&model=robust")
    settled(page)
    expect(page.get_by_test_id("stAlert")).to_contain_text("'model': expected every parameter once")


def test_a_wrong_file_is_told_and_corrected_by_hand(page: Page, server: Server) -> None:
    bring(page, server, b"unit,effect,se\na,1,1\nb,2,0\nc,x,1\n", "mine.csv")
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("2 problems in 2 rows")
    # The grid is a canvas: row 2, the last column; then row 3, the one before.
    for column, row, value, then in (
        (0.92, 2, "2", "1 problem in 1 row"),
        (0.62, 3, "3,3", "In order: 3 rows"),
    ):
        canvas = main.get_by_test_id("stDataFrame").locator("canvas").first
        canvas.scroll_into_view_if_needed()
        page.wait_for_timeout(600)
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + column * box["width"], box["y"] + 32 * row + 16)
        page.wait_for_timeout(300)
        page.keyboard.type(value, delay=60)
        page.keyboard.press("Enter")
        expect(main).to_contain_text(then)
        settled(page)
    with page.expect_download() as download:
        main.get_by_role("button", name="Download as CSV").last.click()
    assert Path(download.value.path()).read_text().split() == [
        "unit,effect,se", "a,1.0,1.0", "b,2.0,2.0", "c,3.3,1.0",
    ]  # fmt: skip
    main.get_by_role("button", name="Use these data").click()
    expect(main).to_contain_text("data now, on every page")


def test_the_grid_offers_no_download_that_a_spreadsheet_would_run(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/data")
    settled(page)
    page.get_by_test_id("stDataFrame").first.hover()
    page.wait_for_timeout(400)
    shown = (
        page.get_by_test_id("stElementToolbar")
        .first.locator("button")
        .evaluate_all("nodes => nodes.filter(node => node.offsetParent !== null).map(node => node.ariaLabel)")
    )
    assert shown and not any(label.startswith("Download as CSV") for label in shown), json.dumps(shown)
