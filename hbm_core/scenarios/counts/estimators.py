"""Classical estimators of rates, side by side with partial pooling; all in one pass over arrays.

Letters: Y_i = Σ_j y_ij, E_i = Σ_j e_ij, r_i = Y_i/E_i; c_i: how many times larger than Poisson the variance
of Y_i is, because windows are over-dispersed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.gamma_counts import GammaCounts

_ENDS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Estimated:
    """One estimator's answer for every entity: point, standard error, and a 95 % interval; ndarrays (J,)."""

    point: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Moment estimates of a population of rates.

    Parameters
    ----------
    mean : float
        Of the rates.
    between : float
        Variance of the true rates, at least 0.
    dispersion : float
        1/φ of counts, at least 0; 0 where no entity has two windows.
    """

    mean: float
    between: float
    dispersion: float = 0.0


def count_moments(structure: GammaCounts) -> Moments:
    """1/φ from the squares within entities, the variance of the rates from those between.

    1/φ: Σ_i n_i/(n_i − 1) Σ_j (y − r_i e)² − Σ r_i e over Σ (r_i e)², entities of two windows and more.
    Then, with weights E_i: S = Σ E_i (r_i − r̄)² has the mean Σ E_i (1 − E_i/E) (τ² + c_i r̄/E_i).
    """
    windows, exposure, rate = structure.windows, structure.total_exposure, structure.raw_rate
    several = windows[structure.entity] > 1
    dispersion = 0.0
    if several.any():
        expected = (rate[structure.entity] * structure.exposure)[several]
        n = windows[structure.entity][several]
        square = (n / (n - 1) * (structure.count[several] - expected) ** 2).sum()
        if (below := float((expected**2).sum())) > 0:
            dispersion = max(0.0, float(square - expected.sum()) / below)
    mean = float(structure.count.sum() / structure.exposure.sum())
    inflation = _inflation(structure, mean, dispersion)
    share = 1 - exposure / exposure.sum()
    noise = float((share * inflation * mean).sum())
    between = float((exposure * (rate - mean) ** 2).sum() - noise) / float((exposure * share).sum())
    return Moments(mean, max(0.0, between), dispersion)


def _inflation(structure: GammaCounts, rate: float | np.ndarray, dispersion: float) -> np.ndarray:
    """c_i = 1 + r Σ e²/(φ E_i), ndarray (J,)."""
    square = np.bincount(structure.entity, structure.exposure**2, len(structure.units))
    return np.asarray(1 + rate * dispersion * square / structure.total_exposure)


def count_estimators(structure: GammaCounts) -> dict[str, Estimated]:
    """No pooling, complete pooling and empirical Bayes of rates.

    Raw rates: Garwood's exact interval for the effective count Y_i/c_i, so that it never reaches below zero.
    Complete pooling: r̄ with its standard error from the entities' residuals. Empirical Bayes: the moments
    plugged in as if they were known, θ_i ~ Gamma(a + Y_i/c_i, b + E_i/c_i) with a = r̄²/τ², b = r̄/τ².

    References
    ----------
    Garwood (1936), Fiducial limits for the Poisson distribution, Biometrika 28(3–4), 437–442; Marshall
    (1991), Mapping disease and mortality rates using empirical Bayes estimators, J. R. Stat. Soc. C 40(2),
    283–294.
    """
    moments = count_moments(structure)
    rate, exposure = structure.raw_rate, structure.total_exposure
    # Raw rates of 0 would have no noise of their own: their over-dispersion is that of the mean.
    inflation = _inflation(structure, np.where(rate > 0, rate, moments.mean), moments.dispersion)
    effective = structure.total / inflation
    low, high = stats.gamma.ppf(_ENDS[0], effective), stats.gamma.ppf(_ENDS[1], effective + 1)
    low = np.where(effective > 0, low, 0.0)
    raw = Estimated(
        rate,
        np.sqrt(np.maximum(effective, 0.5)) * inflation / exposure,
        np.minimum(low * inflation / exposure, rate),
        np.maximum(high * inflation / exposure, rate),
    )
    found = {"no_pooling": raw, "complete_pooling": _one_rate(rate, exposure, moments.mean)}
    inflation = _inflation(structure, moments.mean, moments.dispersion)
    if moments.between > 0 and moments.mean > 0:
        shape, scale = moments.mean**2 / moments.between, moments.mean / moments.between
        law = stats.gamma(shape + structure.total / inflation, scale=1 / (scale + exposure / inflation))
        found["empirical_bayes"] = Estimated(law.mean(), law.std(), *(law.ppf(p) for p in _ENDS))
    else:
        found["empirical_bayes"] = found["complete_pooling"]
    return found


def _one_rate(rate: np.ndarray, weight: np.ndarray, mean: float) -> Estimated:
    """The weighted mean for all, its standard error from what the entities differ."""
    count = rate.size
    total = weight.sum()
    residual = float((weight**2 * (rate - mean) ** 2).sum())
    se = np.sqrt(residual * count / max(count - 1, 1)) / total
    floor = np.sqrt(max(mean, 0.5 / total) / total)
    se = max(float(se), float(floor)) if residual == 0 else float(se)
    point, error = np.full(count, mean), np.full(count, se)
    half = stats.t.ppf(_ENDS[1], max(count - 1, 1)) * se
    return Estimated(point, error, np.full(count, max(0.0, mean - half)), np.full(count, mean + half))


def trial_moments(structure: BetaBinomial) -> Moments:
    """Mean and variance of success rates.

    S = Σ n_i (r_i − r̄)² has the mean Σ (1 − n_i/N) (n_i τ² + r̄(1 − r̄) − τ²).
    """
    trials, rate = structure.trials, structure.raw_rate
    mean = float(structure.successes.sum() / trials.sum())
    share = 1 - trials / trials.sum()
    chance = mean * (1 - mean)
    square = float((trials * (rate - mean) ** 2).sum())
    scale = float((share * (trials - 1)).sum())
    between = (square - float(share.sum()) * chance) / scale if scale > 0 else 0.0
    return Moments(mean, float(np.clip(between, 0.0, 0.99 * chance)))


def trial_estimators(structure: BetaBinomial) -> dict[str, Estimated]:
    """No pooling (Clopper and Pearson), complete pooling and empirical Bayes of success rates.

    References
    ----------
    Clopper & Pearson (1934), Biometrika 26(4), 404–413; Kleinman (1973), Proportions with extraneous
    variance, J. Am. Stat. Assoc. 68(341), 46–54.
    """
    moments = trial_moments(structure)
    y, n, rate = structure.successes, structure.trials, structure.raw_rate
    with np.errstate(invalid="ignore"):
        low = np.where(y > 0, stats.beta.ppf(_ENDS[0], np.maximum(y, 0.5), n - y + 1), 0.0)
        high = np.where(y < n, stats.beta.ppf(_ENDS[1], y + 1, np.maximum(n - y, 0.5)), 1.0)
    # Agresti and Coull's rate: raw rates of 0 and 1 have noise, too.
    smooth = (y + 2) / (n + 4)
    found = {"no_pooling": Estimated(rate, np.sqrt(smooth * (1 - smooth) / (n + 4)), low, high)}
    found["complete_pooling"] = _one_rate(rate, n, moments.mean)
    if moments.between > 0:
        kappa = moments.mean * (1 - moments.mean) / moments.between - 1
        law = stats.beta(moments.mean * kappa + y, (1 - moments.mean) * kappa + n - y)
        found["empirical_bayes"] = Estimated(law.mean(), law.std(), *(law.ppf(p) for p in _ENDS))
    else:
        found["empirical_bayes"] = found["complete_pooling"]
    return found


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
