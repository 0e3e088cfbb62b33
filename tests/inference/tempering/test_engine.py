"""Parallel tempering: known mode weights and evidence, laws, and what a fit of it keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from hbm_core.analysis.draws import agreement, summary
from hbm_core.errors import FitError, InputError
from hbm_core.inference.exact import solve
from hbm_core.inference.sampler import Sampler
from hbm_core.inference.tempering.engine import explore, temper
from hbm_core.inference.tempering.target import TargetCache, target_of, tempered
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario

SETTINGS = Sampler(draws=2000, tune=500, chains=5, target_accept=0.3, seed=5)
SCHOOLS = scenario("schools")
#: Of the prior, of the likelihood's two modes, and how far these lie from 0 on either side.
WIDTH, NARROW, PLACE, WEIGHT = 5.0, 0.5, 5.0, 0.2


@pytest.fixture(scope="module")
def modes():
    """Normal(0, 5) in two dimensions, seen through a mixture of two normals, 20 sds apart."""
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model() as model:
        x = pm.Normal("x", 0, WIDTH, shape=2)
        place, sd = pm.Data("place", np.array([PLACE, -PLACE])), pm.Data("sd", np.array(NARROW))
        weight = pm.Data("weight", np.array([WEIGHT, 1 - WEIGHT]))
        each = -0.5 * pt.sum(((x[:, None] - place) / sd) ** 2, axis=0) - 2 * pt.log(sd)
        pm.Potential("likelihood", pt.logsumexp(pt.log(weight) + each) - np.log(2 * np.pi))
    return target_of(model)


def with_data(target, **data):
    return replace(target, compiled=target.compiled.with_data(**data))


def evidence(place: float) -> float:
    """Log density of both coordinates of a normal mean seen at `place`."""
    return 2 * stats.norm(0, np.hypot(WIDTH, NARROW)).logpdf(place)


def test_two_modes_get_their_weights(modes) -> None:
    found = explore(modes, SETTINGS)
    right = (found.x[..., 0] > 0).astype(float)
    error = np.sqrt(WEIGHT * (1 - WEIGHT) / float(array_stats.ess(right, method="mean")))
    assert error < 0.02
    assert abs(right.mean() - WEIGHT) < 3 * error
    assert found.log_evidence[0] == pytest.approx(evidence(PLACE), abs=0.05)
    assert found.round_trips.min() > 50
    # Every pair rejects alike, and together as much as any ladder: Λ does not depend on how many there are.
    assert np.ptp(found.rejection) < 0.1
    fewer = explore(modes, replace(SETTINGS, temperatures=8, draws=1000))
    assert fewer.barrier == pytest.approx(found.barrier, rel=0.15)


def test_nuts_stays_in_the_mode_where_it_began(modes) -> None:
    import nutpie

    found = nutpie.sample(modes.compiled, draws=200, tune=200, chains=2, cores=1, seed=1, progress_bar=False)
    right = (found.posterior["x"].to_numpy()[..., 0] > 0).mean(axis=1)
    assert set(right) <= {0.0, 1.0}


def test_a_conjugate_model(modes) -> None:
    """One mode: a normal mean with a normal prior, where everything is known."""
    one = with_data(modes, weight=np.array([1 - 1e-12, 1e-12]), place=np.array([2.0, 2.0]), sd=2.0)
    found = explore(one, SETTINGS)
    precision = 1 / WIDTH**2 + 1 / 4
    truth = 2 * stats.norm(0, np.hypot(WIDTH, 2.0)).logpdf(2.0)
    assert found.log_evidence[0] == pytest.approx(truth, abs=min(0.05, 4 * found.log_evidence[1]))
    for values in np.moveaxis(found.x, -1, 0):
        error = float(array_stats.mcse(values, method="mean"))
        assert abs(values.mean() - 2.0 / 4 / precision) < 4 * error
        assert values.std() == pytest.approx(precision**-0.5, rel=0.05)


def test_without_information_the_prior_comes_back(modes) -> None:
    found = explore(with_data(modes, sd=1e6), replace(SETTINGS, draws=1000))
    values = found.x[..., 1].ravel()
    assert stats.kstest(values[::5], stats.norm(0, WIDTH).cdf).pvalue > 0.001
    assert found.barrier < 0.05


def test_without_draws_of_the_prior_it_is_walked(modes) -> None:
    found = explore(replace(modes, prior=None), replace(SETTINGS, draws=1000))
    right = (found.x[..., 0] > 0).astype(float)
    error = np.sqrt(WEIGHT * (1 - WEIGHT) / float(array_stats.ess(right, method="mean")))
    assert abs(right.mean() - WEIGHT) < 3.5 * error


def test_a_seed_repeats_however_often_one_looks(modes) -> None:
    few = replace(SETTINGS, draws=60, tune=50, chains=2)
    first = explore(modes, few)
    looked = []
    again = explore(modes, few, on_progress=looked.append)
    other = explore(modes, replace(few, seed=6))
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.walker, again.walker)
    assert not np.array_equal(first.x, other.x)
    assert not np.array_equal(first.x[0], first.x[1])
    assert looked[-1].stage == "saving"
    assert looked[-1].fraction == 1


def test_stopped_it_keeps_what_there_is(modes) -> None:
    seen = []

    def enough() -> bool:
        return bool(seen) and seen[-1].chains[0].finished > 150

    found = explore(
        modes, replace(SETTINGS, tune=50, draws=50_000), on_progress=seen.append, should_stop=enough
    )
    assert found.stopped == "on request"
    assert 100 <= found.x.shape[1] < 50_000
    assert np.isfinite(found.log_evidence).all()
    with pytest.raises(FitError, match="warming up"):
        explore(modes, SETTINGS, should_stop=lambda: True)


@pytest.fixture(scope="module")
def schools():
    spec = SCHOOLS.model("weak").spec(SCHOOLS.dataset("eight_schools"))
    cache = TargetCache()
    return spec, cache, temper(spec, SETTINGS, cache=cache)


def test_schools_agree_with_exact(schools) -> None:
    spec, _, tree = schools
    exact = solve(spec)
    compared = agreement(summary(tree), exact.summary(hdi=False))
    assert len(compared) == 10
    assert compared["agrees"].all(), compared
    assert exact.log_evidence == pytest.approx(tree.attrs["log_evidence"], abs=0.06)
    assert 0.005 < tree.attrs["log_evidence_se"] < 0.03


def test_what_a_fit_keeps(schools) -> None:
    spec, _, tree = schools
    assert set(tree.children) >= {"posterior", "sample_stats", "log_likelihood", "observed_data", "tempering"}
    kept, ladder = tree["sample_stats"], tree["tempering"]
    posterior = tree["posterior"]
    mu, tau, theta = (posterior[name].to_numpy() for name in ("mu", "tau", "theta"))
    like = stats.norm(theta, spec.structure.se).logpdf(spec.structure.effect).sum(axis=-1)
    assert kept["log_likelihood"].to_numpy() == pytest.approx(like, abs=1e-8)
    # In the unconstrained space: the Jacobian of log τ is τ, and η = (θ − μ)/τ is standard normal.
    prior = stats.norm(0, 20).logpdf(mu) + stats.halfcauchy(0, 10).logpdf(tau) + np.log(tau)
    prior += stats.norm.logpdf((theta - mu[..., None]) / tau[..., None]).sum(axis=-1)
    assert kept["log_prior"].to_numpy() == pytest.approx(prior, abs=1e-6)
    assert kept["lp"].to_numpy() == pytest.approx(prior + like, abs=1e-6)
    assert ladder["beta"].to_numpy()[[0, -1]].tolist() == [0, 1]
    assert ladder.sizes["temperature"] == 12
    assert ladder.sizes["chain"] == 5
    steps = ladder["step_acceptance"].to_numpy()[:, 1:]
    assert steps.mean() == pytest.approx(0.8, abs=0.06)
    assert ladder["walk_acceptance"].to_numpy()[:, 1:].mean() == pytest.approx(0.3, abs=0.06)
    assert tree.attrs["engine"] == "tempering"


def test_numbers_of_priors_and_data_need_no_compiling(schools) -> None:
    spec, cache, tree = schools
    # A spread known to be small: the same code, a posterior in closed form.
    narrow = replace(
        spec, priors={"mu": Prior.parse("Normal(3, 2)"), "tau": Prior.parse("HalfCauchy(0.0001)")}
    )
    found = temper(narrow, replace(SETTINGS, draws=1000), cache=cache)
    weight = np.concatenate([1 / spec.structure.se**2, [1 / 4]])
    mean = weight @ np.concatenate([spec.structure.effect, [3.0]]) / weight.sum()
    assert found["posterior"]["mu"].to_numpy().mean() == pytest.approx(mean, abs=0.1)
    assert cache.compilations == 1
    repeated = temper(spec, SETTINGS, cache=cache)
    assert np.array_equal(repeated["posterior"]["mu"], tree["posterior"]["mu"])


def test_improper_priors_are_refused_with_the_reason() -> None:
    spec = SCHOOLS.model("weak").spec(
        SCHOOLS.dataset("eight_schools"), {"mu": Prior.parse("Flat()")}, {}, (), "noncentered"
    )
    with pytest.raises(InputError, match="walks from draws of the prior"):
        temper(spec, SETTINGS)


def test_parts_of_a_prior_are_no_likelihood() -> None:
    """Of a random walk whose prior is a density alone, only the observations are tempered."""
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model() as model:
        level = pm.Flat("level", shape=3)
        pm.Potential("walk", -0.5 * pt.sum(level**2))
        pm.Normal("y", level, 1.0, observed=np.array([0.0, 1.0, 2.0]))
    point = np.array([0.3, -1.0, 2.0])
    seen = stats.norm.logpdf([0.0, 1.0, 2.0], point).sum()
    prepared = tempered(model)
    log = prepared.compile_logp(mode="FAST_COMPILE")
    for beta in (0.0, 0.4, 1.0):
        prepared["inverse_temperature"].set_value(np.array(beta))
        assert log({"level": point}) == pytest.approx(-0.5 * (point @ point) + beta * seen)
    with pm.Model() as model:
        pm.Potential("guess", pm.Normal("x") ** 2)
    with pytest.raises(InputError, match="'guess'"):
        tempered(model)
