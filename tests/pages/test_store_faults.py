"""A store that cannot be used is said in words on every page, and the app is there again once it can."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.ui import fits

MAIN = Path(__file__).parents[2] / "hbm_core" / "ui" / "main.py"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A store whose folder is a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HBM_STORE", str(tmp_path / "file"))
    fits.engine.clear()
    yield tmp_path / "file"
    fits.engine.clear()


@pytest.mark.parametrize("page", ["explore", "fits"])
def test_every_page_says_why_the_store_cannot_be_used(nowhere, page):
    app = AppTest.from_file(str(MAIN), default_timeout=240)
    app.run()
    if page != "explore":
        app.switch_page(str(MAIN.parents[2] / "pages" / f"{page}.py")).run()
    assert not app.exception, [problem.value for problem in app.exception]
    said = [part.value for part in (*app.error, *app.warning, *app.caption, *app.markdown)]
    assert any("cannot be used" in text for text in said)
    assert not any("Traceback" in text for text in said)
