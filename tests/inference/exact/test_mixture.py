"""Quantiles of normal mixtures against bisection of their distribution functions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from hbm_core.inference.exact.mixture import NormalMixtures

P = np.array([0.001, 0.025, 0.25, 0.5, 0.9, 0.975, 0.9999])


def bisected(weights, mean, sd, p):
    def excess(x):
        return weights @ stats.norm(mean, sd).cdf(x) - p

    ends = stats.norm(mean, sd).ppf(p)
    low, high = ends.min() - 1e-9, ends.max() + 1e-9
    return brentq(excess, low, high, xtol=1e-13, rtol=1e-14, maxiter=400)


RNG = np.random.default_rng(3)
MIXTURES = {
    "near normal": (np.full(40, 1 / 40), RNG.normal(0, 0.3, (3, 40)), RNG.uniform(1, 1.3, (3, 40))),
    "skewed": (
        stats.gamma(2).pdf(np.linspace(0.1, 12, 60)),
        np.linspace(0, 6, 60) * np.ones((2, 1)),
        np.linspace(1, 4, 60) * np.ones((2, 1)),
    ),
    # Where a series from one start cannot reach, or where the density all but vanishes inside.
    "two modes": (np.array([0.3, 0.7]), np.array([[-3.0, 3.0]]), np.array([[1.0, 0.5]])),
    "gap": (np.array([0.5, 0.5]), np.array([[-1e3, 1e3]]), np.array([[1.0, 1e-3]])),
    "spike and slab": (np.array([0.9, 0.1]), np.array([[0.0, 0.5]]), np.array([[1e-6, 1.0]])),
    "wide tail": (np.array([0.999, 0.001]), np.array([[0.0, 0.0]]), np.array([[1.0, 1e4]])),
    "own weights": (
        np.array([[0.2, 0.8], [0.6, 0.4]]),
        np.array([[0.0, 4.0], [1.0, 1.5]]),
        np.array([[1.0, 2.0], [0.2, 3.0]]),
    ),
    "one component": (np.ones(1), np.array([[2.0], [-1.0]]), np.array([[3.0], [0.1]])),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_quantiles_are_those_of_bisection(name):
    weights, mean, sd = MIXTURES[name]
    weights = weights / weights.sum(-1, keepdims=True)
    found = NormalMixtures(weights, mean, sd).quantiles(P)
    for row in range(mean.shape[0]):
        own = weights if weights.ndim == 1 else weights[row]
        truth = np.array([bisected(own, mean[row], sd[row], p) for p in P])
        # In units of the local width, which is what the probability left over leaves undecided.
        density = np.array([own @ stats.norm(mean[row], sd[row]).pdf(x) for x in truth])
        undecided = 1e-14 / np.maximum(density, 1e-300)
        spread = truth[4] - truth[2] + sd[row].min()
        settled = undecided < spread
        assert settled.sum() >= P.size - 1
        gap = np.abs(found[row] - truth)[settled]
        assert (gap <= 1e-8 * spread + undecided[settled]).all(), gap / spread


def test_ends_and_nonsense_among_probabilities():
    mixtures = NormalMixtures(np.array([0.5, 0.5]), np.array([[0.0, 1.0]]), np.array([[1.0, 2.0]]))
    found = mixtures.quantiles(np.array([0.0, 0.5, 1.0, np.nan, 1.5]))[0]
    assert found[0] == -np.inf
    assert found[2] == np.inf
    assert np.isnan(found[3:]).all()
    assert mixtures.cdf(0, found[1:2])[0] == pytest.approx(0.5, abs=1e-12)


def test_rare_components_count_where_the_probability_is_rarer_still():
    weights = np.array([1 - 2e-12, 1e-12, 1e-12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    mean = np.array([[0.0, -50.0, 50.0, *np.zeros(7)]])
    found = NormalMixtures(weights, mean, np.ones((1, 10))).quantiles(np.array([1e-13, 0.5]))[0]
    assert found[0] == pytest.approx(bisected(weights[:3], mean[0, :3], np.ones(3), 1e-13), abs=1e-4)
    assert found[1] == pytest.approx(0.0, abs=1e-9)
