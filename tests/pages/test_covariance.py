"""The page Covariance through Streamlit's own tester: exact at once, from draws when a fit is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import xarray as xr
from streamlit.testing.v1 import AppTest

from hbm_core.inference.exact import solve
from hbm_core.store.engine import Status
from hbm_core.store.study import Study
from hbm_core.ui import fits

PAGE = Path(__file__).parents[2] / "pages" / "covariance.py"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HBM_STORE", str(tmp_path / "store"))
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def opened(query: Mapping[str, str] | None = None) -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    for name, value in (query or {}).items():
        app.query_params[name] = value
    return app.run()


def seen(app: AppTest) -> str:
    parts = [item.value for kind in (app.markdown, app.info, app.warning) for item in kind]
    return " ".join([*parts, *(item.proto.body for item in app.get("html"))])


@pytest.mark.parametrize("name", ["Pairs", "Funnel", "Correlation", "Identifiability"])
def test_every_section_is_exact_without_a_fit(name: str) -> None:
    app = opened({"unit": "G"})
    app.segmented_control(key="covariance_section").set_value(name).run()
    assert not app.exception
    assert app.get("plotly_chart")
    assert "How to read this." in seen(app)
    assert app.selectbox(key="covariance_unit").value == "G"


def test_the_unit_is_selected_for_every_page() -> None:
    app = opened()
    app.selectbox(key="covariance_unit").set_value("D").run()
    assert not app.exception
    assert app.session_state["study"].unit == "D"
    assert "θ D correlates" in seen(app)


@pytest.mark.parametrize(
    ("model", "words"),
    [("none", "independent"), ("complete", "correlation 1 by construction")],
)
def test_models_without_the_structure_say_so(model: str, words: str) -> None:
    app = opened({"model": model})
    assert not app.exception
    assert words in seen(app)
    app.segmented_control(key="covariance_section").set_value("Funnel").run()
    assert "no funnel without a spread" in seen(app)
    app.segmented_control(key="covariance_section").set_value("Correlation").run()
    assert not app.exception


def test_a_prior_without_a_density_at_zero_is_drawn() -> None:
    app = opened({"prior.tau": "LogNormal(1, 1)"})
    assert not app.exception
    assert app.get("plotly_chart")


def test_without_a_posterior_it_says_what_to_do() -> None:
    two = {"dataset": "simulated", "knob.J": "2", "prior.mu": "Flat()", "prior.tau": "Flat()"}
    app = opened(two)
    assert not app.exception
    assert "No joint posterior to draw yet" in seen(app)
    assert [button.label for button in app.button] == ["Fit"]
    assert not app.get("plotly_chart")


def test_a_fit_brings_its_draws_and_divergences(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.default()
    found = solve(study.spec(study.data())).draws(400, seed=2)
    shape = (2, 200)
    units = list("ABCDEFGH")
    posterior = xr.Dataset(
        {
            "mu": (("chain", "draw"), found["mu"].reshape(shape)),
            "tau": (("chain", "draw"), found["tau"].reshape(shape)),
            "theta": (("chain", "draw", "unit"), found["theta"].reshape(*shape, 8)),
        },
        {"chain": range(2), "draw": range(200), "unit": units},
    )
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.arange(400).reshape(shape) < 7)})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    done = fits.FitView("x" * 64, Status("done"), "Fit done", "")
    monkeypatch.setattr(fits, "view", lambda study: done)
    monkeypatch.setattr("hbm_core.ui.covariance_source._tree", lambda id, finished: tree)
    app = opened()
    assert not app.exception
    assert "400 draws of the noncentered fit, 7 diverged" in seen(app)
    app.segmented_control(key="covariance_section").set_value("Correlation").run()
    assert not app.exception
    assert "differ from the exact ones by at most" in seen(app)
    app.segmented_control(key="covariance_source").set_value("Exact").run()
    assert not app.exception
    assert "integrated over τ" in seen(app)
