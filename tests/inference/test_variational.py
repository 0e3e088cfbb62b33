"""The variational engine: right where the posterior is normal, and telling how far it is off elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.checks import Evidence, checks
from hbm_core.analysis.draws import concerns, summary
from hbm_core.errors import FitError
from hbm_core.inference.exact import solve
from hbm_core.inference.sampler import Sampler
from hbm_core.inference.variational import approximate, fitted, pareto_k, standard_points
from hbm_core.scenarios import scenario
from hbm_core.store.summary import compared, summarize

SCHOOLS, CREATORS = scenario("schools"), scenario("creators")
SETTINGS = Sampler(draws=600, seed=3)


@pytest.fixture(scope="module")
def schools(compile_cache):
    spec = SCHOOLS.model("weak").spec(SCHOOLS.dataset("eight_schools"))
    return spec, approximate(spec, SETTINGS, cache=compile_cache)


@pytest.fixture(scope="module")
def creators(compile_cache):
    data = CREATORS.simulate(5, level="summaries", genres=40, creators_per_genre=5)
    spec = CREATORS.model("base").spec(data)
    return spec, approximate(spec, SETTINGS, cache=compile_cache)


class Known:
    """A normal density as a target, without a compiled model."""

    size = 4

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        root = rng.standard_normal((4, 4))
        self.mean, self.covariance = 50 * rng.standard_normal(4), root @ root.T + 0.1 * np.eye(4)
        self.precision, self.compiled = np.linalg.inv(self.covariance), self

    def initial_point_func(self, seed):
        return np.random.default_rng(seed).uniform(-1, 1, 4)

    def __call__(self, x):
        pull = -(x - self.mean) @ self.precision
        return np.atleast_1d(stats.multivariate_normal(self.mean, self.covariance).logpdf(x)), pull


def test_a_normal_posterior_is_met() -> None:
    known = Known()
    found = fitted(known, 1)  # type: ignore[arg-type]
    assert found.mean == pytest.approx(known.mean, abs=1e-4)
    assert found.factor @ found.factor.T == pytest.approx(known.covariance, rel=1e-3, abs=1e-4)
    # The bound is tight: every importance ratio is the evidence, here 1.
    z = np.random.default_rng(2).standard_normal((50, 4))
    ratio = known(found.points(z))[0] - found.log_density(z)
    assert np.abs(ratio).max() < 1e-3


def test_eight_schools_shows_its_error_on_tau(schools) -> None:
    spec, tree = schools
    exact, found = solve(spec), summarize(tree, spec)
    # log τ is skew: a normal there has too heavy an upper tail for τ, and too low a median.
    table = summary(tree)
    ratio = table.loc["tau", "sd"] / exact.sd[exact.index("tau")]
    assert ratio > 1.1
    said = found["exact"]
    assert said["unit"] == "sd"
    assert said["parameter"] == "tau"
    assert not said["agrees"]
    assert said["worst"] == pytest.approx(ratio - 1, abs=0.02)
    assert "tau" in said["sentence"]
    assert "posterior sds" in said["sentence"]
    (doubt,) = [one for one in concerns(found["diagnostics"], said) if "exact" in one]
    assert doubt.startswith("tau is 0.")
    assert exact.log_evidence is not None
    gap = exact.log_evidence - tree.attrs["elbo"]
    assert 0.05 < gap < 0.3


def test_creators_are_close(creators) -> None:
    spec, tree = creators
    found = summarize(tree, spec)
    assert found["exact"]["agrees"], found["exact"]["sentence"]
    assert found["exact"]["count"] > 240
    assert tree.attrs["k_hat"] < 0.7
    assert concerns(found["diagnostics"], found["exact"]) == ()
    assert tree.attrs["method"] == "full-rank ELBO"
    assert tree["posterior"]["theta"].sizes["unit"] == spec.structure.effect.size


def test_five_genres_leave_their_spread_unsettled_and_say_so(compile_cache) -> None:
    data = CREATORS.simulate(5, level="summaries", creators_per_genre=30)
    spec = CREATORS.model("base").spec(data)
    tree = approximate(spec, SETTINGS, cache=compile_cache)
    said = compared(summary(tree), spec, "variational")
    assert said is not None
    assert said["parameter"] in ("mu", "sigma_genre")
    assert not said["agrees"]
    # What readouts are made of is close all the same.
    inner = summary(tree).drop(index=["mu", "sigma_genre"])
    close = compared(inner, spec, "variational")
    assert close is not None
    assert close["agrees"], close["sentence"]


def test_a_seed_repeats_and_another_does_not(schools, compile_cache) -> None:
    spec, tree = schools
    again = approximate(replace(spec, parameterization="centered"), SETTINGS, cache=compile_cache)
    other = approximate(spec, replace(SETTINGS, seed=4), cache=compile_cache)
    theta = [one["posterior"].to_dataset()["theta"].to_numpy() for one in (tree, again, other)]
    assert np.array_equal(theta[0], theta[1])
    assert not np.array_equal(theta[0], theta[2])


def test_computation_checks_are_those_of_an_approximation(schools) -> None:
    spec, tree = schools
    found = {one.title: one.run(Evidence(spec, None, tree)).verdict for one in checks()}
    for title in ("R-hat of every parameter", "Bulk effective sample size", "Divergences"):
        assert found[title] == "not applicable"
    assert found["Pareto's k of the approximation"] == ("pass" if tree.attrs["k_hat"] <= 0.7 else "warn")


def test_whoever_stops_it_is_obeyed(schools, compile_cache) -> None:
    with pytest.raises(FitError, match="stopped"):
        approximate(schools[0], SETTINGS, cache=compile_cache, should_stop=lambda: True)


def test_pareto_k_of_ratios_with_a_known_tail() -> None:
    rng = np.random.default_rng(1)
    for k in (0.3, 0.9):
        found = pareto_k(np.log(stats.genpareto(k).rvs(20_000, random_state=rng)))
        assert found == pytest.approx(k, abs=0.12)
    assert pareto_k(np.zeros(100)) == 0


def test_fixed_points_have_exact_first_and_second_moments() -> None:
    z = standard_points(7, 1)
    assert np.allclose(z.mean(axis=0), 0, atol=1e-12)
    assert np.allclose(z.T @ z / len(z), np.eye(7), atol=1e-12)
