"""Classical estimators of rates, side by side with partial pooling; all in one pass over arrays.

Letters as in `hbm_core.models.raw_rates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.raw_rates import RawCounts, RawRates, RawTrials

_ENDS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Estimated:
    """One estimator's answer for every entity: point, standard error, and a 95 % interval; ndarrays (J,)."""

    point: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray


def raw(structure: RawRates) -> Estimated:
    """Each entity on its own, with exact intervals; see `hbm_core.models.raw_rates`."""
    ends = structure.raw_ends(_ENDS)
    return Estimated(structure.effect, structure.se, ends[:, 0], ends[:, 1])


def count_estimators(structure: RawCounts) -> dict[str, Estimated]:
    """No pooling, complete pooling and empirical Bayes of rates.

    Complete pooling: r̄ with its standard error from the entities' residuals. Empirical Bayes: the moments
    plugged in as if they were known, θ_i ~ Gamma(a + Y_i/c_i, b + E_i/c_i) with a = r̄²/τ², b = r̄/τ².

    References
    ----------
    Marshall (1991), Mapping disease and mortality rates using empirical Bayes estimators, J. R. Stat. Soc. C
    40(2), 283–294.
    """
    moments, worth = structure.rate_moments, structure.information
    exposure = np.bincount(structure.entity, structure.exposure, len(structure.units))
    found = {"no_pooling": raw(structure), "complete_pooling": _one_rate(structure, exposure)}
    if moments.between > 0 and moments.mean > 0:
        shape, rate = moments.mean**2 / moments.between, moments.mean / moments.between
        law = stats.gamma(shape + structure.effect * worth, scale=1 / (rate + worth))
        found["empirical_bayes"] = Estimated(law.mean(), law.std(), *(law.ppf(p) for p in _ENDS))
    else:
        found["empirical_bayes"] = found["complete_pooling"]
    return found


def _one_rate(structure: RawRates, weight: np.ndarray, most: float = np.inf) -> Estimated:
    """The weighted mean for all, its standard error from what the entities differ."""
    rate, mean = structure.effect, structure.rate_moments.mean
    count, total = rate.size, weight.sum()
    residual = float((weight**2 * (rate - mean) ** 2).sum())
    se = float(np.sqrt(residual * count / (count - 1))) / total if residual > 0 else 0.0
    # Entities that all show the same rate still know it no better than their events allow.
    se = se or float(np.sqrt(max(mean, 0.5 / total) / total))
    half = stats.t.ppf(_ENDS[1], max(count - 1, 1)) * se
    ends = np.full(count, max(0.0, mean - half)), np.full(count, min(most, mean + half))
    return Estimated(np.full(count, mean), np.full(count, se), *ends)


def trial_estimators(structure: RawTrials) -> dict[str, Estimated]:
    """No pooling, complete pooling and empirical Bayes of success rates.

    References
    ----------
    Kleinman (1973), Proportions with extraneous variance, J. Am. Stat. Assoc. 68(341), 46–54.
    """
    moments, y, n = structure.rate_moments, structure.successes, structure.trials
    found = {"no_pooling": raw(structure), "complete_pooling": _one_rate(structure, n, 1.0)}
    if moments.between > 0:
        kappa = moments.mean * (1 - moments.mean) / moments.between - 1
        law = stats.beta(moments.mean * kappa + y, (1 - moments.mean) * kappa + n - y)
        found["empirical_bayes"] = Estimated(law.mean(), law.std(), *(law.ppf(p) for p in _ENDS))
    else:
        found["empirical_bayes"] = found["complete_pooling"]
    return found


def classical_estimators(structure: RawRates) -> dict[str, Estimated]:
    """No pooling, complete pooling and empirical Bayes, of rates or of success rates."""
    if isinstance(structure, RawTrials):
        return trial_estimators(structure)
    assert isinstance(structure, RawCounts)
    return count_estimators(structure)


def partial_pooling(posterior: ExactPosterior) -> Estimated:
    """Mean, sd and central interval of the exact posterior."""
    ends = posterior.quantiles(_ENDS)[posterior.theta]
    units = posterior.theta
    return Estimated(posterior.mean[units], posterior.sd[units], ends[:, 0], ends[:, 1])


def estimate_table(units: tuple[str, ...], found: Mapping[str, Estimated]) -> pd.DataFrame:
    """Long table of estimators: unit, estimator, estimate, se, low95, high95."""
    parts = [
        pd.DataFrame(
            {
                "unit": units,
                "estimator": name,
                "estimate": one.point,
                "se": one.se,
                "low95": np.minimum(one.low, one.point),
                "high95": np.maximum(one.high, one.point),
            }
        )
        for name, one in found.items()
    ]
    return pd.concat(parts, ignore_index=True)
