"""The page Covariance through Streamlit's own tester: exact at once, from draws when a fit is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import xarray as xr
from scipy import stats
from streamlit.testing.v1 import AppTest

from hbm_core.inference.exact import solve
from hbm_core.inference.recipes import recipe
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


# ------------------------------------------------------------------------------------- units as vectors


def drawn(spec, count: int = 60) -> xr.DataTree:
    """A result with the variables of a model's recipe and draws of no model in particular."""
    how = recipe(spec)
    dims, rng = how.dims_of(spec), np.random.default_rng(3)
    coords = {name: list(labels) for name, labels in how.coords(spec).items()}
    heads = dict.fromkeys([*(name.partition("[")[0] for name in spec.structure.parameters), *dims])
    values = {}
    for name in heads:
        own = dims.get(name, ())
        shape = (4, count, *(len(coords[dim]) for dim in own))
        noise = rng.normal(size=shape)
        values[name] = (
            ("chain", "draw", *own),
            np.tanh(0.1 * noise) if name == "corr" else np.exp(0.3 * noise),
        )
    used = {dim for name in heads for dim in dims.get(name, ())}
    index = {"chain": range(4), "draw": range(count)} | {dim: coords[dim] for dim in used}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(values, index)})


def fitted(monkeypatch: pytest.MonkeyPatch, query: Mapping[str, str]) -> AppTest:
    """The page with a fit of the study, done."""
    study = Study.from_query(query)
    tree = drawn(study.spec(study.data()))
    done = fits.FitView("x" * 64, Status("done"), "Fit done", "")
    monkeypatch.setattr(fits, "view", lambda study: done)
    monkeypatch.setattr("hbm_core.ui.covariance_source._tree", lambda id, finished: tree)
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    app.session_state["study"] = study
    return app.run()


CIRCUITS = {"scenario": "circuits", "model": "full"}


def test_a_population_of_circuits_has_all_sections(monkeypatch) -> None:
    app = fitted(monkeypatch, CIRCUITS)
    assert "16 parameters each" in seen(app)
    assert app.segmented_control(key="covariance_section").value == "Population"
    words = {
        "Population": "With 16 parameters the prior gives each correlation an sd of 0.23",
        "Ellipses": "of the population",
        "Shrinkage": "η-shrinkage, parameter by parameter",
        "Prior": "Under the inverse Wishart the median sd is 2.3 times larger",
        "Pairs": "± 0.",
        "Funnel": "The smaller σ",
        "Correlation": "belong to circuits",
        "Identifiability": "Sloppy and stiff",
    }
    assert app.segmented_control(key="covariance_section").options == list(words)
    for name, text in words.items():
        app.segmented_control(key="covariance_section").set_value(name).run()
        assert not app.exception, name
        assert text in seen(app), name
        assert "How to read this." in seen(app)
        assert app.get("plotly_chart")


def test_the_pair_at_first_is_the_one_that_left_its_prior_most(monkeypatch) -> None:
    app = fitted(monkeypatch, CIRCUITS)
    app.segmented_control(key="covariance_section").set_value("Ellipses").run()
    across, up = app.selectbox(key="covariance_across"), app.selectbox(key="covariance_up")
    spec = Study.from_query(CIRCUITS).spec(Study.from_query(CIRCUITS).data())
    corr = drawn(spec)["posterior"]["corr"]
    # LKJ(2) in 16 dimensions: (r + 1)/2 ~ Beta(9, 9).
    gap = [
        stats.kstest(
            corr.sel(pair=pair).values.ravel(), lambda r: stats.beta.cdf((1 + r) / 2, 9, 9)
        ).statistic
        for pair in corr["pair"].values
    ]
    assert f"{across.value},{up.value}" == corr["pair"].values[int(np.argmax(gap))]
    assert f"{across.value} and {up.value}: the population" in seen(app).replace("\\", "")
    other = next(name for name in across.options if name not in (across.value, up.value))
    across.set_value(other).run()
    assert not app.exception
    assert f"{other} and {up.value}: the population" in seen(app).replace("\\", "")


@pytest.mark.parametrize("model", ["independent", "shared", "diagonal", "inverse_wishart"])
def test_other_populations_of_circuits_say_what_they_are(monkeypatch, model: str) -> None:
    app = fitted(monkeypatch, CIRCUITS | {"model": model})
    assert not app.exception
    words = {"independent": "Without pooling", "shared": "same", "diagonal": "independently"}
    assert words.get(model, "of its 120 correlations") in seen(app)
    for name in app.segmented_control(key="covariance_section").options:
        app.segmented_control(key="covariance_section").set_value(name).run()
        assert not app.exception, name


def test_rates_and_bytes_are_vectors_too(monkeypatch) -> None:
    app = fitted(monkeypatch, {"scenario": "counts", "dataset": "traffic", "model": "joint"})
    assert "2 parameters each" in seen(app)
    for name in ("Population", "Ellipses", "Shrinkage", "Prior", "Funnel", "Identifiability"):
        app.segmented_control(key="covariance_section").set_value(name).run()
        assert not app.exception, name
        assert app.get("plotly_chart"), name


def test_many_parameters_are_chosen_not_crowded(monkeypatch) -> None:
    """Hurdle revenue has some sixty population parameters beside its creators."""
    app = fitted(monkeypatch, {"scenario": "creators", "dataset": "few_payers", "model": "hurdle"})
    assert not app.exception
    for name in ("Pairs", "Correlation", "Identifiability"):
        app.segmented_control(key="covariance_section").set_value(name).run()
        assert not app.exception, name
    app.segmented_control(key="covariance_section").set_value("Correlation").run()
    blocks = app.multiselect(key="covariance_blocks")
    assert len(blocks.options) > 2
    blocks.set_value(blocks.options[:2]).run()
    assert not app.exception


def test_the_parameter_is_selected_for_every_page(monkeypatch) -> None:
    app = fitted(monkeypatch, CIRCUITS | {"unit": "cascade", "parameter": "k_tl"})
    app.segmented_control(key="covariance_section").set_value("Funnel").run()
    assert app.selectbox(key="covariance_component").value == "k_tl"
    assert "what a centered sampler walks in" in seen(app)
    app.selectbox(key="covariance_component").set_value("K_tl").run()
    assert not app.exception
    assert app.session_state["study"].parameter == "K_tl"
    assert "θ cascade,K_tl" in seen(app)


def test_priors_of_a_population_are_there_before_a_fit() -> None:
    app = opened(CIRCUITS)
    assert not app.exception
    assert "No joint posterior to draw yet" in seen(app)
    assert app.segmented_control(key="covariance_section").options == ["Prior"]
    assert "Under the inverse Wishart the median sd is 2.3 times larger" in seen(app)
    assert app.get("plotly_chart")
