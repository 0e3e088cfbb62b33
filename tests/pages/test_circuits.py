"""Every page with circuits: without a fit, and with draws near the truth that stand in for one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from streamlit.testing.v1 import AppTest

from hbm_core.analysis.time_courses import bands
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.inference.reweighted import Draws, reweight
from hbm_core.inference.sampler import Sampler
from hbm_core.models.one_parameter import one_parameter
from hbm_core.store import gallery
from hbm_core.store.study import Study
from hbm_core.store.summary import draws_table
from hbm_core.store.tasks import result_of
from hbm_core.ui import trace_page
from hbm_core.ui.explorer_component import prior_entries
from hbm_core.ui.trace_lab import in_every_geometry
from tests.pages.fitted import SESSION, engine, statistics

__all__ = ["engine"]
PAGES = Path(__file__).parents[2] / "pages"
CHAINS, DRAWS = 2, 100
STUDY = Study.default("circuits").change(sampler=Sampler(draws=DRAWS, tune=100, chains=CHAINS))


def near_truth(spec, truth) -> xr.DataTree:
    """Draws around the truth of simulated data, with a sampler's statistics."""
    rng, structure = np.random.default_rng(4), spec.structure
    size, shape = len(structure.fitted), (CHAINS, DRAWS)

    def around(names, spread):
        centre = np.array([truth[name] for name in names])
        return centre + spread * rng.standard_normal((*shape, centre.size))

    alpha = around([f"alpha[{name}]" for name in structure.inferred], 0.05)
    theta = around(structure.unit_parameters, 0.02).reshape(*shape, len(structure.units), size)
    drawn = {"alpha": alpha, "theta": theta}
    drawn["sigma"] = 0.2 * np.exp(0.2 * rng.standard_normal((*shape, size)))
    # One number for all pairs: a matrix of such is positive definite.
    one = rng.uniform(0.1, 0.5, (*shape, 1))
    drawn["corr"] = np.repeat(one, size * (size - 1) // 2, axis=-1)
    for name in ("noise", "exponent", "gain"):
        drawn[name] = truth[name] * np.exp(0.03 * rng.standard_normal(shape))
    tree = result_tree(spec, recipe(spec).complete(spec, drawn, 0), statistics(rng, shape))
    tree.attrs |= {"parameterization": spec.parameterization, "timing_sample": 1.0, "timing_total": 1.0}
    return tree


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    data = STUDY.data()
    return near_truth(STUDY.spec(data), data.truth)


@pytest.fixture
def fitted(engine, tree):
    data = STUDY.data()
    request = STUDY.request(data)
    engine.submit(request, data, SESSION, "circuits")
    job = engine.table.claim("test", 60, only=request.digest)
    size = engine.results.publish(job.ask, replace(result_of(tree, STUDY.spec(data))))
    assert engine.table.finish(request.digest, "test", size, False)
    return engine


def opened(page: str, study: Study = STUDY) -> AppTest:
    test = AppTest.from_file(str(PAGES / f"{page}.py"), default_timeout=120)
    test.session_state["study"] = study
    for name, value in study.query.items():
        test.query_params[name] = value
    return test.run()


def said(test: AppTest) -> str:
    assert not test.exception, test.exception[0].value
    parts = [
        element.value for kind in ("markdown", "caption", "info", "warning") for element in test.get(kind)
    ]
    parts += [element.proto.body for element in test.get("html")]
    return "\n".join(map(str, parts)).replace("\\", "")


@pytest.mark.parametrize("page", ["explore", "shrinkage", "trace", "coverage", "data", "fits"])
def test_pages_open_before_any_fit(engine, page: str) -> None:
    text = said(opened(page))
    if page == "explore":
        assert "Readings of incoherent_ffl" in text
    if page in ("explore", "shrinkage"):
        assert "k_tx in each circuit by itself" in text
    if page == "trace":
        # No engine knows this posterior exactly: none may be promised.
        assert "a sampler can walk this posterior" in text


@pytest.mark.parametrize("page", ["explore", "shrinkage", "trace", "data", "fits"])
def test_pages_open_with_a_fit(fitted, page: str) -> None:
    said(opened(page))


@pytest.mark.parametrize("section", sorted({*trace_page.SECTIONS, trace_page.LAB} - {"Tempering"}))
def test_every_view_of_the_draws_opens(fitted, section: str) -> None:
    test = AppTest.from_file(str(PAGES / "trace.py"), default_timeout=120)
    test.session_state["study"], test.session_state["trace_section"] = STUDY, section
    for name, value in STUDY.query.items():
        test.query_params[name] = value
    text = said(test.run())
    assert ("Transport" if section == trace_page.LAB else "1 of 200") in text


def test_draws_are_one_table(tree) -> None:
    table, structure = draws_table(tree), STUDY.spec(STUDY.data()).structure
    assert {*structure.unit_parameters, *structure.hyperparameters} <= set(table.columns)
    assert {"chain", "draw", "log_prior", "log_likelihood", "log_posterior"} <= set(table.columns)
    total = table["log_prior"] + table["log_likelihood"]
    np.testing.assert_allclose(table["log_posterior"], total, rtol=1e-12)
    np.testing.assert_allclose(
        table["log_likelihood"], tree["log_likelihood"]["y"].sum("unit").values.ravel(), rtol=1e-9
    )


def test_the_rate_constant_is_chosen_by_the_link(fitted) -> None:
    text = said(opened("shrinkage", STUDY.change(parameter="k_mat", unit="sense_star")))
    truth = STUDY.data().truth["theta[sense_star,k_mat]"]
    pooled = re.search(r"Circuit sense_star: .*?→ <b[^>]*>−([\d.]+)", text)
    assert pooled is not None
    assert -float(pooled[1]) == pytest.approx(truth, abs=0.01)


def test_one_correlation_of_many_is_drawn_with_its_own_law() -> None:
    """LKJ(2) of 16 components: a correlation's sd is 1/√(2 · 9 + 1), 0.23, not that of two components."""
    data = STUDY.data()
    spec = STUDY.spec(data)
    size, shape = len(spec.structure.fitted), np.ones((6, 16))
    (entry,) = (
        entry
        for entry in prior_entries(one_parameter(spec, "k_mat", shape, shape), {}, {})
        if entry.param == "corr"
    )
    assert size == 16
    eta = entry.prior.numbers[0] + entry.plus
    assert stats.beta(eta, eta, loc=-1, scale=2).std() == pytest.approx(0.2294, abs=1e-4)


def test_a_shipped_fit_keeps_fewer_curves_and_the_bands_stay(tree, monkeypatch) -> None:
    monkeypatch.setattr(gallery, "SAMPLES", 100)
    data = STUDY.data()
    spec, request = STUDY.spec(data), STUDY.request(data)
    small = gallery.unpacked(gallery.packed(tree, request, data), request, data)
    assert small["curves"].sizes["sample"] == 100
    assert small.attrs == tree.attrs
    few, many = (bands(reweight(Draws.of(one, spec), spec)) for one in (small, tree))
    middle = many["middle"].to_numpy()
    width = (many["high95"] - many["low95"]).to_numpy()
    # Medians of half the curves: a Monte Carlo sd of 0.03 of a 95 % width, and a tail of it.
    assert np.quantile(np.abs(few["middle"] - middle) / width, 0.95) < 0.15


def test_a_link_says_which_rate_constant_is_looked_at() -> None:
    study = STUDY.change(parameter="k_mat", unit="sense_star", constants={"role[k_tl]": 1.0})
    again = Study.from_query(study.query)
    assert (again.parameter, again.unit) == ("k_mat", "sense_star")
    assert again.request(again.data()).digest == study.request(study.data()).digest
    # What is looked at is no part of a fit, and belongs to one data set.
    assert study.request(study.data()).digest == study.change(parameter="k_tl").request(study.data()).digest
    assert study.change(dataset="activators").parameter is None


def test_circuits_are_named_for_people() -> None:
    app = opened("explore")
    assert "cascade: Cascade: STAR, then toehold switch" in app.selectbox(key="circuit_unit").options


@pytest.mark.parametrize("start", ["transport", "noncentered"])
def test_the_lab_compares_all_geometries_by_one_engine(start):
    """From blocks or from NUTS: rates of two engines side by side would say nothing of the geometries."""
    studies = in_every_geometry(STUDY.change(parameterization=start))
    assert set(studies) == {"centered", "noncentered", "transport"}
    assert {name: one.parameterization for name, one in studies.items()} == {name: name for name in studies}
    assert {one.engine for one in studies.values()} == {"nuts"}
    assert len({one.sampler for one in studies.values()}) == 1
