"""Every page with the models of counts that are sampled: draws near the truth stand in for a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from streamlit.testing.v1 import AppTest

from hbm_core.analysis.count_worlds import draw_parameters, drift_paths
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.inference.sampler import Sampler
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.store.study import Study
from hbm_core.store.tasks import result_of
from tests.pages.fitted import SESSION, engine, statistics

__all__ = ["engine"]
PAGES = Path(__file__).parents[2] / "pages"
CHAINS, DRAWS = 2, 150
MODELS = {
    "zero_inflated": ("shut_hosts", "Shut windows", "Zeros, with and without shut windows"),
    "covariates": ("load", "Coefficients", "What moves the rates"),
    "drift": ("drifting", "Trajectories", "window by window"),
    "joint": ("traffic", "Rates and bytes", "correlation"),
}


def study_of(model: str) -> Study:
    return Study.default("counts").change(dataset=MODELS[model][0], model=model)


def near_truth(spec, truth) -> xr.DataTree:
    """Draws around the truth of simulated data, with a sampler's statistics."""
    rng = np.random.default_rng(4)
    drawn = draw_parameters(spec, CHAINS * DRAWS, rng)
    for name, values in drawn.items():
        if name in ("theta", "theta_bytes"):
            centre = np.array([truth[f"{name}[{unit}]"] for unit in spec.structure.units])
            drawn[name] = centre * np.exp(0.15 * rng.standard_normal(values.shape))
        else:
            label = {"beta": "beta[x]", "corr": "corr[count,bytes]"}.get(name, name)
            drawn[name] = truth[label] * np.exp(0.1 * rng.standard_normal(values.shape))
    drawn = {n: np.clip(v, -0.99, 0.99) if n in ("rho", "psi", "corr") else v for n, v in drawn.items()}
    sampled = {name: values.reshape(CHAINS, DRAWS, *values.shape[1:]) for name, values in drawn.items()}
    if isinstance(spec.structure, DriftingCounts):
        paths = drift_paths(spec.structure, drawn, rng)[:, spec.structure.order]
        sampled["drift"] = paths.reshape(CHAINS, DRAWS, -1)
    shape = (CHAINS, DRAWS)
    tree = result_tree(spec, recipe(spec).complete(spec, sampled, 0), statistics(rng, shape))
    for name, group in recipe(spec).groups(spec, sampled).items():
        tree[name] = xr.DataTree(group)
    tree.attrs |= {"parameterization": spec.parameterization, "timing_sample": 1.0, "timing_total": 1.0}
    return tree


def publish(engine, model: str) -> Study:
    """A finished fit of the model in the store."""
    chosen = study_of(model).change(sampler=Sampler(draws=DRAWS, tune=100, chains=CHAINS))
    data = chosen.data()
    request = chosen.request(data)
    spec = request.spec(data)
    engine.submit(request, data, SESSION, f"{data.label}, {model}")
    job = engine.table.claim("test", 60, only=request.digest)
    size = engine.results.publish(job.ask, result_of(near_truth(spec, data.truth), spec))
    assert engine.table.finish(request.digest, "test", size, False)
    return chosen


def opened(page: str, chosen: Study, **state: object) -> AppTest:
    app = AppTest.from_file(str(PAGES / f"{page}.py"), default_timeout=120)
    app.session_state["session_token"] = SESSION
    app.session_state["study"] = chosen
    for name, value in state.items():
        app.session_state[name] = value
    app.run()
    assert not app.exception, (page, [problem.value for problem in app.exception])
    return app


def words(app: AppTest) -> str:
    html = [element.proto.body for element in app.get("html")]
    return "\n".join([*html, *(one.value for one in (*app.markdown, *app.info, *app.caption))])


@pytest.mark.parametrize("model", MODELS)
def test_a_model_shows_what_it_adds(engine, model):
    chosen = publish(engine, model)
    _, section, title = MODELS[model]
    assert title in words(opened("shrinkage", chosen, shrinkage_section=section))
    assert "no exact engine" not in words(opened("shrinkage", chosen, shrinkage_section="Fit to data"))
    surprising = words(opened("shrinkage", chosen, shrinkage_section="Surprises"))
    assert "surprising latest window" in surprising and "Monte Carlo" in surprising
    assert ("leave-future-out" in surprising) == (model == "drift")
    assert "Monte Carlo errors" in words(opened("shrinkage", chosen, shrinkage_section="Forecast"))


def test_every_page_opens_with_a_fit(engine):
    chosen = publish(engine, "joint")
    for page in ("explore", "trace", "covariance", "data", "fits"):
        assert len(words(opened(page, chosen))) > 200, page
    assert "No funnel of a mean and a spread" in words(opened("trace", chosen, trace_section="Funnel"))
    # Of the logarithms each has a mean and a spread.
    assert "Why centered sampling fails" in words(opened("covariance", chosen, covariance_section="Funnel"))
    assert "expected base or poisson or binomial, got 'joint'" in words(opened("coverage", chosen))
    opened("shrinkage", chosen, shrinkage_section="Close-ups")
    assert "Who is on top" in words(opened("shrinkage", chosen, shrinkage_section="Ranking"))


@pytest.mark.parametrize("page", ["shrinkage", "trace"])
def test_without_a_fit_pages_say_what_to_do(engine, page):
    assert "Fit" in words(opened(page, study_of("drift")))
