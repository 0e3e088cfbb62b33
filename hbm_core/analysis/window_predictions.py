"""Single windows of counts from draws: how surprising the latest is, and what the next will be.

The draws are those of a model that is sampled; its recipe knows the law of a window given them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbm_core.inference.psis import smooth
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe
from hbm_core.inference.reweighted import ReweightedPosterior

#: Numbers in one array over draws, entities and points of the law.
_NUMBERS = 1_000_000


@dataclass(frozen=True, eq=False)
class LatestTails:
    """Posterior predictive tail probabilities of each entity's latest window.

    Attributes
    ----------
    above, below : ndarray (J,)
        P(Y ≥ y) and P(Y ≤ y).
    expected : ndarray (J,)
        Expected counts.
    mcse : ndarray (J,)
        Monte Carlo standard error of the smaller tail.
    log_density : ndarray (J,)
        log P(Y = y).
    k, limit : ndarray (J,)
        Pareto's k of leaving the latest window out, and its limit; 0 where it was not left out.
    """

    above: np.ndarray
    below: np.ndarray
    expected: np.ndarray
    mcse: np.ndarray
    log_density: np.ndarray
    k: np.ndarray
    limit: np.ndarray


@dataclass(frozen=True, eq=False)
class NextWindows:
    """Each entity's next window.

    Attributes
    ----------
    expected, mcse : ndarray (J,)
        Expected count and its Monte Carlo standard error.
    quantiles : ndarray (J, P)
        Whole numbers.
    """

    expected: np.ndarray
    mcse: np.ndarray
    quantiles: np.ndarray


def latest_tails(posterior: ReweightedPosterior) -> LatestTails:
    """Tail probabilities of the latest windows.

    Where rates move from window to window, draws are re-weighted to what they would be without each entity's
    latest window: by 1/p(y | earlier windows), Pareto-smoothed.

    References
    ----------
    Bürkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation for Bayesian time series
    models, Journal of Statistical Computation and Simulation 90(14).
    """
    how, draws, weight, size = _chosen(posterior)
    structure: Any = posterior.spec.structure
    law = how.latest_window(posterior.spec, draws)
    y = structure.count[structure.latest]
    above, log_p = law.at_least(y), law.log_probability(y)
    count, units = above.shape
    weights, (k, limit) = np.repeat(weight[:, None], units, axis=1), np.zeros((2, units))
    if how.forward:
        for place in range(units):
            smoothed = smooth(np.log(np.maximum(weight, 1e-300)) - log_p[:, place], min(size / count, 1.0))
            weights[:, place], k[place], limit[place] = smoothed.weight, smoothed.k, smoothed.limit
    chance = np.exp(log_p)
    middle, same = (weights * above).sum(axis=0), (weights * chance).sum(axis=0)
    below = np.clip(1 - middle + same, 0, 1)
    tail = np.where(middle <= below, above, 1 - above + chance)
    gap = np.square(tail - (weights * tail).sum(axis=0))
    mcse = np.sqrt((np.square(weights) * gap).sum(axis=0) * count / size)
    expected = (weights * law.expected).sum(axis=0)
    log_density = np.log(np.maximum(same, 1e-300))
    return LatestTails(np.clip(middle, 0, 1), below, expected, mcse, log_density, k, limit)


def next_windows(
    posterior: ReweightedPosterior, probabilities: Sequence[float], seed: int = 0
) -> NextWindows:
    """Expected count and quantiles of the next windows; the same seed gives the same numbers."""
    how, draws, weight, size = _chosen(posterior)
    law = how.next_window(posterior.spec, draws)
    expected = law.expected
    mean = weight @ expected
    mcse = np.sqrt(np.square(weight) @ np.square(expected - mean) * len(weight) / size)
    rng = np.random.default_rng([seed, 4])
    at = np.arange(len(weight))
    if np.ptp(weight) > 0:
        at = rng.choice(len(weight), size=len(weight), p=weight)
    drawn = law.drawn(rng)[at]
    quantiles = np.quantile(drawn, list(probabilities), axis=0, method="inverted_cdf").T
    return NextWindows(mean, mcse, quantiles)


def _chosen(
    posterior: ReweightedPosterior,
) -> tuple[CountWindowsRecipe, dict[str, np.ndarray], np.ndarray, float]:
    """Recipe; draws, thinned where they are many; their weights; how many independent ones they are worth."""
    how = recipe(posterior.spec)
    assert isinstance(how, CountWindowsRecipe)
    units = len(posterior.spec.structure.units)
    some = {name: values[:1] for name, values in posterior.variables.items()}
    points = how.next_window(posterior.spec, some).mean.shape[2]
    step = max(1, int(np.ceil(posterior.weight.size * units * points / _NUMBERS)))
    draws = {name: values[::step] for name, values in posterior.variables.items()}
    weight = posterior.weight[::step]
    return how, draws, weight / weight.sum(), min(posterior.size, float(len(weight)))
