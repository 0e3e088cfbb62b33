"""``make shots``: a picture of every page at 1280 and 400 pixels, light and dark, with a fit loaded."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.server import ROOT, browse, serve, settled

PAGES = [path.stem for path in sorted((ROOT / "pages").glob("*.py"))]


def main(names: list[str]) -> None:
    """Write the pictures of `names` (all pages where empty) into ``shots/``."""
    folder = ROOT / "shots"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        with serve(store / "store", store / "server.log") as server, browse() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(server.url)
            settled(page)
            page.get_by_test_id("stSidebar").get_by_role("button", name="Fit", exact=True).click()
            page.get_by_test_id("stSidebar").get_by_text("Fit done").wait_for(timeout=120_000)
            page.close()
            for name in names or PAGES:
                for width in (1280, 400):
                    for scheme in ("light", "dark"):
                        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                        page.goto(f"{server.url}/{'' if name == 'explore' else name}")
                        settled(page)
                        page.wait_for_timeout(1500)
                        # Streamlit scrolls inside the page: a window as tall as the content shows it all.
                        height = page.evaluate(
                            "() => document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight"
                        )
                        page.set_viewport_size({"width": width, "height": max(800, int(height) + 40)})
                        page.wait_for_timeout(700)
                        page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
                        page.close()
                        print(folder / f"{name}-{width}-{scheme}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
