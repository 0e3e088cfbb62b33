"""How well estimators recover a known truth: error, coverage and width, over units, bins and data sets.

Where `coverage` simulates worlds of its own, this takes any data with truth and any estimates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hbm_core.analysis.coverage import LEVELS
from hbm_core.errors import InputError

MEASURES = ("mse", "mae", "bias", "coverage", "width", "interval_score")
_ERRORS = ("mse", "mae", "bias")


@dataclass(frozen=True, eq=False)
class Intervals:
    """One estimator's answer to one data set.

    Parameters
    ----------
    point : ndarray (N,)
        In the outcome's units.
    low, high : ndarray (N, L)
        Ends of the intervals, a column per level.
    """

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray


def groups(
    theta: np.ndarray,
    center: np.ndarray | None = None,
    raw: np.ndarray | None = None,
    bins: Sequence[str] | np.ndarray | None = None,
    grouping: str = "size",
) -> dict[tuple[str, str], np.ndarray]:
    """What to average over, as masks (N,) by grouping and bin.

    Parameters
    ----------
    theta : ndarray (N,)
        True effects.
    center : ndarray (N,), optional
        True center of each unit: thirds by |θ − center| make the grouping "distance".
    raw : ndarray (N,), optional
        Raw effects: the largest and the top tenth make the grouping "selection".
    bins : sequence of str (N,), optional
        Labels of the grouping named `grouping`, e.g. sizes.
    """
    count = theta.size
    found = {("all", "all"): np.ones(count, dtype=bool)}
    if bins is not None:
        labels = np.asarray(bins)
        if labels.shape != theta.shape:
            raise InputError("bins", f"one label per unit ({count})", labels.shape)
        found |= {(grouping, str(label)): labels == label for label in dict.fromkeys(labels.tolist())}
    if raw is not None and count >= 2:
        place = np.argsort(np.argsort(-raw, kind="stable"), kind="stable")
        found["selection", "largest raw effect"] = place == 0
        if count >= 20:
            found["selection", "top tenth by raw effect"] = place < count // 10
    if center is not None and count >= 3:
        third = np.argsort(np.argsort(np.abs(theta - center), kind="stable"), kind="stable") * 3 // count
        for place_, label in enumerate(("nearest the mean", "middle", "farthest from the mean")):
            found["distance", label] = third == place_
    return found


def scores(
    theta: np.ndarray,
    found: Mapping[str, Intervals],
    masks: Mapping[tuple[str, str], np.ndarray] | None = None,
    levels: Sequence[float] = LEVELS,
) -> pd.DataFrame:
    """Score estimators on one data set with truth.

    Returns
    -------
    pandas.DataFrame
        One row per estimator, grouping, bin and level: estimator, grouping, bin, level, units; mse (squared
        units), mae, bias, width, interval_score in the outcome's units, coverage a fraction. interval_score
        is width plus 2/α times the miss (Gneiting & Raftery 2007, JASA 102, section 6.2).
    """
    masks = masks or groups(theta)
    used = {key: np.flatnonzero(mask) for key, mask in masks.items() if mask.any()}
    rows = []
    for name, one in found.items():
        miss = one.point - theta
        below = np.maximum(one.low - theta[:, None], 0)
        above = np.maximum(theta[:, None] - one.high, 0)
        width = one.high - one.low
        alpha = 1 - np.asarray(levels)
        inside = ((below == 0) & (above == 0)).astype(float)
        score = width + 2 / alpha * (below + above)
        for (grouping, label), place in used.items():
            error = miss[place]
            errors = (float((error**2).mean()), float(np.abs(error).mean()), float(error.mean()))
            parts = (x[place].mean(axis=0) for x in (inside, width, score))
            for level, *interval in zip(levels, *parts, strict=True):
                rows.append((name, grouping, label, level, place.size, *errors, *map(float, interval)))
    return pd.DataFrame(rows, columns=["estimator", "grouping", "bin", "level", "units", *MEASURES])


def over_data_sets(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Average the `scores` of several data sets, with standard errors over them.

    Returns
    -------
    pandas.DataFrame
        estimator, grouping, bin, level, replications, units (over all data sets), then mse, rmse, mae, bias,
        coverage, width, interval_score, each followed by its Monte-Carlo standard error ``<name>_se``: the
        data sets are the independent draws. Each data set counts alike.
    """
    rows = pd.concat(list(parts), ignore_index=True)
    keys = ["estimator", "grouping", "bin", "level"]
    grouped = rows.groupby(keys, sort=False)
    found = grouped["units"].agg(replications="size", units="sum")
    mean, sd = grouped[list(MEASURES)].mean(), grouped[list(MEASURES)].std(ddof=1)
    for name in MEASURES:
        found[name] = mean[name]
        found[f"{name}_se"] = sd[name] / np.sqrt(found["replications"])
        if name == "mse":
            found["rmse"] = np.sqrt(found["mse"])
            with np.errstate(divide="ignore", invalid="ignore"):
                found["rmse_se"] = np.where(found["rmse"] > 0, found["mse_se"] / (2 * found["rmse"]), 0.0)
    return found.reset_index()


def hyper_scores(
    truth: Mapping[str, float], mean: pd.Series, low: pd.Series, high: pd.Series
) -> pd.DataFrame:
    """Recovery of named hyperparameters in one data set.

    Parameters
    ----------
    truth : mapping of str to float
        True values.
    mean, low, high : Series indexed by parameter name
        Estimates and one interval's ends.

    Returns
    -------
    pandas.DataFrame
        parameter, truth, estimate, low, high, covered.
    """
    names = [name for name in mean.index if name in truth]
    values = np.array([truth[name] for name in names])
    here = pd.DataFrame({"parameter": names, "truth": values})
    here["estimate"], here["low"], here["high"] = (
        part[names].to_numpy(dtype=float) for part in (mean, low, high)
    )
    here["covered"] = (here["low"] <= here["truth"]) & (here["truth"] <= here["high"])
    return here
