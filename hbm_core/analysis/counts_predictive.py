"""Counts that a model of rates would make: before the data (prior) and after (posterior)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis import count_worlds
from hbm_core.errors import NotExactError
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.count_windows import CountWindows
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.structure import ModelSpec

#: Replicates are at most so many, and together hold at most so many counts.
_REPLICATES, _COUNTS = 400, 4_000_000
#: Bars of a rootogram.
_BARS = 40
#: Rates and means of counts beyond this are cut: nothing counts so far.
_FARTHEST = 1e12


def observed(structure: Any) -> np.ndarray:
    """What was counted: counts by window, or successes by entity, ndarray (N,)."""
    return np.asarray(getattr(structure, structure.measured))


def replicate(structure: Any, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Data sets of the same design, one per draw of the parameters, ndarray (R, N).

    Parameters
    ----------
    structure : GammaCounts or BetaBinomial
        The design.
    draws : mapping of str to ndarray (R, …)
        ``theta`` (R, J), and ``phi`` (R,) for negative binomial counts.
    rng : numpy.random.Generator
        Source of randomness.

    Raises
    ------
    NotExactError
        Another structure.
    """
    theta = draws["theta"]
    if isinstance(structure, BetaBinomial):
        return rng.binomial(structure.trials.astype(np.int64), np.clip(theta, 0, 1)).astype(float)
    if isinstance(structure, CountWindows) and not isinstance(structure, GammaCounts):
        return count_worlds.replicate_counts(structure, draws, rng)
    if not isinstance(structure, GammaCounts):
        raise NotExactError(
            "replicated counts", "a model of gamma rates or of successes", type(structure).__name__
        )
    mean = np.minimum(theta[:, structure.entity] * structure.exposure, _FARTHEST)
    if structure.likelihood == "negative_binomial":
        phi = np.maximum(draws["phi"], 1e-6)[:, None]
        mean = np.minimum(mean * rng.standard_gamma(np.broadcast_to(phi, mean.shape)) / phi, _FARTHEST)
    return rng.poisson(mean).astype(float)


def replicates(posterior: ExactPosterior, count: int = _REPLICATES, seed: int = 0) -> np.ndarray:
    """Posterior predictive data sets, ndarray (R, N); fewer of large data."""
    structure: Any = posterior.spec.structure
    size = observed(structure).size
    drawn = posterior.draws(max(20, min(count, _COUNTS // size)), seed)
    return replicate(structure, drawn, np.random.default_rng([seed, 2]))


def prior_draws(spec: ModelSpec[Any], count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters and rates from their priors: each prior's name (count,), ``theta`` (count, J)."""
    structure: Any = spec.structure
    if isinstance(structure, CountWindows) and not isinstance(structure, GammaCounts):
        return count_worlds.draw_parameters(spec, count, rng)
    found = {
        name: np.asarray(prior.distribution.rvs(size=count, random_state=rng), dtype=float)
        for name, prior in spec.priors.items()
    }
    size = (count, len(structure.units))
    mu = found["mu"][:, None]
    if isinstance(structure, BetaBinomial):
        kappa = np.maximum(found["kappa"][:, None], 1e-6)
        a, b = np.maximum(mu * kappa, 1e-9), np.maximum((1 - mu) * kappa, 1e-9)
        return found | {"theta": rng.beta(np.broadcast_to(a, size), np.broadcast_to(b, size))}
    alpha = np.maximum(found["alpha"][:, None], 1e-9)
    if structure.effects == "mean_scaled":
        theta = mu * rng.standard_gamma(np.broadcast_to(alpha, size)) / alpha
    else:
        theta = rng.standard_gamma(np.broadcast_to(mu * alpha, size)) / alpha
    return found | {"theta": theta}


def prior_predictive(spec: ModelSpec[Any], count: int = 200, seed: int = 0) -> np.ndarray:
    """Data sets of the same design under the priors, ndarray (R, N); fewer of large data."""
    rng = np.random.default_rng([seed, 3])
    size = observed(spec.structure).size
    drawn = prior_draws(spec, max(20, min(count, _COUNTS // size)), rng)
    return replicate(spec.structure, drawn, rng)


def plausible_share(spec: ModelSpec[Any], lower: float, upper: float, seed: int = 0) -> float:
    """Share of prior predictive counts between two bounds."""
    simulated = prior_predictive(spec, seed=seed)
    return float(((simulated >= lower) & (simulated <= upper)).mean())


def statistics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, zero fraction, variance over mean and largest count of data sets (R, N), each ndarray (R,)."""
    counts = np.atleast_2d(counts)
    mean = counts.mean(axis=1)
    ratio = counts.var(axis=1) / np.where(mean > 0, mean, 1.0)
    return {
        "mean": mean,
        "zero_share": (counts == 0).mean(axis=1),
        "variance_to_mean": ratio,
        "largest": counts.max(axis=1),
    }


_LABELS = {
    "mean": "Mean count",
    "zero_share": "Share of zeros",
    "variance_to_mean": "Variance over mean",
    "largest": "Largest count",
}


def statistics_table(structure: Any, simulated: np.ndarray) -> pd.DataFrame:
    """What the data show beside what the model would make.

    Returns
    -------
    DataFrame
        statistic, label; observed; low95, median, high95 of the replicates; p: twice the smaller share of
        replicates at or beyond what was seen, at most 1.
    """
    seen = statistics(observed(structure))
    made = statistics(simulated)
    rows = []
    for name, values in made.items():
        value = float(seen[name][0])
        low, median, high = np.quantile(values, [0.025, 0.5, 0.975])
        # The data set seen is one of those that could have been: no p-value is exactly 0.
        above, below = ((1 + (side).sum()) / (values.size + 1) for side in (values >= value, values <= value))
        rows.append((name, _LABELS[name], value, low, median, high, min(1.0, 2 * min(above, below))))
    columns = ["statistic", "label", "observed", "low95", "median", "high95", "p"]
    return pd.DataFrame(rows, columns=columns)


def rootogram_table(structure: Any, simulated: np.ndarray) -> pd.DataFrame:
    """How often each count was seen, and how often the model expects it; wide counts in bins.

    Returns
    -------
    DataFrame
        count (lower end of a bar), upper (last count of it); observed; expected; low95, high95 of the
        replicates, all as numbers of windows or entities; the last bar holds everything beyond.
    """
    seen = observed(structure)
    top = max(float(np.quantile(seen, 0.995)), 1.0)
    width = max(1, int(np.ceil((top + 1) / _BARS)))
    bars = int(np.ceil((top + 1) / width))
    edges = np.arange(bars + 1) * float(width)

    def heights(counts: np.ndarray) -> np.ndarray:
        place = np.minimum((counts // width).astype(np.int64), bars - 1)
        return np.bincount(place, minlength=bars).astype(float)

    made = np.stack([heights(one) for one in simulated])
    low, high = np.quantile(made, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "count": edges[:-1],
            "upper": np.r_[edges[1:-1] - 1, np.inf],
            "observed": heights(seen),
            "expected": made.mean(axis=0),
            "low95": low,
            "high95": high,
        }
    )
