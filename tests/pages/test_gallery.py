"""A first visit to a fresh store: pages that need a fit have one, because it came with the program."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.store.gallery import enter_into
from hbm_core.store.settings import Settings
from hbm_core.ui import fits


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HBM_STORE", str(tmp_path_factory.mktemp("fresh")))
        fits.engine.clear()
        assert enter_into(Settings.from_environment())
        yield
        fits.engine().close()
        fits.engine.clear()


@pytest.mark.parametrize("page", ["trace", "covariance", "shrinkage"])
def test_the_first_visit_finds_a_finished_fit(store, page: str) -> None:
    found = AppTest.from_file("../../hbm_core/ui/main.py", default_timeout=240)
    found.switch_page(f"../../pages/{page}.py")
    found.run()
    assert not found.exception
    said = " ".join(item.value for item in (*found.markdown, *found.caption))
    assert "A fit from the gallery" in said and "4,000 draws" in said
    assert "Fit done" not in said, "the visitor has fitted nothing"
