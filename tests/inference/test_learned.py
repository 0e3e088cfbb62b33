"""Priors learned from a batch: nearest members of known families, told by SciPy's own fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from hbm_core.inference.exact import solve
from hbm_core.inference.exact.three_level import solve_three_level
from hbm_core.inference.learned import _SHARES, _Z, fitted, learned_priors
from hbm_core.inference.precomputed import Hyperposterior
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from tests.inference.test_precomputed import batch


@pytest.mark.parametrize(
    "text",
    ["Gamma(3, 2)", "LogNormal(-1, 0.3)", "InverseGamma(5, 1.5)", "Gamma(1, 4)", "InverseGamma(900, 300)"],
)
def test_a_member_of_a_family_is_found_again(text) -> None:
    truth = Prior.parse(text)
    x = truth.distribution.ppf(ndtr(_Z))
    found = fitted(x, truth.distribution.pdf(x), _SHARES, True)
    assert found.prior.family == truth.family
    assert found.prior.numbers == pytest.approx(truth.numbers, rel=1e-3)
    assert found.divergence == pytest.approx(0, abs=1e-5)
    assert all(value > found.divergence for value in found.others.values())


def test_the_divergence_is_that_of_the_nearest_member() -> None:
    truth = stats.gamma(4.0, scale=0.5)
    x = truth.ppf(ndtr(_Z))
    found = fitted(x, truth.pdf(x), _SHARES, True)
    fine = np.linspace(1e-6, 30, 400_001)
    height = truth.pdf(fine)
    for mean, sd in ((0.0, 0.0), (0.05, 0.0), (0.0, 0.05)):
        log = np.log(fine)
        center = np.trapezoid(height * log, fine)
        spread = np.sqrt(np.trapezoid(height * (log - center) ** 2, fine))
        other = stats.lognorm(spread + sd, scale=np.exp(center + mean))
        value = np.trapezoid(height * (truth.logpdf(fine) - other.logpdf(fine)), fine)
        if mean == sd == 0:
            assert found.others["LogNormal"] == pytest.approx(value, abs=1e-5)
        else:
            assert value > found.others["LogNormal"]


def test_moments_of_a_batch_are_carried_over() -> None:
    posterior = solve_three_level(batch(groups=6, units=60))
    found = learned_priors(posterior)
    assert tuple(found) == posterior.hyper_names
    for place, one in enumerate(found.values()):
        distribution = one.prior.distribution
        assert abs(distribution.mean() - posterior.hyper_mean[place]) < 0.05 * posterior.hyper_sd[place]
        assert distribution.std() == pytest.approx(posterior.hyper_sd[place], rel=0.15)
        assert 0 <= one.divergence < 0.1
    assert Hyperposterior.of(posterior).priors == {name: one.prior for name, one in found.items()}


def test_any_exact_posterior_with_single_hyperparameters_can_be_learned_from() -> None:
    priors = {"mu": Prior.parse("Normal(0, 1)"), "tau": Prior.parse("HalfNormal(1)")}
    y = np.array([0.1, 0.5, 1.2, -0.3])
    found = learned_priors(solve(ModelSpec(TwoLevelNormal(y, np.full(4, 0.3), tuple("abcd")), priors)))
    assert tuple(found) == ("mu", "tau")
