"""Re-weighted draws against exact posteriors under the moved priors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid

from hbm_core.errors import InputError, TooFarError
from hbm_core.inference.exact import solve
from hbm_core.inference.reweighted import Draws, ReweightedPosterior, changed, reweight
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.store.tasks import exact_draws

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def spec(mu: str = "Normal(0, 20)", tau: str = "HalfCauchy(10)") -> ModelSpec:
    priors = {"mu": Prior.parse(mu), "tau": Prior.parse(tau)}
    return ModelSpec(TwoLevelNormal(EFFECT, SE, tuple("ABCDEFGH")), priors)


@pytest.fixture(scope="module")
def draws() -> Draws:
    return Draws.of(exact_draws(spec(), 4, 5000, 1), spec())


@pytest.mark.parametrize(
    ("mu", "tau"),
    [
        ("Normal(0, 20)", "HalfCauchy(10)"),
        ("Normal(5, 10)", "HalfCauchy(10)"),
        ("Normal(0, 20)", "HalfNormal(8)"),
        ("Normal(0, 5)", "Gamma(2, 0.2)"),
        ("Normal(0, 20)", "Uniform(1, 40)"),
        ("Flat()", "HalfCauchy(25)"),
    ],
)
def test_moments_and_quantiles_are_exact_ones_within_their_errors(draws: Draws, mu: str, tau: str) -> None:
    wanted = spec(mu, tau)
    found, exact = reweight(draws, wanted), solve(wanted)
    assert found.names == exact.names
    assert changed(draws, wanted.priors) == tuple(
        name for name, prior in wanted.priors.items() if prior != spec().priors[name]
    )
    assert np.abs((found.mean - exact.mean) / found.mcse).max() < 4
    # The sd of an sd is about sd/√(2n) for a normal, more with tails.
    assert found.sd == pytest.approx(exact.sd, rel=8 / np.sqrt(found.size))
    ends = (0.025, 0.5, 0.975)
    x = exact.quantiles(ends)
    for place, name in enumerate(exact.names):
        share = found.cdf(name, x[place])
        assert share == pytest.approx(ends, abs=4 * 0.5 / np.sqrt(found.size))
        assert found.cdf(name, found.quantiles(ends)[place]) == pytest.approx(ends, abs=2e-3)


def test_hyperparameter_moves_change_what_is_shown(draws: Draws) -> None:
    near, far = reweight(draws, spec()), reweight(draws, spec(tau="HalfNormal(4)"))
    assert near.k == 0
    assert "finished fit" in near.sentence
    assert far.mean[far.index("tau")] < 0.8 * near.mean[near.index("tau")]
    assert far.size < near.size
    assert f"{far.k:.2f}" in far.sentence


def test_density_interval_and_draws_belong_to_the_weights(draws: Draws) -> None:
    wanted = spec("Normal(3, 8)", "HalfNormal(8)")
    found, exact = reweight(draws, wanted), solve(wanted)
    for name in ("mu", "tau", "theta[A]"):
        low, high = exact.quantiles((0.0005, 0.9995))[exact.index(name)]
        x = np.linspace(0.0 if name == "tau" else low, high, 400)
        peak = exact.density(name, x).max()
        assert np.abs(found.density(name, x) - exact.density(name, x)).max() < 0.08 * peak
        assert trapezoid(found.density(name, x), x) == pytest.approx(1, abs=0.01)
    assert found.density("tau", np.array([-1.0]))[0] == 0
    low, high = found.hdi()[found.index("mu")]
    assert found.cdf("mu", np.array([high]))[0] - found.cdf("mu", np.array([low]))[0] >= 0.949
    drawn = found.draws(4000, seed=2)
    assert drawn["theta"].shape == (4000, 8)
    error = found.sd[found.index("mu")] / np.sqrt(4000)
    assert abs(drawn["mu"].mean() - found.mean[found.index("mu")]) < 4 * error


def test_priors_that_the_draws_cannot_tell_of_are_refused(draws: Draws) -> None:
    with pytest.raises(TooFarError, match="Fit to update"):
        reweight(draws, spec("Normal(60, 1)"))
    with pytest.raises(TooFarError, match="Pareto"):
        reweight(draws, spec(tau="Uniform(0, 0.001)"))
    bounded = Draws.of(exact_draws(spec(tau="Uniform(0, 8)"), 2, 1000, 1), spec(tau="Uniform(0, 8)"))
    with pytest.raises(TooFarError, match="prior on tau"):
        reweight(bounded, spec(tau="Uniform(0, 12)"))
    complete = replace(spec().structure, pooling="complete")
    with pytest.raises(InputError, match="tau"):
        reweight(draws, ModelSpec(complete, {"mu": Prior.parse("Flat()")}, parameterization="centered"))


def test_very_many_draws_are_thinned_and_short_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbm_core.inference.reweighted._MOST", 20_000)
    thinned = Draws.of(exact_draws(spec(), 4, 5000, 1), spec())
    assert 1000 <= thinned.count <= 2000
    found = reweight(thinned, spec(tau="HalfNormal(8)"))
    assert isinstance(found, ReweightedPosterior)
    exact = solve(found.spec)
    assert np.abs((found.mean - exact.mean) / found.mcse).max() < 4
    with pytest.raises(InputError, match="two or more"):
        Draws.of(exact_draws(spec(), 2, 1, 1), spec())
