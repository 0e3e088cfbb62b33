"""Importance weights against ArviZ, and against a law whose Pareto shape is known."""

import numpy as np
import pytest

from hbm_core.inference.psis import efficiency, smooth


@pytest.mark.parametrize("scale", [0.3, 0.8, 1.5])
@pytest.mark.parametrize("reach", [1.0, 0.4])
def test_weights_and_shape_are_those_of_arviz(scale: float, reach: float) -> None:
    from arviz_stats.base import array_stats

    ratio = scale * np.random.default_rng(3).standard_normal(4000)
    found = smooth(ratio, reach)
    weights, k = array_stats.psislw(-ratio, r_eff=reach)
    assert found.k == pytest.approx(float(k), abs=1e-9)
    assert np.log(found.weight) == pytest.approx(weights, abs=1e-9)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_the_shape_of_pareto_ratios_is_found(k: float) -> None:
    # Ratios 1/(1 − u)^k are Pareto of shape k. The fit's standard error is (1 + k)/√tail (Smith 1987).
    ratio = -k * np.log(np.random.default_rng(1).random(100_000))
    assert smooth(ratio).k == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(3 * np.sqrt(100_000)))


def test_equal_ratios_weigh_alike_and_a_few_draws_are_not_enough() -> None:
    equal = smooth(np.full(1000, -7.0))
    assert equal.k == 0
    assert equal.size == pytest.approx(1000)
    lonely = np.full(1000, -np.inf)
    lonely[:20] = 0.0
    assert not smooth(lonely).reliable
    assert not smooth(np.full(1000, -np.inf)).reliable


@pytest.mark.parametrize("lag", [0.0, 0.5, 0.9])
def test_efficiency_is_arviz_and_the_law_of_an_autoregression(lag: float) -> None:
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(2)
    noise = rng.standard_normal((3, 4, 4000))
    x = np.empty_like(noise)
    x[..., 0] = noise[..., 0] / np.sqrt(1 - lag**2)
    for at in range(1, 4000):
        x[..., at] = lag * x[..., at - 1] + noise[..., at]
    found = efficiency(x)
    assert found == pytest.approx(np.full(3, (1 - lag) / (1 + lag)), rel=0.2)
    theirs = np.minimum(np.array([array_stats.ess(one, method="mean") for one in x]) / 16_000, 1.0)
    assert found == pytest.approx(theirs, rel=0.08)
    assert efficiency(np.ones((1, 2, 10))) == pytest.approx([1.0])
