"""Tables of rates: who moved, how much of each estimate is its own data, ranks, surprises, forecasts.

Weights take an exact posterior of rates (`GammaCountsPosterior`, `BetaBinomialPosterior`), ranks, surprises
and forecasts draws of a fit as well; the shrinkage table takes any posterior, or a summary by parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.window_predictions import LatestTails, NextWindows, latest_tails, next_windows
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.gamma_counts_posterior import GammaCountsPosterior
from hbm_core.inference.exact.rate_spread import RatePosterior, along_spread
from hbm_core.inference.reweighted import ReweightedPosterior

_ENDS = (0.025, 0.25, 0.75, 0.975)
_NAMES = ("low95", "low50", "high50", "high95")
#: Joint draws from which ranks are read.
_RANK_DRAWS = 1_000
#: Numbers in one array of ranks.
_BLOCK = 4_000_000


def shrinkage_table(
    spec: Any, posterior: ExactPosterior | pd.DataFrame, places: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per entity, with the columns of `hbm_core.analysis.shrinkage.shrinkage_table`.

    Intervals of raw rates are exact, so they are not symmetric and never below 0. All are pulled to E[μ].

    Parameters
    ----------
    spec : ModelSpec of a structure of rates
        The model.
    posterior : ExactPosterior or DataFrame
        A posterior, or a summary by parameter with all entities.
    places : ndarray of int, optional
        Entities that are listed; all by default. Ranks are among all, listed or not.
    """
    structure = spec.structure
    at = np.arange(len(structure.units)) if places is None else np.asarray(places)
    if isinstance(posterior, ExactPosterior):
        everyone, sds = posterior.mean[posterior.theta], posterior.sd[posterior.theta]
        intervals = _intervals(posterior, at)
        toward = float(posterior.mean[posterior.index("mu")]) if "mu" in posterior.names else np.nan
    else:
        rows = posterior.loc[[f"theta[{label}]" for label in structure.units]]
        everyone, sds = rows["mean"].to_numpy(), rows["sd"].to_numpy()
        intervals = rows[[f"q{end:g}" for end in _ENDS]].to_numpy()[at]
        toward = float(posterior["mean"].to_dict().get("mu", np.nan))
    if not np.isfinite(toward):
        toward = float(np.mean(everyone))
    raw, se, pooled = structure.effect[at], structure.se[at], everyone[at]
    table = pd.DataFrame({"unit": [str(structure.units[int(place)]) for place in at], "raw": raw, "se": se})
    for name, column in zip(_NAMES, structure.raw_ends(_ENDS)[at].T, strict=True):
        table[f"raw_{name}"] = column
    table["pooled"], table["sd"] = pooled, sds[at]
    for name, column in zip(_NAMES, intervals.T, strict=True):
        table[name] = column
    table["toward"], table["displacement"] = toward, pooled - raw
    gap = toward - raw
    near = np.abs(gap) < 1e-6 * se
    table["realised"] = np.where(near, np.nan, (pooled - raw) / np.where(near, 1.0, gap))
    table["rank_raw"] = _ranks(structure.effect)[at]
    # Means that agree to rounding are ties.
    least = max(float(structure.se.min()), 1e-300)
    table["rank_pooled"] = _ranks(np.round(everyone / least, 9))[at]
    table["rank_change"] = table["rank_raw"] - table["rank_pooled"]
    return table


def _intervals(posterior: Any, at: np.ndarray) -> np.ndarray:
    if hasattr(posterior, "unit_quantiles"):
        return np.asarray(posterior.unit_quantiles(_ENDS, at))
    return np.asarray(posterior.quantiles(_ENDS)[posterior.theta][at])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from the largest, ties at their mean."""
    return pd.Series(values).rank(ascending=False).to_numpy()


def pooling_ledger(spec: Any, posterior: ExactPosterior, table: pd.DataFrame) -> pd.DataFrame:
    """One row per row of `table`: the population's weight in each rate, and how far it moved.

    Columns as in `hbm_core.analysis.shrinkage.pooling_ledger`; rates are not linear in the counts, so there
    are no weights of own data, others and prior.
    """
    place = {str(unit): k for k, unit in enumerate(spec.structure.units)}
    at = np.array([place[unit] for unit in table["unit"]], dtype=int)
    ledger = table[["unit"]].copy()
    absent = np.full(len(table), np.nan)
    found = getattr(posterior, "unit_pooling", None)
    ledger["pooling"] = absent if found is None else found(at)
    for name in ("pooling_low95", "pooling_high95", "weight_own", "weight_others", "weight_prior"):
        ledger[name] = absent
    return ledger.join(table[["displacement", "realised", "rank_change"]])


def three_poolings(spec: Any, posterior: RatePosterior, units: Sequence[str]) -> pd.DataFrame:
    """No, partial and complete pooling of some entities side by side.

    Complete pooling is the same model where the rates have no spread; only exact posteriors tell of it.

    Returns
    -------
    DataFrame
        unit, pooling ("none", "partial", "complete"), estimate, low95, low50, high50, high95.
    """
    place = {str(unit): k for k, unit in enumerate(spec.structure.units)}
    at = np.array([place[str(unit)] for unit in units], dtype=int)
    table = shrinkage_table(spec, posterior, at)
    raws = [f"raw_{name}" for name in _NAMES]
    none = table[["unit", "raw", *raws]].set_axis(["unit", "estimate", *_NAMES], axis=1)
    partial = table[["unit", "pooled", *_NAMES]].set_axis(none.columns, axis=1)
    parts = {"none": none, "partial": partial}
    if hasattr(posterior, "rates_at"):
        given = along_spread(posterior, at)
        centre, sd = given.theta_mean[0], given.theta_sd[0]
        values = np.column_stack([centre, *(centre + z * sd for z in (-1.96, -0.6745, 0.6745, 1.96))])
        complete = pd.DataFrame(np.maximum(values, 0), columns=none.columns[1:])
        complete.insert(0, "unit", table["unit"])
        parts["complete"] = complete
    long = pd.concat([part.assign(pooling=name) for name, part in parts.items()], ignore_index=True)
    return long[["unit", "pooling", "estimate", *_NAMES]]


def weight_table(posterior: RatePosterior) -> pd.DataFrame:
    """How much each entity's own data count, against how much was seen of it.

    Returns
    -------
    DataFrame
        unit; seen (windows, exposure or trials); own (weight of its own data, 1 − B); raw, pooled.
    """
    structure: Any = posterior.structure
    mean, _ = posterior.unit_moments()
    return pd.DataFrame(
        {
            "unit": [str(unit) for unit in structure.units],
            "seen": structure.seen[1],
            "own": posterior.own_weight,
            "raw": structure.effect,
            "pooled": mean,
        }
    )


def ranking_table(
    posterior: ExactPosterior, top: int = 10, draws: int = _RANK_DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Ranks with intervals, from joint draws: 1 is the largest rate.

    Parameters
    ----------
    posterior : ExactPosterior
        Of rates, exact or draws.
    top : int
        How many count as the top.
    draws : int
        Joint draws; fewer where there are very many entities.
    seed : int
        Of the draws.

    Returns
    -------
    DataFrame
        unit; pooled; rank (posterior mean), low90, high90; p_top: probability to be among the `top`; the
        best mean rank first.
    """
    structure: Any = posterior.spec.structure
    size = len(structure.units)
    count = max(100, min(draws, _BLOCK // size))
    theta = posterior.draws(count, seed)["theta"]
    order = np.argsort(-theta, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(1, size + 1), order.shape), axis=1)
    low, high = np.quantile(ranks, [0.05, 0.95], axis=0, method="nearest")
    table = pd.DataFrame(
        {
            "unit": [str(unit) for unit in structure.units],
            "pooled": _means(posterior),
            "rank": ranks.mean(axis=0),
            "low90": low,
            "high90": high,
            "p_top": (ranks <= top).mean(axis=0),
        }
    )
    return table.sort_values(["rank", "unit"], kind="stable").reset_index(drop=True)


def _means(posterior: Any) -> np.ndarray:
    """Posterior means of all rates, ndarray (J,)."""
    if hasattr(posterior, "unit_moments"):
        return np.asarray(posterior.unit_moments()[0])
    return np.asarray(posterior.mean[posterior.theta])


def surprise_table(posterior: GammaCountsPosterior | ReweightedPosterior) -> pd.DataFrame:
    """Entities whose latest window is surprising, the most surprising first.

    Returns
    -------
    DataFrame
        unit; count, exposure (of the latest window); expected; above, below (posterior predictive
        tail probabilities); surprise (twice the smaller, at most 1); side ("more" or "less"); mcse (Monte
        Carlo error of the surprise, 0 if exact); k, limit and log_density as in `LatestTails`.
    """
    structure: Any = posterior.spec.structure
    place = structure.latest
    if isinstance(posterior, GammaCountsPosterior):
        exact = posterior.latest()
        expected = _means(posterior) * structure.exposure[place]
        tails = LatestTails(exact.above, exact.below, expected, *np.zeros((4, place.size)))
    else:
        tails = latest_tails(posterior)
    table = pd.DataFrame(
        {
            "unit": [str(unit) for unit in structure.units],
            "count": structure.count[place],
            "exposure": structure.exposure[place],
            "expected": tails.expected,
            "above": tails.above,
            "below": tails.below,
            "surprise": np.minimum(2 * np.minimum(tails.above, tails.below), 1.0),
            "side": np.where(tails.above <= tails.below, "more", "less"),
            "mcse": 2 * tails.mcse,
            "k": tails.k,
            "limit": tails.limit,
            "log_density": tails.log_density,
        }
    )
    return table.sort_values(["surprise", "unit"], kind="stable").reset_index(drop=True)


def forecast_table(posterior: GammaCountsPosterior | ReweightedPosterior) -> pd.DataFrame:
    """Each entity's next window, of the exposure of its latest.

    Returns
    -------
    DataFrame
        unit; exposure; latest (count); expected, mcse (its Monte Carlo error, 0 if exact); low90, median,
        high90 (whole numbers); largest first.
    """
    structure: Any = posterior.spec.structure
    place, shares = structure.latest, (0.05, 0.5, 0.95)
    if isinstance(posterior, GammaCountsPosterior):
        expected = _means(posterior) * structure.exposure[place]
        ahead = NextWindows(expected, np.zeros(place.size), posterior.forecast(shares))
    else:
        ahead = next_windows(posterior, shares)
    low, median, high = ahead.quantiles.T
    table = pd.DataFrame(
        {
            "unit": [str(unit) for unit in structure.units],
            "exposure": structure.exposure[place],
            "latest": structure.count[place],
            "expected": ahead.expected,
            "mcse": ahead.mcse,
            "low90": low,
            "median": median,
            "high90": high,
        }
    )
    order = table.sort_values(["expected", "unit"], ascending=[False, True], kind="stable")
    return order.reset_index(drop=True)
